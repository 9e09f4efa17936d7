//! A request without a body that is asked of a second endpoint while the first is slow: whose final head comes first wins.
//!
//! Both attempts live in the request's own task and are polled in turn. The loser is cancelled, by a reset or by closing its
//! connection, and its lease settles without blame. An attempt that fails, or is answered with a 5xx, leaves the race to the other
//! one, since failing is often faster than answering. Requests with bodies are left out: theirs would have to be read for two.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use super::attempt::{Attempt, Failed, client_failure};
use super::body::{Copy, Cut, Size, Source};
use super::deadline::Deadline;
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forward::{Ended, Scratch};
use super::head::{Fields, Method, RequestHead, ResponseHead};
use super::repeats;
use super::replay::Replay;
use super::tries::{Tries, outcome_of};
use super::undelivered;
use crate::proxy::cluster::{Lease, Outcome};
use crate::proxy::hedging::Hedging;
use crate::proxy::http1::codec::Limits;
use crate::proxy::upstream::{OpenError, Upstream, Wanted};

/// What came of the attempts: of the one that answered, or else of the one that failed last.
pub struct Raced {
    pub lease: Lease,
    pub began: Instant,
    pub result: Result<(Upstream, Copy), Failed>,
}

/// Makes the attempt, and a second one where the first takes longer than `after`; where that is not known yet, only the first.
pub async fn race<D: Downstream>(
    (hedging, after): (&Hedging, Option<Duration>),
    (attempt, lease): (Attempt<'_>, Lease),
    tries: &mut Tries<'_>,
    down: &mut D,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
) -> Result<Raced, Ended> {
    let began = attempt.began;
    let http2 = down.has_prior_knowledge();
    let deadline = attempt.announce(&mut scratch.request);
    let Scratch {
        request,
        response,
        limits,
    } = scratch;
    let head = Cow::Borrowed(&*request);
    let mut first = Runner::new(attempt, lease, head, deadline, http2);
    // A head of its own would cost every request its allocations, for the few that are asked twice.
    std::mem::swap(response, &mut first.response);
    let mut runners: Runners<'_> = smallvec![first];
    let mut hedge_at = after.map(|after| began + after);
    loop {
        match next(&mut runners, hedge_at, down, &request.method, limits).await {
            Event::Slow => {
                hedge_at = None;
                runners.extend(second(hedging, tries, request, http2, exchange));
            }
            Event::Failed(index, failed) => {
                let failing = runners.swap_remove(index);
                if runners.is_empty() {
                    return Ok(failing.loses(failed));
                }
                let latency = failing.attempt.began.elapsed();
                failing
                    .lease
                    .settle(failed.outcome, latency, Instant::now());
            }
            Event::Answered(index)
                if runners.len() > 1 && runners[index].response.status >= 500 =>
            {
                runners.swap_remove(index).withdraw();
            }
            Event::Answered(index) => {
                let now = Instant::now();
                hedging.observe(now - began);
                exchange.first_byte = Some(now);
                let mut winner = runners.swap_remove(index);
                exchange.endpoint = Some(winner.lease.endpoint().address);
                if exchange.attempts > 1 {
                    count(winner.attempt.began > began, tries, exchange, after);
                }
                runners.into_iter().for_each(|loser| loser.cancel());
                std::mem::swap(response, &mut winner.response);
                return Ok(winner.wins());
            }
            Event::Left(cut) => {
                runners.into_iter().for_each(|loser| loser.cancel());
                return Err(client_failure(cut));
            }
        }
    }
}

/// The attempt that is made beside the first; None where too many are, or where nobody else can take it.
fn second<'a>(
    hedging: &Hedging,
    tries: &mut Tries<'a>,
    head: &RequestHead,
    http2: bool,
    exchange: &mut Exchange,
) -> Option<Box<Runner<'a>>> {
    if !hedging.grants(Instant::now()) {
        tries.series().hedges_refused.increment();
        return None;
    }
    let mut head = head.clone();
    let (attempt, lease) = tries.begin(&mut head, exchange).ok()?;
    repeats::mark(&mut head.fields, exchange.attempts);
    let deadline = attempt.announce(&mut head);
    Some(Runner::new(
        attempt,
        lease,
        Cow::Owned(head),
        deadline,
        http2,
    ))
}

