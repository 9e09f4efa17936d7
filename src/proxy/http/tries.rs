//! Getting an answer's head: one attempt after another until an endpoint answers or no attempt is safe any more.
//!
//! An attempt is repeated only when that is provably safe (`design.md` 5.5): nothing of the request reached an
//! application, or the request is idempotent or carries an idempotency key. Connect failures and resets before any
//! byte of an answer try each other endpoint once without being asked to; statuses only where the route lists them.

use std::time::Duration;

use tokio::time::Instant;

use super::admitted;
use super::attempt::{Again, Attempt, Failed};
use super::body::{Copy, Size};
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forward::{Ended, Plan, Scratch, Session};
use super::gray;
use super::hash_key;
use super::head::{Known, RequestHead, ResponseHead};
use super::hedge::{self, Raced};
use super::pause;
use super::persistence;
use super::repeats::{self, retry_after};
use super::replay::Replay;
use super::undelivered::{self, Undelivered};
use crate::proxy::cluster::{Lease, Outcome, PickError, RetryPermit};
use crate::proxy::failure::Failure;
use crate::proxy::hedging::Hedging;
use crate::proxy::lane::class_of;
use crate::proxy::upstream::Upstream;
use crate::telemetry::flags::Flag;
use crate::telemetry::metrics::ServiceSeries;

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
    /// A sidecar has answered in its application's place.
    pub undelivered: Option<Undelivered>,
}

/// When the next attempt begins.
enum Next {
    AtOnce,
    /// After at least so long.
    AfterBackOff(Duration),
}

pub async fn run<D: Downstream>(
    session: &Session,
    plan: &Plan<'_>,
    down: &mut D,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
) -> Result<Answered, Ended> {
    let mut tries = Tries::new(session, plan, down, &scratch.request);
    loop {
        let (attempt, lease) = tries.begin(&mut scratch.request, exchange)?;
        let Raced {
            lease,
            began,
            result,
        } = match tries.hedging(exchange) {
            Some(hedging) => {
                let first = (attempt, lease);
                let race = hedge::race(hedging, first, &mut tries, down, scratch, exchange);
                Box::pin(race).await?
            }
            None => {
                let once = attempt.once(&lease, down, scratch, exchange, &mut tries.replay);
                Raced {
                    result: once.await?,
                    began: attempt.began,
                    lease,
                }
            }
        };
        let next = match result {
            Ok((upstream, request)) => {
                let inbound = session.entry.role.is_inbound();
                let undelivered = undelivered::take(&mut scratch.response).filter(|_| !inbound);
                let fields = &mut scratch.response.fields;
                match inbound {
                    // Only a sidecar speaks for a lane; an application is not believed.
                    true => fields.remove_all(&[Known::XMeshShed, Known::XMeshAdmit]),
                    false => admitted::hear(lease.endpoint(), fields),
                }
                let Some(next) = tries.answered(scratch, undelivered, exchange) else {
                    return Ok(Answered {
                        upstream,
                        lease,
                        request,
                        replay: tries.replay,
                        began,
                        undelivered,
                    });
                };
                let outcome = outcome_of(&scratch.response, undelivered);
                lease.settle(outcome, began.elapsed(), Instant::now());
                next
            }
            Err(failed) => tries.failed(failed, lease, began, exchange)?,
        };
        if let Next::AfterBackOff(pause) = next {
            Box::pin(tries.back_off(pause, down, exchange)).await?;
        }
        tries.replay.rewind();
    }
}

/// What a request may still try, and what has come of it so far.
pub struct Tries<'a> {
    session: &'a Session,
    plan: &'a Plan<'a>,
    /// Of the request's body. Asked for before any of it is read, because every attempt sends all of it.
    size: Size,
    replayable: bool,
    replay: Replay,
    /// Retries that the route has asked for.
    retries: u32,
    /// Some caller repeats the request already, so the route does not.
    marked: bool,
    /// The budget has granted a repetition, which says that it is one.
    repeated: bool,
    /// An endpoint that gets the request once more, on a new connection.
    again_on: Option<Lease>,
    last: Option<Failure>,
    /// Held while a retry that was granted waits for its turn or its answer.
    retry: Option<RetryPermit>,
}

