//! Getting an answer's head: one attempt after another until an endpoint answers or no attempt is safe any more.
//!
//! An attempt is repeated only when that is provably safe (`design.md` 5.5): nothing of the request reached an
//! application, or the request is idempotent or carries an idempotency key. Connect failures and resets before any
//! byte of an answer try each other endpoint once without being asked to; statuses only where the route lists them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::body::{Copy, CopyError, Cut, Size};
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forward::{Ended, Plan, Scratch, Session};
use super::head::{Known, RequestHead, ResponseHead};
use super::replay::Replay;
use crate::model::OnHalfClose;
use crate::proxy::cluster::{EndpointId, Lease, Outcome, PickError};
use crate::proxy::failure::{ConnectError, Failure};
use crate::proxy::upstream::{OpenError, Upstream, Wanted};
use crate::telemetry::flags::Flag;

/// The longest wait before a retry, however many have failed.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// An answer whose final head is in [`Scratch::response`].
pub struct Answered {
    pub upstream: Upstream,
    pub lease: Lease,
    /// The request's body, as far as it has been sent.
    pub request: Copy,
    pub replay: Replay,
    /// When this attempt began.
    pub began: Instant,
}

/// What an attempt that failed leaves to do.
enum Again {
    /// The failure is the answer.
    No,
    /// Another endpoint may have it.
    Elsewhere,
    /// The same endpoint, on a new connection: the reused one was being closed.
    Fresh,
}

struct Failed {
    failure: Failure,
    outcome: Outcome,
    again: Again,
}

/// When the next attempt begins.
enum Next {
    AtOnce,
    AfterBackOff,
}

pub async fn run<D: Downstream>(
    session: &Session,
    plan: &Plan<'_>,
    down: &mut D,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
) -> Result<Answered, Ended> {
    let mut tries = Tries::new(session, plan, down, &scratch.request);
    let budget = plan.destination.cluster.retry_budget();
    budget.request_begun(exchange.start);
    loop {
        let (attempt, lease) = tries.begin(exchange)?;
        let began = attempt.began;
        let result = attempt.once(&lease, down, scratch, exchange, &mut tries.replay);
        let next = match result.await? {
            Ok((upstream, request)) => {
                if !tries.wants_another(scratch, exchange) {
                    return Ok(Answered {
                        upstream,
                        lease,
                        request,
                        replay: tries.replay,
                        began,
                    });
                }
                let outcome = outcome_of(&scratch.response);
                lease.settle(outcome, began.elapsed(), Instant::now());
                Next::AfterBackOff
            }
            Err(failed) => tries.failed(failed, lease, began, exchange)?,
        };
        if let Next::AfterBackOff = next {
            Box::pin(tries.back_off(down, exchange)).await?;
        }
        tries.replay.rewind();
    }
}

/// What a request may still try, and what has come of it so far.
struct Tries<'a> {
    session: &'a Session,
    plan: &'a Plan<'a>,
    /// Of the request's body. Asked for before any of it is read, because every attempt sends all of it.
    size: Size,
    replayable: bool,
    replay: Replay,
    /// Retries that the route has asked for.
    retries: u32,
    /// An endpoint that gets the request once more, on a new connection.
    again_on: Option<Lease>,
    last: Option<Failure>,
}

impl<'a> Tries<'a> {
    fn new<D: Downstream>(
        session: &'a Session,
        plan: &'a Plan<'a>,
        down: &D,
        head: &RequestHead,
    ) -> Self {
        let replayable = head.method.is_idempotent() || head.fields.contains(Known::IdempotencyKey);
        let keep = replayable || plan.retry.is_some_and(|retry| !retry.methods.is_empty());
        let bytes_max = session.worker.settings.replay_bytes_max;
        Self {
            session,
            plan,
            size: down.size(),
            replayable,
            replay: Replay::new(if keep { bytes_max } else { 0 }),
            retries: 0,
            again_on: None,
            last: None,
        }
    }

