//! What an explanation says, as JSON has it.

use serde::Serialize;

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Explained {
    pub request: String,
    /// Where the request is routed.
    pub at: At,
    /// The path that is matched, where it is not the one that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_path: Option<String>,
    /// In the order of precedence; what has another path comes last.
    pub candidates: Vec<Candidate>,
    /// Candidates with another path that are not listed.
    pub more_candidates: usize,
    /// What becomes of the request.
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// Who may get it.
    pub backends: Vec<Backend>,
    pub mirrors: Vec<Mirror>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum At {
    Gateway {
        gateway: String,
        listener: String,
        address: String,
        hostname: Option<String>,
        /// Other sockets with a listener for this host.
        also: Vec<String>,
    },
    Sidecar {
        namespace: String,
        /// The service that the host names.
        service: Option<String>,
        /// `hostname` or `parentRefs`: whose routes apply; None where the service itself is meant.
        routes: Option<&'static str>,
    },
    Nowhere {
        why: String,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Candidate {
    pub kind: &'static str,
    /// `namespace/route/rule`
    pub rule: String,
    /// What it asks for.
    pub matches: String,
    pub taken: bool,
    /// Why it was not taken; empty where it was.
    pub why: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Outcome {
    /// To one of the backends, by their shares.
    Forwarded,
    /// By a filter, in place of a backend.
    Answered {
        status: u16,
        location: Option<String>,
        filter: String,
    },
    /// To where the client was going: the host is none of the mesh.
    Outside,
    /// By the proxy, which has nowhere to send it.
    Refused { status: u16, why: String },
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rule {
    pub rule: String,
    pub filters: Vec<Effect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<String>,
    /// What clients are kept at their endpoint by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// A filter, and what it does to this request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Effect {
    pub filter: &'static str,
    pub effects: Vec<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Backend {
    /// `namespace/name`, with `:port` and `/subset`; None where it does not resolve.
    pub cluster: Option<String>,
    /// Why it does not resolve; its share is answered with 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    pub weight: u32,
    pub share_percent: f64,
    pub filters: Vec<Effect>,
    /// Who gets copies of its requests, beside those of the rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// What the backend is asked for.
    pub asked: String,
    /// The operation of its interface that serves this, or that none does; None where the service declares none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<String>,
    /// The traffic lane that the request names; None where the service has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Those that may get it.
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Endpoint {
    pub address: String,
    pub weight: u32,
    pub priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The traffic lane that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// As on the page `/clusters`; None offline, where nobody has asked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why the state is so; empty for the ordinary one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What the balancer goes by: requests in flight, latency, load.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub score: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Mirror {
    pub cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    pub share_percent: f64,
}
