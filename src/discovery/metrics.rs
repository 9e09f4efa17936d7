use crate::telemetry::metrics::Scrape;

use super::status::Status;

type Read = fn(&Status) -> f64;

const GAUGES: [(&str, &str, Read); 7] = [
    (
        "pillion_discovery_connected",
        "1 while a registry is watched.",
        |status| flag(status.connected.is_some()),
    ),
    (
        "pillion_discovery_revision",
        "Newest revision of the registry that has arrived.",
        |status| status.revision as f64,
    ),
    (
        "pillion_discovery_applied_revision",
        "Newest revision of the registry that is in effect.",
        |status| status.applied_revision as f64,
    ),
    (
        "pillion_discovery_rejected",
        "1 while documents of the registry are refused.",
        |status| flag(status.rejected.is_some()),
    ),
    (
        "pillion_discovery_registered_instances",
        "Instances of this process that the registry knows.",
        |status| status.registered as f64,
    ),
    (
        "pillion_discovery_documents_kept",
        "Documents kept from a registry that has lost its data.",
        |status| status.documents_kept as f64,
    ),
    (
        "pillion_discovery_snapshot_failing",
        "1 while the last good snapshot cannot be written.",
        |status| flag(status.snapshot_problem.is_some()),
    ),
];

/// All that `pillion_discovery_*` says, at one reading.
pub(super) fn collect(status: &Status, scrape: &mut Scrape) {
    for (name, help, read) in GAUGES {
        scrape.gauge(name, help, &[], read(status));
    }
    scrape.counter(
        "pillion_discovery_connects_total",
        "Watches begun.",
        &[],
        status.connects,
    );
    scrape.counter(
        "pillion_discovery_listings_total",
        "Whole listings received.",
        &[],
        status.listings,
    );
    scrape.counter(
        "pillion_discovery_events_forgotten_total",
        "Events that were forgotten before a registry could be told of them.",
        &[],
        status.events_forgotten,
    );
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