/// Says which of the two was the faster.
fn count(won: bool, tries: &Tries<'_>, exchange: &mut Exchange, after: Option<Duration>) {
    let series = tries.series();
    let (hedges, place) = match won {
        true => (&series.hedges_won, "second"),
        false => (&series.hedges_lost, "first"),
    };
    hedges.increment();
    let after = after.unwrap_or_default();
    exchange.details = format!("hedged after {after:?}; the {place} endpoint answered first");
}

/// What happens next in a race.
enum Event {
    /// The runner of this index has a final head in its [`Runner::response`].
    Answered(usize),
    Failed(usize, Failed),
    /// The client has left.
    Left(Cut),
    /// It is time to ask another endpoint.
    Slow,
}

async fn next<D: Downstream>(
    runners: &mut Runners<'_>,
    hedge_at: Option<Instant>,
    down: &mut D,
    method: &Method,
    limits: &Limits,
) -> Event {
    poll_fn(|cx| {
        for (index, runner) in runners.iter_mut().enumerate() {
            match runner.poll(cx, down, method, limits) {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Answered(index)),
                Poll::Ready(Err(Stopped::Failed(failed))) => {
                    return Poll::Ready(Event::Failed(index, failed));
                }
                Poll::Ready(Err(Stopped::Left(cut))) => return Poll::Ready(Event::Left(cut)),
                Poll::Pending => {}
            }
        }
        if let Poll::Ready(cut) = down.poll_gone(cx, runners[0].attempt.plan.on_half_close) {
            return Poll::Ready(Event::Left(cut));
        }
        match hedge_at {
            Some(at) => down.timer().poll(cx, at).map(|()| Event::Slow),
            None => Poll::Pending,
        }
    })
    .await
}

/// One or two; never none while somebody waits for them. Boxed, because they are large and change their places.
type Runners<'a> = SmallVec<[Box<Runner<'a>>; 2]>;

/// One of the attempts.
struct Runner<'a> {
    attempt: Attempt<'a>,
    lease: Lease,
    deadline: Option<Deadline>,
    state: State<'a>,
    /// Of the body that is not there, whose end takes the head along.
    request: Copy,
    sending: bool,
    response: ResponseHead,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a runner is boxed, and most of its time it has asked"
)]
enum State<'a> {
    Opening(Pin<Box<dyn Future<Output = Result<Upstream, OpenError>> + 'a>>),
    Asked(Upstream),
}

/// Why an attempt has no answer.
enum Stopped {
    Failed(Failed),
    Left(Cut),
}

impl<'a> Runner<'a> {
    fn new<'h: 'a>(
        attempt: Attempt<'a>,
        lease: Lease,
        head: Cow<'h, RequestHead>,
        deadline: Option<Deadline>,
        http2: bool,
    ) -> Box<Self> {
        let Attempt { session, plan, .. } = attempt;
        let (endpoint, began) = (lease.endpoint().clone(), attempt.began);
        let opening = async move {
            let wanted = Wanted {
                destination: &plan.destination,
                endpoint: &endpoint,
                guise: session.guise(),
                http2: plan.destination.wants_http2(http2, plan.grpc),
                fresh: false,
                replayable: true,
            };
            let worker = &session.worker;
            let opened = worker
                .pool
                .open(&wanted, &head, Size::None, began, &worker.settings);
            opened.await
        };
        Box::new(Self {
            attempt,
            lease,
            deadline,
            state: State::Opening(Box::pin(opening)),
            request: Copy::default(),
            sending: true,
            response: ResponseHead::default(),
        })
    }

