//! The end of a process, in the order of `design.md` 10: deregister and serve on until peers know, close to others, end what is under way,
//! close to the application. What makes it end is the loop's to say.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::super::doors::Doors;
use super::{Process, next_change};
use crate::config::SidecarBootstrap;
use crate::discovery::{Changes, Departure};

/// What others had begun to open when they heard that we leave arrives within this.
const LAST_ARRIVALS: Duration = Duration::from_secs(1);
/// The share of the drain's time in which the application beside us may open connections; the rest is for what is on them.
const OUTBOUND_SHARE: f64 = 0.75;
/// How often the last connections are counted while draining.
const DRAIN_POLL: Duration = Duration::from_millis(20);

impl Process {
    /// The one that has taken over is the instance now, and nothing of it is for this process to say.
    pub(super) fn hand_on(&mut self, doors: Doors) {
        tracing::info!("Relieved");
        doors.leave_to_successor();
        self.discovery = None;
        self.names = None;
        self.plane.close();
    }

    /// Deregisters, and serves on until peers know. False where there was nothing that they could have known.
    pub(super) async fn deregister(
        &mut self,
        bootstrap: &SidecarBootstrap,
        mut changes: Option<Changes>,
    ) -> bool {
        let Some(discovery) = self.discovery.take() else {
            return false;
        };
        let departure = {
            let leaving = discovery.leave(bootstrap.drain.acknowledge_timeout);
            tokio::pin!(leaving);
            // Others may leave at the same time, and wait for our acknowledgement as we do for theirs.
            loop {
                tokio::select! {
                    departure = &mut leaving => break departure,
                    change = next_change(&mut changes) => self.follow(change),
                }
            }
        };
        tracing::info!(?departure, "Deregistered");
        discovery.stop().await;
        departure != Departure::NothingRegistered
    }

    /// Ends what is under way, within the drain's deadline.
    pub(super) async fn drain(mut self, bootstrap: &SidecarBootstrap, was_registered: bool) {
        tracing::info!("Draining");
        self.status.is_draining.store(true, Ordering::Relaxed);
        let timeout = bootstrap.drain.timeout;
        self.end_connections(timeout, was_registered).await;
        let left = self.plane.connections();
        if left > 0 {
            tracing::warn!(
                connections = left,
                "Connections were cut at the drain's deadline"
            );
        }
        tracing::info!("Stopped");
    }

    /// Ends what is under way within this time. Others have somewhere else to go, and are not taken in any more; the application
    /// beside us has not, and is served until nothing is left of what there was.
    async fn end_connections(&mut self, timeout: Duration, was_registered: bool) {
        let began = Instant::now();
        self.plane.drain();
        let arrived_by = began + timeout.min(LAST_ARRIVALS);
        // A peer may have chosen this instance before it heard, and closing a socket resets what has just come to it.
        let nobody_comes = || !was_registered && self.plane.connections() == 0;
        until(arrived_by, nobody_comes).await;
        self.plane.close_to_others();
        let outbound_by = began + timeout.mul_f64(OUTBOUND_SHARE);
        until(outbound_by, || self.plane.connections_before_drain() == 0).await;
        self.plane.close();
        until(began + timeout, || self.plane.is_done()).await;
    }
}

/// Waits until it is so, or the deadline.
async fn until(deadline: Instant, is_so: impl Fn() -> bool) {
    while !is_so() && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_POLL).await;
    }
}
