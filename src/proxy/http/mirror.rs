//! RequestMirror: copies of requests go to other services too, and what those answer is ignored.
//!
//! A copy goes out once the body has come whole, and only where that is short enough to be kept for a repetition anyway. Neither the
//! client nor the service that is meant waits for it; it is sent once, to one endpoint, and its circuit and limits hold for it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::body::{Copy, CopyError, Cut, Size, Source};
use super::forward::{Plan, Session};
use super::head::{Fields, Known, RequestHead, ResponseHead};
use super::respond;
use super::tries;
use crate::proxy::cluster::{Lease, Outcome};
use crate::proxy::destination::Destination;
use crate::proxy::http1::codec::Limits;
use crate::proxy::upstream::{Upstream, Wanted};
use crate::proxy::worker::Worker;

/// A copy that has not been answered by then is given up.
const TIME_MAX: Duration = Duration::from_secs(15);
/// Copies of one worker that are under way at once. More are not sent.
const UNDER_WAY_MAX: usize = 256;

/// A request as it goes up, and the other services that get it too. One that is dropped instead of sent counts as skipped.
pub struct Copies {
    destinations: SmallVec<[Arc<Destination>; 1]>,
    head: RequestHead,
    limits: Limits,
}

/// Whom this request is copied to, by chance; None where that is nobody.
#[cold]
pub fn begin(
    session: &Session,
    plan: &Plan<'_>,
    request: &RequestHead,
    limits: Limits,
) -> Option<Box<Copies>> {
    if plan.upgrade {
        return None;
    }
    let rng = &mut session.worker.rng.borrow_mut();
    let chosen = plan
        .mirrors
        .iter()
        .filter(|mirror| mirror.chance.falls(rng));
    let destinations: SmallVec<_> = chosen.map(|mirror| mirror.target.clone()).collect();
    if destinations.is_empty() {
        return None;
    }
    let mut head = request.clone();
    head.fields.remove(Known::Expect);
    Some(Box::new(Copies {
        destinations,
        head,
        limits,
    }))
}

impl Copies {
    /// Sends them, with this body; None where the request has none.
    pub fn send(mut self, worker: &Rc<Worker>, body: Option<&[u8]>) {
        for destination in std::mem::take(&mut self.destinations) {
            if !worker.copies.begin(UNDER_WAY_MAX) {
                destination.series.mirrors_skipped.increment();
                continue;
            }
            destination.series.mirrored.increment();
            let copy = One {
                worker: worker.clone(),
                destination,
                head: self.head.clone(),
                body: body.map(<[u8]>::to_vec),
                limits: self.limits,
            };
            tokio::task::spawn_local(async move {
                // Who is late is dropped, and with it the connection.
                let _ = tokio::time::timeout(TIME_MAX, copy.run()).await;
                copy.worker.copies.end();
            });
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        for destination in &self.destinations {
            destination.series.mirrors_skipped.increment();
        }
    }
}

struct One {
    worker: Rc<Worker>,
    destination: Arc<Destination>,
    head: RequestHead,
    body: Option<Vec<u8>>,
    limits: Limits,
}

impl One {
    async fn run(&self) {
        let began = Instant::now();
        let Ok(pass) = self.destination.enter(began, &self.worker.rng) else {
            return;
        };
        let picked = {
            let rng = &mut self.worker.rng.borrow_mut();
            self.destination.cluster.pick(&[], began, rng)
        };
        let Ok(lease) = picked else {
            return;
        };
        let outcome = self.ask(&lease, began).await;
        if let Some(mut pass) = pass {
            pass.answered(outcome, began, Instant::now());
        }
        lease.settle(outcome, began.elapsed(), Instant::now());
    }

    async fn ask(&self, lease: &Lease, began: Instant) -> Outcome {
        let size = match &self.body {
            None => Size::None,
            Some(body) => Size::Exact(body.len() as u64),
        };
        let wanted = Wanted {
            destination: &self.destination,
            endpoint: lease.endpoint(),
            guise: None,
            http2: (self.destination).wants_http2(false, respond::is_grpc(&self.head)),
            // So that nothing is lost on a connection that is being closed.
            fresh: false,
            replayable: self.head.method.is_idempotent(),
        };
        let (pool, settings) = (&self.worker.pool, &self.worker.settings);
        let opening = pin!(pool.open(&wanted, &self.head, size, began, settings));
        let Ok(mut upstream) = opening.await else {
            return Outcome::ConnectFailure;
        };
        self.destination.series.attempts.increment();
        match self.exchange(&mut upstream).await {
            Ok(outcome) => {
                pool.give_back(upstream, settings);
                outcome
            }
            Err(_) => {
                upstream.cut();
                Outcome::Reset
            }
        }
    }

    /// Sends the body, and reads the answer to its end.
    async fn exchange(&self, upstream: &mut Upstream) -> Result<Outcome, Cut> {
        let mut body = Whole(self.body.as_deref().unwrap_or_default());
        let mut request = Copy::default();
        let mut answer = ResponseHead::default();
        poll_fn(|cx| {
            if let Poll::Ready(Err(CopyError::Source(cut) | CopyError::Sink(cut))) =
                request.poll(cx, &mut body, upstream)
            {
                return Poll::Ready(Err(cut));
            }
            loop {
                match upstream.poll_head(cx, &self.limits, &self.head.method, &mut answer) {
                    Poll::Ready(Ok(())) if answer.is_interim() => {}
                    polled => return polled,
                }
            }
        })
        .await?;
        poll_fn(|cx| {
            if let Poll::Ready(Err(CopyError::Source(cut) | CopyError::Sink(cut))) =
                request.poll(cx, &mut body, upstream)
            {
                return Poll::Ready(Err(cut));
            }
            poll_drained(cx, upstream)
        })
        .await?;
        match request.is_done() && answer.status != 101 {
            true => Ok(tries::outcome_of(&answer, None)),
            false => Err(Cut::Unseen),
        }
    }
}

fn poll_drained(cx: &mut Context<'_>, upstream: &mut Upstream) -> Poll<Result<(), Cut>> {
    loop {
        match upstream.poll_chunk(cx) {
            Poll::Ready(Ok(Some(chunk))) => {
                let count = chunk.len();
                upstream.consume(count);
            }
            Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(cut)) => return Poll::Ready(Err(cut)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// A body that is at hand.
struct Whole<'a>(&'a [u8]);

impl Source for Whole<'_> {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        Poll::Ready(Ok(Some(self.0).filter(|rest| !rest.is_empty())))
    }

    fn consume(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }

    fn trailers(&self) -> Option<&Fields> {
        None
    }
}
