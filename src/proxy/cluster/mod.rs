//! A service or subset as one proxy sees it: who may be picked, who is, and how much at once.
//!
//! What comes together here: [`mod@members`] says which endpoints belong to a cluster, [`breaker`] how each of them is judged,
//! [`outlier`] how they compare,
//! [`reported`] what they say of their load, [`health`] whether each of them says that it can serve, [`plan`] who may be picked just now,
//! [`balancer`] who of them is, [`limits`] and [`retry_budget`] how much is allowed, [`circuit`] whether anything is, and [`lease`]
//! holds what was given until the answer's last byte.
//!
//! One [`Cluster`] is shared by all workers. A pick takes no lock and allocates nothing: it reads one `Arc` and some
//! atomics. Only the first pick after a change (an endpoint came or went, a breaker moved, a time is up) works out again who
//! may be picked; others that come meanwhile still use what was.
//!
//! It leaves out connections (pools belong to each worker), retries (the caller passes who has been tried) and
//! waiting (a limit refuses at once).

pub mod balancer;
pub mod breaker;
pub mod circuit;
pub mod directory;
pub mod endpoint;
pub mod health;
pub mod instances;
pub mod lease;
pub mod limits;
pub mod members;
pub mod outlier;
pub mod plan;
pub mod report;
pub mod reported;
pub mod resolve;
pub mod retry_budget;
mod sliding;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
mod view;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use arc_swap::{ArcSwap, ArcSwapOption};
use smallvec::SmallVec;
use tokio::time::Instant;

pub use circuit::{CircuitOpen, Pass};
pub use directory::Clusters;
pub use endpoint::{Endpoint, EndpointId};
pub use instances::{Instances, Owner};
pub use lease::{Lease, Outcome};
pub use limits::{ConnectionPermit, Limits, Overflow, PendingPermit, RetryPermit};
pub use members::{EndpointSet, Member, members};
pub use retry_budget::RetryBudget;

use self::balancer::Table;
pub use self::time::nanos;
use self::view::View;
use crate::lane::Word;
use crate::model::{self, Class, ClusterKey, Gray, Service};
use crate::proxy::events::Events;

/// How many endpoints more are asked for room where the one that was picked has none. Policies prefer those that have, so more
/// would only make refusals dear.
const OTHERS_MAX: usize = 8;

/// One request in so many goes to an endpoint although its lane has said that it lets nothing of its class in.
const PROBING: u32 = 20;

/// Why no endpoint could be picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PickError {
    /// The service has no endpoints at all.
    NoEndpoint,
    /// There are endpoints, but all are draining, of weight 0, or fail their health check.
    NoneHealthy {
        draining: usize,
        weightless: usize,
        failing: usize,
    },
    /// All that could serve are in the list of those to avoid.
    AllTried,
    /// The lanes of those that were asked let nothing of this class in.
    NotAdmitted(Class),
    /// A limit is reached.
    Overflow(Overflow),
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PickError::NoEndpoint => f.write_str("the service has no endpoints"),
            PickError::NoneHealthy {
                draining,
                weightless,
                failing,
            } => write!(
                f,
                "no endpoint takes new requests: {draining} draining, {weightless} of weight 0, {failing} failing their health check"
            ),
            PickError::AllTried => f.write_str("every endpoint has been tried"),
            PickError::NotAdmitted(class) => {
                write!(f, "no lane lets in the class {}", class.as_str())
            }
            PickError::Overflow(limit) => limit.fmt(f),
        }
    }
}

impl std::error::Error for PickError {}

/// A service or subset with its endpoints, their live figures and its limits.
#[derive(Debug)]
pub struct Cluster {
    pub key: ClusterKey,
    /// The proxy's own zone.
    zone: Option<Arc<str>>,
    shared: Arc<Shared>,
    /// All endpoints. Written under `writing`.
    set: ArcSwap<EndpointSet>,
    /// Who may be picked, worked out from `set` and the breakers. Written under `writing`.
    view: ArcSwap<View>,
    /// Where keys lead, for policies that hash; worked out where `set` or the policy changes. Written under `writing`.
    table: ArcSwapOption<Table>,
    /// Picks that went in turns, for the policies that do.
    turn: AtomicU64,
    writing: Mutex<()>,
    /// What outliers are found by.
    evaluation: Mutex<outlier::Evaluation>,
}

