//! The page `/clusters`: every endpoint, its state, its load, and why it gets traffic or not.

use serde::Serialize;

/// A service or subset as this proxy sees it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct ClusterView {
    /// `namespace/name`, with `:port` and the subset where it is narrowed to one.
    pub name: String,
    /// The balancing policy, as documents write it.
    pub policy: String,
    /// None where it has no circuit breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitView>,
    pub endpoints: Vec<EndpointView>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct CircuitView {
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Why requests are refused, and until when; None while it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Requests that it refused, or left to the service that takes over.
    pub refused: u64,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct EndpointView {
    pub address: String,
    /// `passing`, `warning`, `critical`, `draining`, `ejected`, `half-open` …: one word, what the balancer goes by.
    pub state: String,
    /// Why the state is what it is; empty when it is the ordinary one.
    pub why: String,
    pub weight: u32,
    pub priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The traffic lane that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Requests that wait for their last byte.
    pub in_flight: u64,
    /// Open connections of all workers.
    pub connections: u64,
    /// The smoothed latency in milliseconds; None before the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// What it has last said of its load, where the policy goes by that: 0 is idle, 1 is all that it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Requests a second that it could do by that; None while it is not weighed by its reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_weight: Option<f64>,
    /// How old that is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_age_ms: Option<u64>,
    pub requests: u64,
    pub failures: u64,
    /// What its health checks say; None where it is not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct CheckView {
    /// `assumed` (not judged yet, used), `unproven` (not judged yet, not used while others are), `passing` or `failing`.
    pub state: String,
    pub checks: u64,
    pub failures: u64,
    /// Why the last check failed; None after one that passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

const COLUMNS: [&str; 12] = [
    "ADDRESS",
    "STATE",
    "WEIGHT",
    "PRIORITY",
    "ZONE",
    "IN-FLIGHT",
    "CONNECTIONS",
    "LATENCY",
    "LOAD",
    "REQUESTS",
    "FAILURES",
    "WHY",
];

/// One block a cluster, columns aligned over all of them.
pub(super) fn table(clusters: &[ClusterView]) -> String {
    let rows: Vec<Vec<[String; 12]>> = clusters
        .iter()
        .map(|cluster| cluster.endpoints.iter().map(row).collect())
        .collect();
    let mut widths = COLUMNS.map(str::len);
    for cells in rows.iter().flatten() {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (cluster, rows) in clusters.iter().zip(&rows) {
        text.push_str(&format!(
            "{} ({}, {} endpoints{})\n",
            cluster.name,
            cluster.policy,
            rows.len(),
            cluster
                .circuit
                .as_ref()
                .map_or_else(String::new, of_circuit)
        ));
        if !rows.is_empty() {
            push_line(&mut text, &COLUMNS.map(String::from), &widths);
        }
        rows.iter()
            .for_each(|cells| push_line(&mut text, cells, &widths));
    }
    if clusters.is_empty() {
        text.push_str("no clusters\n");
    }
    text
}

fn of_circuit(circuit: &CircuitView) -> String {
    match &circuit.why {
        Some(why) => format!(", circuit {}: {why}", circuit.state),
        None => format!(", circuit {}", circuit.state),
    }
}

fn row(endpoint: &EndpointView) -> [String; 12] {
    [
        endpoint.address.clone(),
        endpoint.state.clone(),
        endpoint.weight.to_string(),
        endpoint.priority.to_string(),
        endpoint.zone.clone().unwrap_or_else(|| "-".into()),
        endpoint.in_flight.to_string(),
        endpoint.connections.to_string(),
        endpoint
            .latency_ms
            .map_or_else(|| "-".into(), |latency| format!("{latency:.1}ms")),
        load(endpoint).unwrap_or_else(|| "-".into()),
        endpoint.requests.to_string(),
        endpoint.failures.to_string(),
        if endpoint.why.is_empty() {
            "-".into()
        } else {
            endpoint.why.clone()
        },
    ]
}

/// `71%`, of some time ago, with the weight that follows.
fn load(endpoint: &EndpointView) -> Option<String> {
    let age = endpoint.load_age_ms? as f64 / 1e3;
    let weight = endpoint
        .load_weight
        .map(|weight| format!(", weight {weight:.0}"));
    let percent = endpoint.load? * 100.0;
    Some(format!(
        "{percent:.0}% ({age:.1}s ago{})",
        weight.unwrap_or_default()
    ))
}

fn push_line(text: &mut String, cells: &[String; 12], widths: &[usize; 12]) {
    let mut line = String::from(" ");
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(&format!(" {cell:<width$} "));
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_its_columns_up_and_says_why() {
        let endpoint = |address: &str, why: &str| EndpointView {
            address: address.into(),
            state: "passing".into(),
            why: why.into(),
            weight: 1,
            ..EndpointView::default()
        };
        let text = table(&[ClusterView {
            name: "default/cart".into(),
            policy: "peak_ewma".into(),
            endpoints: vec![
                endpoint("10.0.0.7:8080", ""),
                endpoint("[2001:db8::1]:8080", "5 failures in a row"),
            ],
            ..ClusterView::default()
        }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "default/cart (peak_ewma, 2 endpoints)");
        assert_eq!(lines[1].find("STATE"), lines[2].find("passing"));
        assert_eq!(lines[2].find("passing"), lines[3].find("passing"));
        assert!(lines[3].ends_with("5 failures in a row"));
    }

    #[test]
    fn a_circuit_is_said_with_the_cluster_and_why_it_is_open() {
        let with = |why: Option<&str>| {
            let state = if why.is_some() { "open" } else { "closed" };
            table(&[ClusterView {
                name: "default/cart".into(),
                policy: "random".into(),
                circuit: Some(CircuitView {
                    state: state.into(),
                    why: why.map(String::from),
                    refused: 0,
                }),
                ..ClusterView::default()
            }])
        };
        let closed = "default/cart (random, 0 endpoints, circuit closed)\n";
        assert_eq!(with(None), closed);
        let open = "default/cart (random, 0 endpoints, circuit open: 9 failures in a row)\n";
        assert_eq!(with(Some("9 failures in a row")), open);
    }

    #[test]
    fn no_clusters_are_said_in_words() {
        assert_eq!(table(&[]), "no clusters\n");
    }
}