    /// Ready once the final head of its answer has come; informational ones go on as they come.
    fn poll<D: Downstream>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut D,
        method: &Method,
        limits: &Limits,
    ) -> Poll<Result<(), Stopped>> {
        if let Poll::Ready(result) = self.poll_head(cx, down, method, limits) {
            return Poll::Ready(result);
        }
        let late = self.poll_time(cx, down);
        late.map(|failed| Err(Stopped::Failed(failed)))
    }

    fn poll_head<D: Downstream>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut D,
        method: &Method,
        limits: &Limits,
    ) -> Poll<Result<(), Stopped>> {
        if let State::Opening(opening) = &mut self.state {
            self.state = match ready!(opening.as_mut().poll(cx)) {
                Ok(upstream) => State::Asked(upstream),
                Err(error) => {
                    let failed = self.attempt.not_opened(&self.lease, error);
                    return Poll::Ready(Err(Stopped::Failed(failed)));
                }
            };
        }
        let State::Asked(upstream) = &mut self.state else {
            return Poll::Pending;
        };
        // Where it cannot be sent, the answer, or its absence, tells.
        self.sending = self.sending && self.request.poll(cx, &mut Nothing, upstream).is_pending();
        loop {
            match ready!(upstream.poll_head(cx, limits, method, &mut self.response)) {
                Ok(()) if self.response.is_interim() => {
                    down.send_interim(&self.response).map_err(Stopped::Left)?;
                    let _ = down.poll_flush(cx);
                }
                Ok(()) => return Poll::Ready(Ok(())),
                Err(cut) => {
                    let nothing = Replay::of_nothing();
                    let failed = self.attempt.broken(upstream, cut, &nothing, &self.lease);
                    return Poll::Ready(Err(Stopped::Failed(failed)));
                }
            }
        }
    }

    /// Ready when it has taken too long.
    fn poll_time<D: Downstream>(&mut self, cx: &mut Context<'_>, down: &mut D) -> Poll<Failed> {
        let Attempt { plan, session, .. } = self.attempt;
        if let Some(missed) = self.deadline {
            ready!(down.timer().poll(cx, missed.at));
            self.cut();
            return Poll::Ready(self.attempt.missed(missed, &Replay::of_nothing()));
        }
        let Some(limit) = plan.idle_limit(&session.worker.settings) else {
            return Poll::Pending;
        };
        ready!(down.timer().poll(cx, self.attempt.began + limit));
        self.cut();
        Poll::Ready(Failed::idle(limit))
    }

    fn wins(self) -> Raced {
        let State::Asked(upstream) = self.state else {
            unreachable!("only an upstream that was asked gives a head");
        };
        Raced {
            lease: self.lease,
            began: self.attempt.began,
            result: Ok((upstream, Copy::nothing())),
        }
    }

    fn loses(self, failed: Failed) -> Raced {
        Raced {
            lease: self.lease,
            began: self.attempt.began,
            result: Err(failed),
        }
    }

    /// Its answer is none that anybody wants while there may be another one.
    fn withdraw(mut self) {
        self.cut();
        let undelivered = undelivered::take(&mut self.response);
        let outcome = outcome_of(&self.response, undelivered);
        let latency = self.attempt.began.elapsed();
        self.lease.settle(outcome, latency, Instant::now());
    }

    /// It has lost, or nobody waits for it any more.
    fn cancel(mut self) {
        self.cut();
        let latency = self.attempt.began.elapsed();
        self.lease
            .settle(Outcome::Cancelled, latency, Instant::now());
    }

    fn cut(&mut self) {
        if let State::Asked(upstream) = &mut self.state {
            upstream.cut();
        }
    }
}

/// The body of a request that has none.
struct Nothing;

impl Source for Nothing {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        Poll::Ready(Ok(None))
    }

    fn consume(&mut self, _: usize) {}

    fn trailers(&self) -> Option<&Fields> {
        None
    }
}
