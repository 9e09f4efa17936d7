//! What answers say of the load behind them: read where somebody goes by it, told to callers, and kept from those outside the mesh.
//!
//! The application's own word (ORCA, [`orca`]) ends at its sidecar where the service is balanced by load; callers get the sidecar's
//! there, once a second and connection, as `endpoint-load-metrics-bin`. Where the service is not, nothing is added and nothing taken
//! away, but at a gateway: how busy a mesh is concerns no client of it.

use tokio::time::Instant;

use super::forward::Plan;
use super::head::{Fields, Known, ResponseHead};
use super::tries::Answered;
use crate::load::orca;
use crate::proxy::entry::Role;
use crate::proxy::session::Session;

const FIELD: &[u8] = b"endpoint-load-metrics-bin";

const FIELDS: [Known; 2] = [Known::EndpointLoadMetrics, Known::EndpointLoadMetricsBin];

/// An answer is on its way to the client.
pub fn pass(session: &Session, plan: &Plan<'_>, answered: &Answered, response: &mut ResponseHead) {
    let needs_load = plan.destination.cluster.needs_load();
    let now = Instant::now();
    let fields = &mut response.fields;
    let report = match needs_load || plan.tells_load {
        true => read(fields),
        false => None,
    };
    if plan.tells_load {
        let load = session.worker.load();
        load.answered(response.status >= 500, report, now);
        fields.remove_all(&FIELDS);
        if let Some(told) = load.news(session.load_told.get()) {
            session.load_told.set(told.version);
            fields.push_known(Known::EndpointLoadMetricsBin, FIELD, &told.value);
        }
        return;
    }
    if let Some(report) = report {
        answered.lease.endpoint().reported(&report, now);
    }
    if needs_load || session.entry.role == Role::Gateway {
        fields.remove_all(&FIELDS);
    }
}

/// Whether an answer says anything.
pub fn is_in(fields: &Fields) -> bool {
    fields.contains_any(&FIELDS)
}

fn read(fields: &Fields) -> Option<orca::Report> {
    match fields.get(Known::EndpointLoadMetricsBin) {
        Some(value) => orca::Report::parse_binary(value),
        None => orca::Report::parse(fields.get(Known::EndpointLoadMetrics)?),
    }
}