/// What endpoints, leases and permits need of their cluster.
#[derive(Debug)]
pub(super) struct Shared {
    service: ArcSwap<Service>,
    /// As logs and metrics name it: `namespace/service`, with the subset where there is one.
    label: Arc<str>,
    events: Events,
    limits: Limits,
    retry_budget: RetryBudget,
    circuit: circuit::Slot,
    /// How many there are.
    endpoints: AtomicUsize,
    /// Endpoints that are ejected.
    ejected: AtomicU32,
    ejections_total: AtomicU64,
    /// The last that any endpoint has said of whom its lane lets in.
    sheds: Word,
    /// Grows when somebody's health or the policy changes: views of an earlier generation are outdated.
    generation: AtomicU64,
}

impl Shared {
    fn health_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// A place among the ejected, where there is one. Its holder gives it back by [`Shared::release_ejected`].
    fn try_eject(&self) -> bool {
        limits::try_increment(&self.ejected, self.ejected_max())
    }

    fn release_ejected(&self) {
        self.ejected.fetch_sub(1, Ordering::Relaxed);
    }

    /// At most `max_ejection_percent`, but always one; all where another service takes over, or an open circuit does.
    fn ejected_max(&self) -> u32 {
        let service = self.service.load();
        let percent = match service.failover.is_some() || self.circuit.is_open() {
            true => 100,
            false => u64::from(service.outlier.max_ejection_percent),
        };
        let endpoints = self.endpoints.load(Ordering::Relaxed) as u64;
        (endpoints * percent / 100).clamp(1, u64::from(u32::MAX)) as u32
    }

    fn set_circuit(&self, service: &Service) {
        self.limits.set(&service.circuit);
        self.retry_budget.set(&service.circuit);
        self.circuit.set(service, &self.label, &self.events);
    }
}

impl Cluster {
    /// Without endpoints, until [`Cluster::set_endpoints`].
    pub fn new(key: ClusterKey, service: &Arc<Service>, zone: Option<Arc<str>>) -> Arc<Self> {
        Self::telling(key, service, zone, Events::default())
    }

    /// As [`Cluster::new`]; what it detects goes to `events`.
    pub fn telling(
        key: ClusterKey,
        service: &Arc<Service>,
        zone: Option<Arc<str>>,
        events: Events,
    ) -> Arc<Self> {
        let label = match &key.subset {
            Some(subset) => format!("{}/{subset}", key.service),
            None => key.service.to_string(),
        };
        let shared = Shared {
            service: ArcSwap::new(service.clone()),
            label: label.into(),
            events,
            limits: Limits::new(&service.circuit),
            retry_budget: RetryBudget::new(&service.circuit),
            circuit: circuit::Slot::default(),
            endpoints: AtomicUsize::new(0),
            ejected: AtomicU32::new(0),
            ejections_total: AtomicU64::new(0),
            sheds: Word::default(),
            generation: AtomicU64::new(0),
        };
        shared.set_circuit(service);
        Arc::new(Self {
            key,
            zone,
            shared: Arc::new(shared),
            set: ArcSwap::default(),
            view: ArcSwap::default(),
            table: ArcSwapOption::default(),
            // Proxies that start together do not begin with the same endpoint.
            turn: AtomicU64::new(crate::base::rng::fresh().u64(..) >> 1),
            writing: Mutex::new(()),
            evaluation: Mutex::default(),
        })
    }

    /// What the health checks say of an address has changed.
    pub(super) fn health_changed(&self, address: SocketAddr, returned: bool, now: Instant) {
        let set = self.set.load();
        let mut endpoints = set.endpoints.iter();
        match endpoints.find(|endpoint| endpoint.address == address) {
            Some(endpoint) if returned => endpoint.has_returned(nanos(now)),
            _ => self.shared.health_changed(),
        }
    }

