//! The circuit limits of a cluster, exact across all workers: what is beyond is refused at once, and counted.
//!
//! Every hold is a guard; dropping it gives its place back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::endpoint::Endpoint;
use crate::model::Circuit;

/// A limit that has been reached, by its name in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Overflow {
    /// `circuit.requests_max`
    Requests,
    /// `circuit.endpoint_requests_max`
    EndpointRequests,
    /// `circuit.pending_max`
    Pending,
    /// `circuit.endpoint_pending_max`
    EndpointPending,
    /// `circuit.connections_max`
    Connections,
    /// `circuit.endpoint_connections_max`
    EndpointConnections,
    /// `circuit.retries_max`
    Retries,
}

impl Overflow {
    pub const ALL: [Overflow; 7] = [
        Overflow::Requests,
        Overflow::EndpointRequests,
        Overflow::Pending,
        Overflow::EndpointPending,
        Overflow::Connections,
        Overflow::EndpointConnections,
        Overflow::Retries,
    ];

    /// The limit's name, for logs, metrics and answers.
    pub fn limit(self) -> &'static str {
        match self {
            Overflow::Requests => "requests_max",
            Overflow::EndpointRequests => "endpoint_requests_max",
            Overflow::Pending => "pending_max",
            Overflow::EndpointPending => "endpoint_pending_max",
            Overflow::Connections => "connections_max",
            Overflow::EndpointConnections => "endpoint_connections_max",
            Overflow::Retries => "retries_max",
        }
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the limit circuit.{} of the service is reached in this proxy",
            self.limit()
        )
    }
}

impl std::error::Error for Overflow {}

/// The counts of one cluster and their limits. Limits may change at any time; what is held above a lowered one stays.
#[derive(Debug)]
pub struct Limits {
    requests: Pair,
    pending: Pair,
    connections: Pair,
    retries: Gauge,
    refused: [AtomicU64; Overflow::ALL.len()],
    connection_returned: Notify,
}

impl Limits {
    pub(super) fn new(circuit: &Circuit) -> Self {
        let limits = Self {
            requests: Pair::default(),
            pending: Pair::default(),
            connections: Pair::default(),
            retries: Gauge::default(),
            refused: Default::default(),
            connection_returned: Notify::new(),
        };
        limits.set(circuit);
        limits
    }

    pub(super) fn set(&self, circuit: &Circuit) {
        self.requests
            .set_max(circuit.requests_max, circuit.endpoint_requests_max);
        self.pending
            .set_max(circuit.pending_max, circuit.endpoint_pending_max);
        self.connections
            .set_max(circuit.connections_max, circuit.endpoint_connections_max);
        self.retries.set_max(circuit.retries_max);
        self.connection_returned.notify_waiters();
    }

    /// Requests that hold a lease.
    pub fn requests(&self) -> u32 {
        self.requests.service.now()
    }

    /// Requests that wait for a connection.
    pub fn pending(&self) -> u32 {
        self.pending.service.now()
    }

    /// Open connections, idle ones included.
    pub fn connections(&self) -> u32 {
        self.connections.service.now()
    }

    /// Retries from when they are granted until the head of their answer has come.
    pub fn retries(&self) -> u32 {
        self.retries.now()
    }

    /// How often a limit has refused something.
    pub fn refused(&self, limit: Overflow) -> u64 {
        self.refused[limit as usize].load(Ordering::Relaxed)
    }

    /// Refusals here are the caller's to count: another endpoint may have room.
    pub(super) fn try_request(&self, endpoint: &Endpoint) -> Result<(), Overflow> {
        let limits = [Overflow::EndpointRequests, Overflow::Requests];
        self.requests
            .try_acquire(&endpoint.load().in_flight, limits)
    }

    pub(super) fn release_request(&self, endpoint: &Endpoint) {
        self.requests.release(&endpoint.load().in_flight);
    }

    fn try_pending(&self, endpoint: &Endpoint) -> Result<(), Overflow> {
        let limits = [Overflow::EndpointPending, Overflow::Pending];
        self.pending
            .try_acquire(&endpoint.load().pending, limits)
            .inspect_err(|limit| self.count_refusal(*limit))
    }

    /// Refusals here are the caller's to count: it may wait instead.
    fn try_connection(&self, endpoint: &Endpoint) -> Result<(), Overflow> {
        let limits = [Overflow::EndpointConnections, Overflow::Connections];
        self.connections
            .try_acquire(&endpoint.load().connections, limits)
    }