    /// The next attempt, and the endpoint it goes to.
    fn begin(&mut self, exchange: &mut Exchange) -> Result<(Attempt<'a>, Lease), Ended> {
        let fresh = self.again_on.is_some();
        let lease = match self.again_on.take() {
            Some(lease) => lease,
            None => pick(self.session, self.plan, exchange)
                .map_err(|failure| Ended::Refused(self.last.take().unwrap_or(failure)))?,
        };
        let endpoint = lease.endpoint();
        self.plan.destination.series.attempts.increment();
        if exchange.attempts > 0 {
            self.plan.destination.series.retries.increment();
        }
        exchange.attempts += 1;
        exchange.endpoint = Some(endpoint.address);
        if !exchange.tried.contains(&endpoint.id) {
            exchange.tried.push(endpoint.id);
        }
        let attempt = Attempt {
            session: self.session,
            plan: self.plan,
            size: self.size,
            replayable: self.replayable,
            fresh,
            began: Instant::now(),
            endpoint: endpoint.id,
        };
        Ok((attempt, lease))
    }

    /// Whether the route asks for another attempt after this answer, and there may be one.
    fn wants_another(&self, scratch: &Scratch, exchange: &mut Exchange) -> bool {
        if self.retries >= self.retries_max() || !wants_retry(self.plan, scratch, self.replayable) {
            return false;
        }
        let granted = self.replay.is_possible() && self.may_retry();
        if !granted {
            self.plan.destination.series.retries_refused.increment();
            exchange.flag(Flag::RetryLimitExceeded);
        }
        granted
    }

    /// What follows on a failed attempt: another, or the failure is the answer.
    fn failed(
        &mut self,
        failed: Failed,
        lease: Lease,
        began: Instant,
        exchange: &Exchange,
    ) -> Result<Next, Ended> {
        let Failed {
            failure,
            outcome,
            again,
        } = failed;
        tracing::debug!(endpoint = ?exchange.endpoint, %failure, "Attempt failed");
        if let Again::Fresh = again {
            self.again_on = Some(lease);
            self.last = Some(failure);
            return Ok(Next::AtOnce);
        }
        lease.settle(outcome, began.elapsed(), Instant::now());
        let tried = exchange.tried.len();
        if matches!(again, Again::No) || tried >= self.session.worker.settings.safe_attempts_max {
            return Err(Ended::Refused(failure));
        }
        let others = self.plan.destination.cluster.endpoints().endpoints.len() > tried;
        let next = if others && !matches!(failure, Failure::UpstreamTimeout { .. }) {
            Next::AtOnce
        } else if self.retries < self.retries_max() && self.may_retry() {
            Next::AfterBackOff
        } else {
            return Err(Ended::Refused(failure));
        };
        self.last = Some(failure);
        Ok(next)
    }

    fn retries_max(&self) -> u32 {
        self.plan.retry.map_or(0, |retry| retry.attempts_max)
    }

    fn may_retry(&self) -> bool {
        let budget = self.plan.destination.cluster.retry_budget();
        budget.try_retry(Instant::now())
    }

    /// Waits before a retry that the route asks for. Where every endpoint has had its turn, they all get another.
    async fn back_off<D: Downstream>(
        &mut self,
        down: &mut D,
        exchange: &mut Exchange,
    ) -> Result<(), Ended> {
        self.retries += 1;
        back_off(self.session, self.plan, down, exchange, self.retries).await?;
        if exchange.tried.len() >= self.plan.destination.cluster.endpoints().endpoints.len() {
            exchange.tried.clear();
        }
        Ok(())
    }
}

