use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A detection or a failover: what a proxy has seen, and what it did.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Counted by whoever lists it: the proxy, or the registry.
    pub id: u64,
    /// RFC 3339, by the proxy's clock.
    pub time: String,
    /// Who has seen it; the registry says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// `namespace/name`, with `/subset` where it is one.
    pub service: String,
    /// The address, where it is about one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The registry's id of that endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// One word: `connect_failed`, `health_check` …
    pub cause: Cow<'static, str>,
    /// What was seen, for people.
    pub evidence: String,
    /// What was done, for people.
    pub action: Cow<'static, str>,
    /// How long it will last, or of what has ended, how long it lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// The latest events, the oldest first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// The id of the newest there is: pass it as `since` to get what comes later.
    pub last: u64,
    pub events: Vec<Event>,
}