    /// Something was refused at this limit for good.
    pub fn count_refusal(&self, limit: Overflow) {
        self.refused[limit as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The right to have one connection to an endpoint open, idle or not. Dropping it gives the place back and wakes those who
/// wait for one, on whatever worker.
#[must_use = "dropping the permit gives the connection's place back"]
#[derive(Debug)]
pub struct ConnectionPermit {
    endpoint: Arc<Endpoint>,
}

impl ConnectionPermit {
    pub(super) fn acquire(endpoint: &Arc<Endpoint>) -> Result<Self, Overflow> {
        endpoint.shared().limits.try_connection(endpoint)?;
        Ok(Self {
            endpoint: endpoint.clone(),
        })
    }

    pub(super) async fn wait(endpoint: &Arc<Endpoint>) -> Self {
        let limits = &endpoint.shared().limits;
        loop {
            let mut returned = std::pin::pin!(limits.connection_returned.notified());
            // Before trying, so that a place given back in between is not missed.
            returned.as_mut().enable();
            if let Ok(permit) = Self::acquire(endpoint) {
                return permit;
            }
            returned.await;
        }
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let limits = &self.endpoint.shared().limits;
        limits
            .connections
            .release(&self.endpoint.load().connections);
        limits.connection_returned.notify_waiters();
    }
}

/// The right to wait for a connection. Dropping it gives the place in the queue back.
#[must_use = "dropping the permit gives the place in the queue back"]
#[derive(Debug)]
pub struct PendingPermit {
    endpoint: Arc<Endpoint>,
}

impl PendingPermit {
    pub(super) fn acquire(endpoint: &Arc<Endpoint>) -> Result<Self, Overflow> {
        endpoint.shared().limits.try_pending(endpoint)?;
        Ok(Self {
            endpoint: endpoint.clone(),
        })
    }
}

impl Drop for PendingPermit {
    fn drop(&mut self) {
        let limits = &self.endpoint.shared().limits;
        limits.pending.release(&self.endpoint.load().pending);
    }
}

/// The right to retry a request. Dropping it lets another be retried.
#[must_use = "dropping the permit gives the retry's place back"]
#[derive(Debug)]
pub struct RetryPermit {
    shared: Arc<super::Shared>,
}

impl RetryPermit {
    pub(super) fn acquire(shared: &Arc<super::Shared>) -> Result<Self, Overflow> {
        if !shared.limits.retries.try_acquire() {
            shared.limits.count_refusal(Overflow::Retries);
            return Err(Overflow::Retries);
        }
        Ok(Self {
            shared: shared.clone(),
        })
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.shared.limits.retries.release();
    }
}

/// A limit of the service and one of each of its endpoints, whose places are taken and given back together.
#[derive(Default, Debug)]
struct Pair {
    service: Gauge,
    endpoint_max: AtomicU32,
}

impl Pair {
    fn set_max(&self, service: u32, endpoint: u32) {
        self.service.set_max(service);
        self.endpoint_max.store(endpoint, Ordering::Relaxed);
    }

    /// A place at the endpoint, which has taken so many, and at the service; or which limit is reached, of these two.
    fn try_acquire(&self, endpoint: &AtomicU32, limits: [Overflow; 2]) -> Result<(), Overflow> {
        if !try_increment(endpoint, self.endpoint_max.load(Ordering::Relaxed)) {
            // Of two that are reached, the service's says more: no other endpoint would have room.
            let both = self.service.now() >= self.service.max();
            return Err(limits[usize::from(both)]);
        }
        if !self.service.try_acquire() {
            endpoint.fetch_sub(1, Ordering::Relaxed);
            return Err(limits[1]);
        }
        Ok(())
    }

    fn release(&self, endpoint: &AtomicU32) {
        endpoint.fetch_sub(1, Ordering::Relaxed);
        self.service.release();
    }
}

/// A count that never exceeds its maximum at the moment of acquiring.
#[derive(Default, Debug)]
pub(super) struct Gauge {
    now: AtomicU32,
    max: AtomicU32,
}

impl Gauge {
    pub(super) fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    pub(super) fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn try_acquire(&self) -> bool {
        try_increment(&self.now, self.max.load(Ordering::Relaxed))
    }

    pub(super) fn release(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn try_increment(count: &AtomicU32, max: u32) -> bool {
    let mut now = count.load(Ordering::Relaxed);
    while now < max {
        match count.compare_exchange_weak(now, now + 1, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(current) => now = current,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_grants_up_to_its_maximum_and_again_after_a_release() {
        let gauge = Gauge::default();
        gauge.set_max(2);
        assert!(gauge.try_acquire() && gauge.try_acquire());
        assert!(!gauge.try_acquire());
        gauge.release();
        assert!(gauge.try_acquire());
    }

    #[test]
    fn a_lowered_maximum_keeps_what_is_held_and_grants_nothing_new() {
        let gauge = Gauge::default();
        gauge.set_max(3);
        assert!((0..3).all(|_| gauge.try_acquire()));
        gauge.set_max(1);
        gauge.release();
        assert_eq!(gauge.now(), 2);
        assert!(!gauge.try_acquire());
    }

    #[test]
    fn refusals_are_counted_by_limit() {
        let limits = Limits::new(&Circuit::default());
        limits.count_refusal(Overflow::Pending);
        assert_eq!(limits.refused(Overflow::Pending), 1);
        assert_eq!(limits.refused(Overflow::Requests), 0);
    }
}