/// The verdict on the endpoint that gave this answer.
pub fn outcome_of(response: &ResponseHead) -> Outcome {
    if response.status == 429 || response.fields.contains(Known::XMeshShed) {
        return Outcome::Shed {
            retry_after: retry_after(response),
        };
    }
    match response.status {
        502..=504 => Outcome::GatewayFailure,
        500.. => Outcome::Failure5xx,
        _ => Outcome::Success,
    }
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); a date is not looked at.
fn retry_after(response: &ResponseHead) -> Option<Duration> {
    let seconds = std::str::from_utf8(response.fields.get(Known::RetryAfter)?)
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

fn pick(session: &Session, plan: &Plan<'_>, exchange: &Exchange) -> Result<Lease, Failure> {
    let cluster = &plan.destination.cluster;
    // The first attempt follows at once on the request's arrival, so the clock need not be read again.
    let now = if exchange.attempts == 0 {
        exchange.start
    } else {
        Instant::now()
    };
    let mut rng = session.worker.rng.borrow_mut();
    cluster
        .pick(&exchange.tried, now, &mut rng)
        .map_err(|error| match error {
            PickError::Overflow(limit) => Failure::Overflow {
                cluster: plan.destination.label.to_string(),
                limit: limit.limit(),
            },
            other => Failure::NoEndpoint {
                cluster: plan.destination.label.to_string(),
                why: other.to_string(),
            },
        })
}

/// Whether the route asks for another attempt after this status.
fn wants_retry(plan: &Plan<'_>, scratch: &Scratch, replayable: bool) -> bool {
    let Some(retry) = plan.retry else {
        return false;
    };
    let method = scratch.request.method.as_bytes();
    retry.codes.contains(&scratch.response.status)
        && (replayable
            || retry
                .methods
                .iter()
                .any(|allowed| allowed.as_bytes() == method))
}

/// Waits before a retry: the route's minimum, doubled each time, with jitter above it. Never past the request's deadline.
async fn back_off<D: Downstream>(
    session: &Session,
    plan: &Plan<'_>,
    down: &mut D,
    exchange: &Exchange,
    retries: u32,
) -> Result<(), Ended> {
    let minimum = plan
        .retry
        .map_or(Duration::from_millis(25), |retry| retry.backoff);
    let base = minimum
        .saturating_mul(1 << (retries - 1).min(16))
        .min(BACKOFF_MAX.max(minimum));
    let jitter = base.mul_f64(session.worker.rng.borrow_mut().f64() / 2.0);
    let until = Instant::now() + base + jitter;
    if let Some(deadline) = plan
        .deadline(exchange)
        .filter(|deadline| *deadline <= until)
    {
        poll_fn(|cx| down.timer().poll(cx, deadline)).await;
        return Err(Ended::Refused(plan.timed_out(exchange)));
    }
    poll_fn(|cx| {
        if down.poll_gone(cx, plan.on_half_close).is_ready() {
            return Poll::Ready(Err(Ended::Refused(Failure::ClientGone)));
        }
        down.timer().poll(cx, until).map(Ok)
    })
    .await
}

/// One attempt on one endpoint.
struct Attempt<'a> {
    session: &'a Session,
    plan: &'a Plan<'a>,
    /// Of the request's body.
    size: Size,
    replayable: bool,
    fresh: bool,
    began: Instant,
    endpoint: EndpointId,
}

