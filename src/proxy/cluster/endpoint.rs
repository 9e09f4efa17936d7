//! One address of a cluster with its live figures.
//!
//! An [`Endpoint`] is replaced when what the configuration or the registry says of it changes; its [`Load`] and its id stay
//! with the address for as long as the address is in the set.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::breaker::{Breaker, Observation, Phase, Runs, Verdict};
use super::health::{Health, State};
use super::lease::Outcome;
use super::members::Member;
use super::plan::Standing;
use super::reported::Reported;
use super::time::nanos;
use crate::base::ewma::PeakEwma;
use crate::base::hash::xxh64;
use crate::lane::Word;
use crate::load::orca;
use crate::model::{self, Class, EndpointState, Gray};
use crate::proxy::events::{Cause, Subject};

/// Unique in the process; the same for an address as long as it stays in its cluster. For pools kept by each worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct EndpointId(pub u64);

impl EndpointId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How fast the latency average forgets: to 1/e in 10 s.
pub const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// No other hash of an address is the same.
const TAG_SEED: u64 = 0x7461_6773;

#[derive(Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    /// Where to connect; of a named endpoint, one of the addresses its name stands for.
    pub address: SocketAddr,
    /// Follows from the address; the same in every proxy.
    pub tag: u64,
    /// As configured or registered; `model.address` may be the name that `address` was resolved from.
    pub model: model::Endpoint,
    /// What its health checks say; None where it is not checked.
    pub health: Option<Arc<Health>>,
    load: Arc<Load>,
    /// What it says of its load; empty where nobody goes by that.
    reported: OnceLock<Arc<Reported>>,
    shared: Arc<Shared>,
}

impl Endpoint {
    pub(super) fn new(member: Member, shared: &Arc<Shared>) -> Self {
        Self {
            id: EndpointId::next(),
            address: member.address,
            tag: xxh64(member.address.to_string().as_bytes(), TAG_SEED),
            model: member.endpoint,
            health: member.health,
            load: Arc::default(),
            reported: OnceLock::new(),
            shared: shared.clone(),
        }
    }