impl<'a> Tries<'a> {
    fn new<D: Downstream>(
        session: &'a Session,
        plan: &'a Plan<'a>,
        down: &D,
        head: &RequestHead,
    ) -> Self {
        let replayable = head.method.is_idempotent() || head.fields.contains(Known::IdempotencyKey);
        Self {
            session,
            plan,
            size: down.size(),
            replayable,
            // Also what must not be sent twice may turn out not to have been seen.
            replay: Replay::new(session.worker.settings.replay_bytes_max, plan.body_max()),
            retries: 0,
            marked: repeats::is_marked(&head.fields),
            repeated: false,
            again_on: None,
            last: None,
            retry: None,
        }
    }

    /// The next attempt, and the endpoint it goes to.
    pub fn begin(
        &mut self,
        head: &mut RequestHead,
        exchange: &mut Exchange,
    ) -> Result<(Attempt<'a>, Lease), Ended> {
        let fresh = self.again_on.is_some();
        let lease = match self.again_on.take() {
            Some(lease) => lease,
            None => pick(self.session, self.plan, head, exchange)
                .map_err(|failure| Ended::Refused(self.last.take().unwrap_or(failure)))?,
        };
        let began = Instant::now();
        if let Some(deadline) = self.plan.deadline.filter(|deadline| deadline.at <= began) {
            return Err(Ended::Refused(deadline.missed()));
        }
        let endpoint = lease.endpoint();
        self.plan.destination.series.attempts.increment();
        if exchange.attempts > 0 {
            self.plan.destination.series.retries.increment();
        }
        exchange.attempts += 1;
        if self.repeated {
            repeats::mark(&mut head.fields, exchange.attempts);
        }
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
            began,
            endpoint: endpoint.id,
        };
        Ok((attempt, lease))
    }

    /// How a first attempt may get another one beside it, and after which time, as far as that is known.
    fn hedging(&self, exchange: &Exchange) -> Option<(&'a Hedging, Option<Duration>)> {
        let hedging = self.plan.hedging?;
        let is_first = exchange.attempts == 1 && !self.marked;
        let may_be_twice = self.replayable && self.size == Size::None && !self.plan.upgrade;
        let may = is_first && may_be_twice && self.has_others(1);
        may.then(|| (hedging, hedging.begin(exchange.start)))
    }

    pub fn series(&self) -> &ServiceSeries {
        &self.plan.destination.series
    }

    /// What follows on an answer: another attempt, or none since it is the one that the client gets.
    fn answered(
        &mut self,
        scratch: &Scratch,
        undelivered: Option<Undelivered>,
        exchange: &mut Exchange,
    ) -> Option<Next> {
        let safe = match undelivered {
            None => false,
            Some(Undelivered::Certainly) => true,
            Some(Undelivered::Perhaps) => self.replayable,
        };
        if safe && self.replay.is_possible() && self.may_go_elsewhere(exchange) {
            return Some(Next::AtOnce);
        }
        // Refused before the application saw it: another instance may have room, as far as the budget goes.
        let shed = scratch.response.fields.contains(Known::XMeshShed);
        if shed && self.replay.is_possible() && self.may_go_elsewhere(exchange) && self.may_retry()
        {
            return Some(Next::AtOnce);
        }
        self.wants_another(scratch, exchange)
            .map(Next::AfterBackOff)
    }

    fn may_go_elsewhere(&self, exchange: &Exchange) -> bool {
        let tried = exchange.tried.len();
        tried < self.session.worker.settings.safe_attempts_max && self.has_others(tried)
    }

    fn has_others(&self, tried: usize) -> bool {
        self.plan.destination.cluster.endpoints().endpoints.len() > tried
    }

    /// The least wait before another attempt, where the route asks for one after this answer and there may be one.
    fn wants_another(&mut self, scratch: &Scratch, exchange: &mut Exchange) -> Option<Duration> {
        if self.retries >= self.retries_max() || !wants_retry(self.plan, scratch, self.replayable) {
            return None;
        }
        let pause = repeats::pause(&scratch.response).filter(|pause| self.has_time_for(*pause))?;
        let granted = self.replay.is_possible() && self.may_retry();
        if !granted {
            self.plan.destination.series.retries_refused.increment();
            exchange.flag(Flag::RetryLimitExceeded);
        }
        granted.then_some(pause)
    }

    fn has_time_for(&self, pause: Duration) -> bool {
        let deadline = self.plan.deadline.filter(|_| !pause.is_zero());
        deadline.is_none_or(|deadline| deadline.at > Instant::now() + pause)
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
        let next = if self.has_others(tried) && !matches!(failure, Failure::UpstreamTimeout { .. })
        {
            Next::AtOnce
        } else if self.retries < self.retries_max() && self.may_retry() {
            Next::AfterBackOff(Duration::ZERO)
        } else {
            return Err(Ended::Refused(failure));
        };
        self.last = Some(failure);
        Ok(next)
    }

    fn retries_max(&self) -> u32 {
        let retry = self.plan.retry.filter(|_| !self.marked);
        retry.map_or(0, |retry| retry.attempts_max)
    }

    fn may_retry(&mut self) -> bool {
        // The one before has had its answer.
        self.retry = None;
        self.retry = self.plan.destination.cluster.try_retry(Instant::now());
        let granted = self.retry.is_some();
        self.repeated |= granted;
        granted
    }

    /// Waits before a retry that the route asks for. Where every endpoint has had its turn, they all get another.
    async fn back_off<D: Downstream>(
        &mut self,
        pause: Duration,
        down: &mut D,
        exchange: &mut Exchange,
    ) -> Result<(), Ended> {
        self.retries += 1;
        back_off(self.session, self.plan, down, self.retries, pause).await?;
        if exchange.tried.len() >= self.plan.destination.cluster.endpoints().endpoints.len() {
            exchange.tried.clear();
        }
        Ok(())
    }
}

