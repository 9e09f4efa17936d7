use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// How a query ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answered from the mesh, with an address or without.
    Mesh,
    /// There is no such name in the mesh.
    Denied,
    /// Answered by an upstream, whatever it said.
    Forwarded,
    /// No upstream answered, or the mesh is not known yet.
    Failed,
    /// More queries are under way than may be.
    Overflow,
    /// It was our own query, redirected back to us.
    Loop,
    /// It is no query.
    Malformed,
}

const OUTCOMES: [(Outcome, &str); 7] = [
    (Outcome::Mesh, "mesh"),
    (Outcome::Denied, "denied"),
    (Outcome::Forwarded, "forwarded"),
    (Outcome::Failed, "failed"),
    (Outcome::Overflow, "overflow"),
    (Outcome::Loop, "loop"),
    (Outcome::Malformed, "malformed"),
];

/// What the metrics say of the name server.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    queries: [Counter; OUTCOMES.len()],
    /// Queries that wait for an upstream.
    pub under_way: Gauge,
}

impl Counts {
    pub fn registered(metrics: &Registry) -> Self {
        let counts = Self {
            under_way: metrics.gauge(
                "pillion_dns_forwarding",
                "Name queries that wait for an upstream's answer.",
            ),
            ..Self::default()
        };
        let read = counts.clone();
        metrics.collect(move |scrape| {
            for (counter, (_, outcome)) in read.queries.iter().zip(OUTCOMES) {
                scrape.counter(
                    "pillion_dns_queries_total",
                    "Name queries, by how they ended.",
                    &[("outcome", outcome)],
                    counter.get(),
                );
            }
        });
        counts
    }

    pub fn count(&self, outcome: Outcome) {
        let counted = self.queries.iter().zip(OUTCOMES);
        for (counter, (of, _)) in counted {
            if of == outcome {
                counter.increment();
            }
        }
    }
}