    /// The same endpoint, described anew.
    pub(super) fn described(&self, member: Member) -> Self {
        Self {
            id: self.id,
            address: self.address,
            tag: self.tag,
            model: member.endpoint,
            health: member.health,
            load: self.load.clone(),
            reported: self.reported.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Whether it is described like this already.
    pub(super) fn is_as(&self, member: &Member) -> bool {
        self.model == member.endpoint
            && self.health.as_ref().map(Arc::as_ptr) == member.health.as_ref().map(Arc::as_ptr)
    }

    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The host name it was resolved from, if any: what TLS verifies by default.
    pub fn host(&self) -> Option<&Arc<str>> {
        match &self.model.address {
            model::Address::Name { host, .. } => Some(host),
            model::Address::Socket(_) => None,
        }
    }

    /// Requests it holds a lease for.
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections of this proxy, idle ones included.
    pub fn connections(&self) -> u32 {
        self.load.connections.load(Ordering::Relaxed)
    }

    /// The latency average as of `now` in nanoseconds since the clock's start, penalties included; None before the first answer.
    pub(super) fn latency(&self, now: u64) -> Option<Duration> {
        let nanos = self.load.latency.read(now, LATENCY_DECAY)?;
        Some(Duration::from_nanos(nanos as u64))
    }

    /// An answer said how busy it is. Nobody goes by that unless the policy does ([`model::Policy::needs_load`]).
    pub fn reported(&self, report: &orca::Report, now: Instant) {
        let reported = self.reported.get_or_init(Arc::default);
        reported.hear(report, nanos(now));
    }

    /// Its lane has said whom it lets in; that holds for a second.
    pub fn admits_only(&self, class: Class, now: Instant) {
        let now = nanos(now);
        self.load.admits.say(class, now);
        self.shared.sheds.say(class, now);
    }

    /// Whether its lane lets this class in, as far as it has said.
    pub(super) fn admits(&self, class: Class, now: u64) -> bool {
        let admits = self.load.admits.admits(now);
        admits.is_none_or(|admits| class <= admits)
    }

    /// What it has said of its load, if anything.
    pub(super) fn load_reported(&self) -> Option<&Reported> {
        self.reported.get().map(Arc::as_ref)
    }

    /// How many requests ended in each outcome, in the order of [`Outcome::NAMES`].
    pub fn totals(&self) -> [u64; Outcome::COUNT] {
        std::array::from_fn(|index| self.load.totals[index].load(Ordering::Relaxed))
    }

    /// How often it has been ejected since it joined.
    pub fn ejections_total(&self) -> u64 {
        self.load.ejections_total.load(Ordering::Relaxed)
    }

    pub(super) fn breaker(&self) -> Breaker {
        Breaker::unpack(self.load.breaker.load(Ordering::Acquire))
    }

    /// It may get requests of whoever belongs to it.
    pub fn is_healthy(&self) -> bool {
        self.standing() == Standing::Healthy
    }

    /// The traffic lane that it is in.
    pub fn lane(&self, gray: &Gray) -> Option<&str> {
        let lane = self.model.labels.get(&gray.label)?;
        Some(&**lane).filter(|lane| !lane.is_empty())
    }

    /// What it may be used for.
    pub(super) fn standing(&self) -> Standing {
        if self.model.weight == 0 || self.model.state == EndpointState::Draining {
            return Standing::Out;
        }
        let checked = self.health.as_ref().map(|health| health.state());
        let breaker = self.breaker();
        match breaker.phase {
            Phase::Retired => Standing::Out,
            _ if checked == Some(State::Failing) => Standing::Failing,
            Phase::Closed if self.model.state == EndpointState::Critical => Standing::Critical,
            Phase::Closed if checked == Some(State::Unproven) => Standing::Unproven,
            Phase::Closed => Standing::Healthy,
            _ if breaker.unreachable => Standing::Unreachable,
            _ if self.model.state == EndpointState::Critical => Standing::Critical,
            _ => Standing::Ejected,
        }
    }

    /// Takes the right to be its one probe, if it is time for one.
    pub(super) fn try_probe(&self, now: u64) -> bool {
        let word = self.load.breaker.load(Ordering::Acquire);
        let Some(probing) = Breaker::unpack(word).probing(now) else {
            return false;
        };
        let taken = self.swap(word, probing).is_ok();
        if taken {
            self.shared.health_changed();
        }
        taken
    }

    /// Judges the endpoint by what a request saw. Where nothing changes, which is the rule, it writes nothing.
    pub(super) fn judge(&self, verdict: Verdict, probe: bool, now: u64, chance: u32) {
        let mut word = self.load.breaker.load(Ordering::Acquire);
        if quiet(Breaker::unpack(word), verdict) {
            return;
        }
        let runs = self.load.run_on(verdict);
        loop {
            let breaker = Breaker::unpack(word);
            let seen = Observation {
                verdict,
                probe,
                runs,
                may_eject: true,
                now,
                chance,
            };
            let (next, place) = self.after(breaker, seen);
            if next == breaker {
                return;
            }
            match self.swap(word, next) {
                Ok(()) => return self.moved(breaker, next, now),
                Err(current) => {
                    if place {
                        self.shared.release_ejected();
                    }
                    word = current;
                }
            }
        }
    }

    /// The next state, and whether a place among the ejected was taken for it.
    fn after(&self, breaker: Breaker, seen: Observation) -> (Breaker, bool) {
        let service = self.shared.service.load();
        let next = breaker.after(seen, &service.outlier);
        let ejects = next.phase.is_ejected() && !breaker.phase.is_ejected();
        if !ejects || self.shared.try_eject() {
            return (next, ejects);
        }
        let seen = Observation {
            may_eject: false,
            ..seen
        };
        (breaker.after(seen, &service.outlier), false)
    }

    /// Bookkeeping of a transition this thread has made.
    fn moved(&self, before: Breaker, after: Breaker, now: u64) {
        if after.consecutive == 0 {
            self.load.runs.store(0, Ordering::Relaxed);
        }
        if before.phase == Phase::OpenProbe && after.phase == Phase::Closed {
            self.load.returned.store(now.max(1), Ordering::Relaxed);
        }
        if before.phase.is_ejected() && !after.phase.is_ejected() {
            self.shared.release_ejected();
        }
        self.counted(before, after);
        if before.phase != after.phase {
            self.tell(before, after, now);
            self.shared.health_changed();
        }
    }

    fn counted(&self, before: Breaker, after: Breaker) {
        if after.ejections > before.ejections {
            self.load.ejections_total.fetch_add(1, Ordering::Relaxed);
            self.shared.ejections_total.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell(&self, before: Breaker, after: Breaker, now: u64) {
        let service = &self.shared.label;
        let endpoint = self.address;
        let lasts = after.due().map(|due| due.saturating_sub(now));
        match (before.phase, after.phase) {
            (_, Phase::Open) if after.ejections > before.ejections => {
                self.load.out(now);
                let failures = before.consecutive.saturating_add(1);
                tracing::info!(%service, %endpoint, ejections = after.ejections, "Endpoint ejected");
                let evidence = match before.phase {
                    Phase::OpenProbe => "the request that tried it failed".to_owned(),
                    _ => format!("{failures} failures in a row"),
                };
                self.record(Cause::ConsecutiveFailures, evidence, "ejected", lasts);
            }
            (Phase::Closed, Phase::Avoided) => {
                self.load.out(now);
                tracing::debug!(%service, %endpoint, "Endpoint avoided");
                let (cause, evidence) = match after.unreachable {
                    true => (Cause::ConnectFailed, "no connection"),
                    false => (
                        Cause::ConnectionBroke,
                        "a connection broke before its answer",
                    ),
                };
                self.record(cause, evidence.to_owned(), "avoided", lasts);
            }
            (
                Phase::Avoided | Phase::AvoidedProbe | Phase::Open | Phase::OpenProbe,
                Phase::Closed,
            ) => {
                let lasted = self.load.back(now);
                tracing::info!(%service, %endpoint, "Endpoint back after its probe");
                let evidence = "a request to it was answered".to_owned();
                self.record(Cause::Answered, evidence, "returned", lasted);
            }
            (from, to) => tracing::debug!(%service, %endpoint, ?from, ?to, "Breaker changed"),
        }
    }

    /// Ejects it for what several requests have shown together, where the ejection limit leaves room.
    pub(super) fn eject(&self, cause: Cause, evidence: String, now: u64, chance: u32) {
        if !self.shared.try_eject() {
            return;
        }
        let service = self.shared.service.load();
        let word = self.load.breaker.load(Ordering::Acquire);
        let breaker = Breaker::unpack(word);
        let next = breaker.ejected_now(now, chance, &service.outlier);
        // Whoever has moved it meanwhile has judged it better; the next interval comes soon.
        if breaker.phase != Phase::Closed || self.swap(word, next).is_err() {
            return self.shared.release_ejected();
        }
        self.counted(breaker, next);
        self.load.out(now);
        let (service, endpoint) = (&self.shared.label, self.address);
        tracing::info!(%service, %endpoint, evidence, "Endpoint ejected");
        let lasts = next.due().map(|due| due.saturating_sub(now));
        self.record(cause, evidence, "ejected", lasts);
        self.shared.health_changed();
    }

    /// What it has done since it joined: successes, failures, and nanoseconds to successful answers.
    pub(super) fn counts(&self) -> [u64; 3] {
        let totals = self.totals();
        let failures = totals[Outcome::FAILURES].iter().sum();
        let time = self.load.time_to_answers.load(Ordering::Relaxed);
        [totals[Outcome::Success.index()], failures, time]
    }

    /// It is back after an ejection or a failed health check.
    pub(super) fn has_returned(&self, now: u64) {
        self.load.returned.store(now.max(1), Ordering::Relaxed);
        self.shared.health_changed();
    }

    /// When it returned, in nanoseconds, if that is less than `window` ago.
    pub(super) fn returning_since(&self, window: u64, now: u64) -> Option<u64> {
        let returned = self.load.returned.load(Ordering::Relaxed);
        (returned > 0 && now.saturating_sub(returned) < window).then_some(returned)
    }

    /// Only who has been used is missed.
    fn tell_leaving(&self) {
        if self.totals().iter().sum::<u64>() > 0 || self.in_flight() > 0 {
            let evidence = format!("{} requests under way", self.in_flight());
            self.record(Cause::Left, evidence, "removed", None);
        }
    }

    fn record(&self, cause: Cause, evidence: String, action: &'static str, nanos: Option<u64>) {
        let subject = Subject {
            service: &self.shared.label,
            endpoint: Some(self.address),
            instance: self.model.instance.as_deref(),
        };
        let duration = nanos.map(Duration::from_nanos);
        self.shared
            .events
            .record(subject, cause, evidence, action, duration);
    }

    /// It has left the set: its place among the ejected is free, and outcomes of what it still holds change nothing.
    pub(super) fn retire(&self) {
        let mut word = self.load.breaker.load(Ordering::Acquire);
        loop {
            let breaker = Breaker::unpack(word);
            match self.swap(word, breaker.retired()) {
                Ok(()) => {
                    self.moved(breaker, breaker.retired(), 0);
                    return self.tell_leaving();
                }
                Err(current) => word = current,
            }
        }
    }

    fn swap(&self, word: u64, next: Breaker) -> Result<(), u64> {
        self.load
            .breaker
            .compare_exchange(word, next.pack(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
    }
}

/// A success on an endpoint without a record: nothing to do, and known without reading the policy.
fn quiet(breaker: Breaker, verdict: Verdict) -> bool {
    breaker.phase == Phase::Closed
        && match verdict {
            Verdict::Success => breaker.consecutive == 0 && breaker.ejections == 0,
            Verdict::Refused | Verdict::None => true,
            _ => false,
        }
}

/// The figures that requests change, on cache lines of their own.
#[repr(align(128))]
#[derive(Default, Debug)]
pub(super) struct Load {
    pub(super) in_flight: AtomicU32,
    pub(super) connections: AtomicU32,
    /// Requests that wait for a connection to it.
    pub(super) pending: AtomicU32,
    pub(super) latency: PeakEwma,
    breaker: AtomicU64,
    ejections_total: AtomicU64,
    /// Since when it has been out, in nanoseconds; 0 while it is not.
    out_since: AtomicU64,
    /// When it returned from an ejection or a failed health check, in nanoseconds; 0 if it never has.
    returned: AtomicU64,
    /// Nanoseconds to all successful answers.
    pub(super) time_to_answers: AtomicU64,
    /// [`Runs`]; written only while something fails.
    runs: AtomicU32,
    /// Whom its lane lets in.
    admits: Word,
    pub(super) totals: [AtomicU64; Outcome::COUNT],
}

impl Load {
    /// Failures of one sort in a row, after one more verdict.
    fn run_on(&self, verdict: Verdict) -> Runs {
        let before = Runs::unpack(self.runs.load(Ordering::Relaxed));
        let after = before.after(verdict);
        // Verdicts that come at the same time may count as one; the breaker's own count is exact.
        self.runs.store(after.pack(), Ordering::Relaxed);
        after
    }

    /// It is out from now on, if it was not before.
    fn out(&self, now: u64) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        // Being out already keeps its beginning.
        let _ = self.out_since.compare_exchange(0, now.max(1), set, fetch);
    }

    /// It is not out any more; how long it was, in nanoseconds.
    fn back(&self, now: u64) -> Option<u64> {
        let since = self.out_since.swap(0, Ordering::Relaxed);
        (since > 0).then(|| now.saturating_sub(since))
    }
}
