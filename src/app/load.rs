//! How busy this instance is, once a second: for its callers, on its answers, and for the registry, on each frame.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::api;
use crate::config::bootstrap;
use crate::discovery;
use crate::load::Usage;
use crate::load::sample::{Sampler, Source};
use crate::proxy::cluster::nanos;
use crate::proxy::data_plane::DataPlane;
use crate::proxy::instance_load::InstanceLoad;
use crate::proxy::lane::{LaneReport, Lanes, Side};

/// Between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);

/// Measures the instance for as long as it is polled.
pub async fn run(load: Arc<InstanceLoad>, lanes: Lanes, settings: bootstrap::Load) {
    let mut sampler = Sampler::new(&Source {
        root: settings.root,
        cgroup: settings.cgroup,
    });
    match sampler.group() {
        Some(group) => tracing::debug!(group = %group.display(), "Load is that of a control group"),
        None => tracing::debug!("Load is that of the machine"),
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let lane = of_application(&lanes).map(|lane| occupancy(&lane));
        let lane = lane.reduce(f64::max);
        let measured = sampler.sample(nanos(now));
        load.update(Usage { lane, ..measured }, now);
    }
}

/// What this proxy asks of others says nothing of the instance.
fn of_application(lanes: &Lanes) -> impl Iterator<Item = LaneReport> {
    let lanes = lanes.report().into_iter();
    lanes.filter(|lane| lane.side == Side::Inbound)
}

/// Requests that the application has, of those it may have at once.
fn occupancy(lane: &LaneReport) -> f64 {
    f64::from(lane.in_flight) / f64::from(lane.limit.max(1))
}

/// What each frame tells the registry.
pub fn of_frames(plane: &DataPlane) -> discovery::MeasureLoad {
    let (load, lanes) = (plane.load().clone(), plane.lanes().clone());
    Box::new(move || of_frame(load.usage(), &lanes))
}

fn of_frame(usage: Usage, lanes: &Lanes) -> api::Load {
    let factor = usage.factor();
    let in_flight = of_application(lanes).map(|lane| u64::from(lane.in_flight));
    api::Load {
        cpu: usage.cpu,
        memory: usage.memory,
        network: usage.network,
        application: usage.application,
        lane: usage.lane,
        in_flight: in_flight.reduce(|sum, more| sum + more),
        factor: factor.map(|factor| factor.value),
    }
}