impl Attempt<'_> {
    async fn once<D: Downstream>(
        &self,
        lease: &Lease,
        down: &mut D,
        scratch: &mut Scratch,
        exchange: &mut Exchange,
        replay: &mut Replay,
    ) -> Result<Result<(Upstream, Copy), Failed>, Ended> {
        let deadline = self.deadline(exchange);
        let mut upstream = match self.open(lease, down, &scratch.request, deadline).await {
            Ok(upstream) => upstream,
            Err(Unopened::Error(error)) => return Ok(Err(self.not_opened(lease, error))),
            Err(Unopened::Timeout) => return Ok(Err(self.timed_out(exchange, replay))),
            Err(Unopened::Client(cut)) => return Err(client_failure(cut)),
        };
        let mut request = Copy::default();
        let result = self
            .head(&mut upstream, &mut request, down, scratch, replay, deadline)
            .await;
        exchange.bytes_in = exchange.bytes_in.max(request.bytes);
        match result {
            Ok(()) => {
                exchange.first_byte = Some(Instant::now());
                Ok(Ok((upstream, request)))
            }
            Err(Broken::Upstream(cut)) => Ok(Err(self.broken(&upstream, cut, replay, lease))),
            Err(Broken::Timeout) => {
                upstream.cut();
                Ok(Err(self.timed_out(exchange, replay)))
            }
            Err(Broken::Idle(limit)) => {
                upstream.cut();
                Ok(Err(Failed {
                    failure: Failure::StreamIdle { limit },
                    outcome: Outcome::Timeout,
                    again: Again::No,
                }))
            }
            Err(Broken::Client(cut)) => {
                upstream.cut();
                Err(client_failure(cut))
            }
        }
    }

    /// The earlier of the request's deadline and this attempt's.
    fn deadline(&self, exchange: &Exchange) -> Option<Instant> {
        let attempt = self
            .plan
            .timeouts
            .backend_request
            .map(|limit| self.began + limit);
        match (self.plan.deadline(exchange), attempt) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Sends the head, on a connection that may have to be made first.
    async fn open<D: Downstream>(
        &self,
        lease: &Lease,
        down: &mut D,
        head: &RequestHead,
        deadline: Option<Instant>,
    ) -> Result<Upstream, Unopened> {
        let worker = &self.session.worker;
        let wanted = Wanted {
            destination: &self.plan.destination,
            endpoint: lease.endpoint(),
            http2: self
                .plan
                .destination
                .wants_http2(down.has_prior_knowledge(), self.plan.grpc),
            fresh: self.fresh,
            replayable: self.replayable,
        };
        let mut opening =
            pin!(
                worker
                    .pool
                    .open(&wanted, head, self.size, self.began, &worker.settings)
            );
        poll_fn(|cx| {
            if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
                return Poll::Ready(opened.map_err(Unopened::Error));
            }
            if let Poll::Ready(cut) = down.poll_gone(cx, self.plan.on_half_close) {
                return Poll::Ready(Err(Unopened::Client(cut)));
            }
            match deadline {
                Some(deadline) => {
                    let timer = down.timer().poll(cx, deadline);
                    timer.map(|()| Err(Unopened::Timeout))
                }
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Sends the request and waits for the final head; informational ones go on as they come.
    async fn head<D: Downstream>(
        &self,
        upstream: &mut Upstream,
        request: &mut Copy,
        down: &mut D,
        scratch: &mut Scratch,
        replay: &mut Replay,
        deadline: Option<Instant>,
    ) -> Result<(), Broken> {
        let settings = &self.session.worker.settings;
        let limit = self
            .plan
            .idle_limit(settings)
            .filter(|_| deadline.is_none());
        let mut idle = None;
        let mut sending = true;
        poll_fn(|cx| {
            if sending {
                match request.poll(cx, &mut replay.source(down), upstream) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => sending = false,
                    // It may have answered before it stopped reading; the answer, or its absence, tells.
                    Poll::Ready(Err(CopyError::Sink(_))) => sending = false,
                    Poll::Ready(Err(CopyError::Source(cut))) => {
                        return Poll::Ready(Err(Broken::Client(cut)));
                    }
                }
            }
            loop {
                let Scratch {
                    request,
                    response,
                    limits,
                    ..
                } = &mut *scratch;
                match upstream.poll_head(cx, limits, &request.method, response) {
                    Poll::Ready(Ok(())) if response.is_interim() => {
                        if let Err(cut) = down.send_interim(response) {
                            return Poll::Ready(Err(Broken::Client(cut)));
                        }
                        let _ = down.poll_flush(cx);
                    }
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(cut)) => return Poll::Ready(Err(Broken::Upstream(cut))),
                    Poll::Pending => break,
                }
            }
            if let Poll::Ready(cut) = poll_left(cx, down, sending, self.plan.on_half_close) {
                return Poll::Ready(Err(Broken::Client(cut)));
            }
            if let Some(deadline) = deadline
                && down.timer().poll(cx, deadline).is_ready()
            {
                return Poll::Ready(Err(Broken::Timeout));
            }
            if let Some(limit) = limit {
                let watch =
                    idle.get_or_insert_with(|| self.session.worker.watch(cx.waker(), limit));
                if let Some(limit) = watch.expired(request.bytes) {
                    return Poll::Ready(Err(Broken::Idle(limit)));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn not_opened(&self, lease: &Lease, error: OpenError) -> Failed {
        let endpoint = lease.endpoint().address.to_string();
        match error {
            OpenError::Connect(error) => Failed {
                failure: Failure::ConnectFailed { endpoint, error },
                outcome: Outcome::ConnectFailure,
                again: Again::Elsewhere,
            },
            OpenError::Refused => Failed {
                failure: Failure::ConnectFailed {
                    endpoint,
                    error: ConnectError::Io("the connection was going away".into()),
                },
                outcome: Outcome::Cancelled,
                again: if self.fresh {
                    Again::Elsewhere
                } else {
                    Again::Fresh
                },
            },
            OpenError::Overflow(limit) => Failed {
                failure: Failure::Overflow {
                    cluster: self.plan.destination.label.to_string(),
                    limit,
                },
                outcome: Outcome::Cancelled,
                again: Again::No,
            },
            OpenError::Request(reason) => Failed {
                failure: Failure::BadRequest {
                    status: 400,
                    reason,
                },
                outcome: Outcome::Cancelled,
                again: Again::No,
            },
        }
    }

    /// The upstream broke off before its final head.
    fn broken(&self, upstream: &Upstream, cut: Cut, replay: &Replay, lease: &Lease) -> Failed {
        let endpoint = lease.endpoint().address.to_string();
        if let Cut::Malformed(reason) = cut {
            let failure = Failure::UpstreamProtocol { endpoint, reason };
            return Failed {
                failure,
                outcome: Outcome::Failure5xx,
                again: Again::No,
            };
        }
        let failure = Failure::UpstreamGone {
            endpoint,
            reset: cut.is_reset(),
        };
        // RFC 9113, section 8.7: a refused stream was not processed at all.
        if matches!(cut, Cut::Reset(h2::Reason::REFUSED_STREAM)) && replay.is_possible() {
            return Failed {
                failure,
                outcome: Outcome::Shed { retry_after: None },
                again: Again::Elsewhere,
            };
        }
        let may_repeat = self.replayable && replay.is_possible() && upstream.is_unanswered();
        let again = match may_repeat {
            true if upstream.is_reused() => Again::Fresh,
            true => Again::Elsewhere,
            false => Again::No,
        };
        let outcome = if upstream.is_reused() {
            Outcome::Cancelled
        } else {
            Outcome::Reset
        };
        if upstream.is_reused() {
            self.session
                .worker
                .pool
                .was_closed_under_us(self.endpoint, Instant::now());
        }
        Failed {
            failure,
            outcome,
            again,
        }
    }

    fn timed_out(&self, exchange: &Exchange, replay: &Replay) -> Failed {
        let whole = self
            .plan
            .deadline(exchange)
            .is_some_and(|deadline| Instant::now() >= deadline);
        let limit = if whole {
            self.plan.timeouts.request
        } else {
            self.plan.timeouts.backend_request
        };
        let failure = Failure::UpstreamTimeout {
            limit: limit.unwrap_or_default(),
        };
        // An attempt's own timeout may be retried where the route retries at all.
        let again =
            if !whole && self.replayable && replay.is_possible() && self.plan.retry.is_some() {
                Again::Elsewhere
            } else {
                Again::No
            };
        Failed {
            failure,
            outcome: Outcome::Timeout,
            again,
        }
    }
}

/// Why there is no upstream to send the request's body to.
enum Unopened {
    Error(OpenError),
    Client(Cut),
    Timeout,
}

enum Broken {
    Upstream(Cut),
    Client(Cut),
    Timeout,
    Idle(Duration),
}

/// Ready when the client has left; `sending` while its body is still on the way up.
pub fn poll_left(
    cx: &mut Context<'_>,
    down: &mut impl Downstream,
    sending: bool,
    on_half_close: OnHalfClose,
) -> Poll<Cut> {
    match sending {
        true => down.poll_reset(cx),
        false => down.poll_gone(cx, on_half_close),
    }
}

/// What a client that broke off its own request is told, if it is still there.
pub fn client_failure(cut: Cut) -> Ended {
    match cut {
        Cut::Malformed(reason) => Ended::Refused(Failure::BadRequest {
            status: 400,
            reason,
        }),
        Cut::Gone(_) | Cut::Reset(_) => Ended::Refused(Failure::ClientGone),
    }
}