    /// The service as it is configured now.
    pub fn service(&self) -> Arc<Service> {
        self.shared.service.load_full()
    }

    /// Takes changed policies and limits over; endpoints and what is known of them stay.
    pub fn update_service(&self, service: &Arc<Service>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.service.store(service.clone());
        self.shared.set_circuit(service);
        self.arrange();
        self.shared.health_changed();
    }

    /// Under `writing`.
    fn arrange(&self) {
        let service = self.shared.service.load();
        let before = self.table.load_full();
        let table = Table::of(&self.set.load().endpoints, &service.balance, before);
        self.table.store(table);
    }

    /// Replaces all endpoints of this cluster; what is known of an address goes on. Endpoints that are names are left out; give
    /// their addresses by [`Cluster::set_members`].
    pub fn set_endpoints(&self, endpoints: Vec<model::Endpoint>) {
        self.set_members(members::resolved(endpoints));
    }

    /// Replaces all endpoints of this cluster; what is known of an address goes on.
    pub fn set_members(&self, members: Vec<Member>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = self.set.load().with(members, &self.shared) else {
            return;
        };
        self.shared
            .endpoints
            .store(set.endpoints.len(), Ordering::Relaxed);
        self.set.store(Arc::new(set));
        self.arrange();
        self.shared.health_changed();
    }

    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.set.load_full()
    }

    /// How often an endpoint of this cluster has been ejected, those included that have left since.
    pub fn ejections_total(&self) -> u64 {
        self.shared.ejections_total.load(Ordering::Relaxed)
    }

    /// Asks the circuit for the right to send the service a request; None where it has no breaker.
    pub fn enter(
        &self,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<Option<Pass>, CircuitOpen> {
        match self.shared.circuit.get() {
            None => Ok(None),
            Some(circuit) => circuit.enter(now, rng.u32(..)).map(Some),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub fn retry_budget(&self) -> &RetryBudget {
        &self.shared.retry_budget
    }

    /// A place for one more connection to this cluster's endpoint. Who does not wait where there is none counts the refusal.
    pub fn try_connection(&self, endpoint: &Arc<Endpoint>) -> Result<ConnectionPermit, Overflow> {
        ConnectionPermit::acquire(endpoint)
    }

    /// Waits for a place for one more connection, under `pending_max`. It wakes when any worker gives a place of this cluster
    /// back; while [`Limits::pending`] is above 0, workers should rather close connections than keep them idle.
    pub async fn connection(&self, endpoint: &Arc<Endpoint>) -> Result<ConnectionPermit, Overflow> {
        let _pending = self.try_pending(endpoint)?;
        Ok(ConnectionPermit::wait(endpoint).await)
    }

    /// A place to wait for a connection.
    pub fn try_pending(&self, endpoint: &Arc<Endpoint>) -> Result<PendingPermit, Overflow> {
        PendingPermit::acquire(endpoint)
    }

    /// The right to retry a request, as far as `retries_max` and the budget allow. It is to be kept until the head of the retry's
    /// answer has come.
    pub fn try_retry(&self, now: Instant) -> Option<RetryPermit> {
        let permit = RetryPermit::acquire(&self.shared).ok()?;
        self.shared.retry_budget.try_retry(now).then_some(permit)
    }

    /// Nobody is healthy, and nobody is to be tried again just now, neither in the traffic lane that is named nor without one.
    pub fn is_out(&self, lane: Option<&str>, now: Instant) -> bool {
        let now = nanos(now);
        let view = self.view(now);
        let is_out = |view: &View| view.is_out() && view.lane_in_force(lane).is_none();
        is_out(&view) && (!self.is_outdated(&view, now) || is_out(&self.refreshed(now)))
    }

    /// Picks an endpoint for one attempt, none of `avoid` (those this request has tried).
    ///
    /// An endpoint whose ejection or avoidance has run out gets the next request as its one probe, whatever the policy.
    pub fn pick(
        &self,
        avoid: &[EndpointId],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, PickError> {
        self.pick_by_key(None, avoid, now, rng)
    }

    /// As [`Cluster::pick`], of a request with this key, which leads to the same endpoint each time where the policy hashes.
    /// There, it is chance for who has none.
    pub fn pick_by_key(
        &self,
        key: Option<u64>,
        avoid: &[EndpointId],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, PickError> {
        let now = nanos(now);
        let view = self.view(now);
        match view.pick(key, avoid, now, &self.turn, rng) {
            Ok(picked) => self.lease(&view, picked, key, avoid, now, rng),
            Err(_) if self.is_outdated(&view, now) => self.pick_refreshed(key, avoid, now, rng),
            Err(error) => Err(error),
        }
    }

    /// This endpoint for one attempt, whatever the policy; None where it is gone, not healthy, at its limit, or not of those that
    /// serve this traffic lane.
    #[cold]
    pub fn lease_of(
        &self,
        endpoint: EndpointId,
        lane: Option<&str>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Lease> {
        let now = nanos(now);
        let set = self.set.load();
        let found = set.endpoints.iter().find(|one| one.id == endpoint)?;
        let serves = match self.gray(&self.shared.service.load()) {
            None => true,
            Some(gray) => {
                let in_force = self.current_view(now).lane_in_force(lane).and(lane);
                found.lane(gray) == in_force
            }
        };
        let lease = || self.try_lease((found, false), now, rng).ok();
        (serves && found.is_healthy()).then(lease).flatten()
    }

    /// The traffic lanes that its endpoints are in.
    fn gray<'s>(&self, service: &'s Service) -> Option<&'s Gray> {
        service.gray_of(self.key.subset.as_deref())
    }

    fn current_view(&self, now: u64) -> arc_swap::Guard<Arc<View>> {
        let view = self.view.load();
        match self.is_outdated(&view, now) {
            true => self.refreshed(now),
            false => view,
        }
    }

    /// As [`Cluster::pick_by_key`], of a traffic lane's endpoints; None where the lane has nobody to serve, so that those without
    /// a lane do.
    #[cold]
    pub fn pick_in_lane(
        &self,
        lane: &str,
        key: Option<u64>,
        avoid: &[EndpointId],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Lease> {
        let now = nanos(now);
        let view = self.current_view(now);
        let of_lane = view.lane_in_force(Some(lane))?;
        let picked = of_lane.pick(key, avoid, now, &self.turn, rng).ok()?;
        self.lease(of_lane, picked, key, avoid, now, rng).ok()
    }

    /// Whether some endpoint's lane has said lately that it does not let everybody in.
    pub fn sheds(&self, now: Instant) -> bool {
        let word = &self.shared.sheds;
        word.is_said() && word.admits(nanos(now)).is_some()
    }

    /// As [`Cluster::pick_by_key`], but only of those whose lanes let this class in, as far as they have said. One of [`PROBING`] requests
    /// goes to the first pick all the same: so floors find somebody waiting, and the return of room is noticed.
    #[cold]
    pub fn pick_admitting(
        &self,
        class: Class,
        key: Option<u64>,
        avoid: &[EndpointId],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, PickError> {
        if rng.u32(..PROBING) == 0 {
            return self.pick_by_key(key, avoid, now, rng);
        }
        let nanos = nanos(now);
        let mut avoid: SmallVec<[EndpointId; 16]> = avoid.into();
        for tried in 0..OTHERS_MAX {
            match self.pick_by_key(key, &avoid, now, rng) {
                Ok(lease) if lease.endpoint().admits(class, nanos) => return Ok(lease),
                Ok(lease) => avoid.push(lease.not_used()),
                Err(PickError::AllTried) if tried > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Err(PickError::NotAdmitted(class))
    }

    /// Another thread is working out who may be picked, and what was is of no use to this request: waits for it.
    #[cold]
    fn pick_refreshed(
        &self,
        key: Option<u64>,
        avoid: &[EndpointId],
        now: u64,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, PickError> {
        let view = self.refreshed(now);
        let picked = view.pick(key, avoid, now, &self.turn, rng)?;
        self.lease(&view, picked, key, avoid, now, rng)
    }

    fn lease(
        &self,
        view: &View,
        picked: (&Arc<Endpoint>, bool),
        key: Option<u64>,
        avoid: &[EndpointId],
        now: u64,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, PickError> {
        let leased = match self.try_lease(picked, now, rng) {
            Err(Overflow::EndpointRequests) => {
                self.lease_of_another(view, picked.0.id, key, avoid, now, rng)
            }
            leased => leased,
        };
        leased.map_err(|limit| {
            self.shared.limits.count_refusal(limit);
            PickError::Overflow(limit)
        })
    }

    /// The endpoint that was picked is at its limit: one that has room, if it is found among a few.
    #[cold]
    fn lease_of_another(
        &self,
        view: &View,
        full: EndpointId,
        key: Option<u64>,
        avoid: &[EndpointId],
        now: u64,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, Overflow> {
        let mut avoid: SmallVec<[EndpointId; 16]> = avoid.into();
        avoid.push(full);
        for _ in 0..OTHERS_MAX {
            let Ok(picked) = view.pick(key, &avoid, now, &self.turn, rng) else {
                break;
            };
            match self.try_lease(picked, now, rng) {
                Err(Overflow::EndpointRequests) => avoid.push(picked.0.id),
                leased => return leased,
            }
        }
        Err(Overflow::EndpointRequests)
    }

    fn try_lease(
        &self,
        (endpoint, probe): (&Arc<Endpoint>, bool),
        now: u64,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, Overflow> {
        let granted = self.shared.limits.try_request(endpoint);
        if granted.is_err() && probe {
            endpoint.judge(breaker::Verdict::None, true, now, 0);
        }
        granted.map(|()| Lease::new(endpoint.clone(), probe, rng.u32(..)))
    }

    /// Arranges the endpoints by what they have reported, where the policy weighs by that.
    pub fn reweigh(&self, now: Instant) {
        if self.service().balance.policy.weighs_by_load() {
            self.refreshed(nanos(now));
        }
    }

    /// Whether anybody goes by what its endpoints report of their load.
    pub fn needs_load(&self) -> bool {
        self.shared.service.load().balance.policy.needs_load()
    }

    /// Who may be picked, worked out again; waits for another thread that is at it.
    fn refreshed(&self, now: u64) -> arc_swap::Guard<Arc<View>> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(now);
        self.view.load()
    }

    /// Who may be picked; the latest, unless another thread is just working it out.
    fn view(&self, now: u64) -> arc_swap::Guard<Arc<View>> {
        let view = self.view.load();
        if !self.is_outdated(&view, now) {
            return view;
        }
        self.try_refresh(now);
        self.view.load()
    }

    fn is_outdated(&self, view: &View, now: u64) -> bool {
        view.is_outdated(self.shared.generation.load(Ordering::Acquire), now)
    }

    /// Works out again who may be picked, unless another thread is at it already.
    #[cold]
    fn try_refresh(&self, now: u64) {
        let _writing = match self.writing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.refresh(now);
    }

    /// Under `writing`.
    fn refresh(&self, now: u64) {
        // Read before the breakers, so that a change while we look makes this view outdated again.
        let generation = self.shared.generation.load(Ordering::Acquire);
        let service = self.shared.service.load();
        let set = self.set.load();
        let before = self.view.load();
        let table = self.table.load();
        let zone = self.zone.as_deref();
        let view = |set: &EndpointSet| {
            View::new(generation, set, &service.balance, table.as_ref(), zone, now)
        };
        let view = match self.gray(&service) {
            None => view(&set),
            Some(gray) => View::with_lanes(&set, gray, view),
        };
        let view = view.after(&before, now, &self.shared);
        self.view.store(Arc::new(view));
    }
}