/// The verdict on the endpoint that gave this answer.
pub fn outcome_of(response: &ResponseHead, undelivered: Option<Undelivered>) -> Outcome {
    match undelivered {
        Some(Undelivered::Certainly) => return Outcome::ConnectFailure,
        Some(Undelivered::Perhaps) => return Outcome::Reset,
        None => {}
    }
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

fn pick(
    session: &Session,
    plan: &Plan<'_>,
    head: &RequestHead,
    exchange: &Exchange,
) -> Result<Lease, Failure> {
    let cluster = &plan.destination.cluster;
    // The first attempt follows at once on the request's arrival, so the clock need not be read again.
    let now = if exchange.attempts == 0 {
        exchange.start
    } else {
        Instant::now()
    };
    let hashing = plan.destination.hashing.as_deref();
    let key =
        hashing.and_then(|hashing| hash_key::of_request(hashing, session, head, exchange.start));
    let mut rng = session.worker.rng.borrow_mut();
    let gray = plan.destination.gray.as_ref();
    let lane = gray.and_then(|gray| gray::lane(gray, &head.fields));
    if let Some(kept) = &exchange.kept
        && let Some(lease) = persistence::lease(kept, cluster, lane, &exchange.tried, now, &mut rng)
    {
        return Ok(lease);
    }
    if let Some(lane) = lane
        && let Some(lease) = cluster.pick_in_lane(lane, key, &exchange.tried, now, &mut rng)
    {
        return Ok(lease);
    }
    let picked = match cluster.sheds(now) {
        false => cluster.pick_by_key(key, &exchange.tried, now, &mut rng),
        true => {
            let class = class_of(&head.fields);
            let picked = cluster.pick_admitting(class, key, &exchange.tried, now, &mut rng);
            if let Err(PickError::NotAdmitted(_)) = picked {
                plan.destination.series.not_admitted.increment();
            }
            picked
        }
    };
    picked.map_err(|error| Failure::not_picked(&plan.destination.label, error))
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

/// Waits before a retry: the route's minimum, doubled each time, and at least `pause`, with jitter above it. Never past the
/// request's deadline.
async fn back_off<D: Downstream>(
    session: &Session,
    plan: &Plan<'_>,
    down: &mut D,
    retries: u32,
    pause: Duration,
) -> Result<(), Ended> {
    let minimum = plan
        .retry
        .map_or(Duration::from_millis(25), |retry| retry.backoff);
    let base = minimum
        .saturating_mul(1 << (retries - 1).min(16))
        .min(BACKOFF_MAX.max(minimum))
        .max(pause);
    let jitter = base.mul_f64(session.worker.rng.borrow_mut().f64() / 2.0);
    let until = Instant::now() + base + jitter;
    pause::until(until, plan.deadline, plan.on_half_close, down).await
}
