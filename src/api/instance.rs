use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// `PUT /v1/instances/{id}`: what an instance says of itself. Sent again it replaces what was there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Registration {
    #[serde(default = "default_namespace")]
    pub namespace: String,
    pub service: String,
    /// Where it is reached, one per port that the application serves; at least one.
    pub ports: Vec<InstancePort>,
    /// What subsets select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// 0 is used first.
    #[serde(default)]
    pub priority: u8,
    /// A share against the service's other instances, 0..=1,000,000; 0 gets no new traffic.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// The sidecar that sends its frames; None is an instance that renews itself with plain heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// What it begins as; `passing` when absent.
    #[serde(default)]
    pub state: InstanceState,
    /// Without a frame or heartbeat for this long it is `critical`; the registry's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_after_seconds: Option<u32>,
    /// Without one for this long it is removed (see the guards in `registry::instances`); the registry's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_after_seconds: Option<u32>,
    /// Fields of a newer version, carried on as they came.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Registration {
    /// A passing instance of `service` in the namespace `default`, with every default.
    pub fn new(service: &str, ports: Vec<InstancePort>) -> Self {
        Self {
            namespace: default_namespace(),
            service: service.to_owned(),
            ports,
            labels: BTreeMap::new(),
            zone: None,
            priority: 0,
            weight: default_weight(),
            sidecar: None,
            state: InstanceState::Passing,
            critical_after_seconds: None,
            removed_after_seconds: None,
            unknown: BTreeMap::new(),
        }
    }
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn default_weight() -> u32 {
    1
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstancePort {
    /// `host:port` (`[v6]:port`) as others reach it: the sidecar's inbound listener, or the application itself.
    pub address: String,
    /// The service port it serves; absent serves every port of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Absent is detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    Tcp,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    #[default]
    Passing,
    Warning,
    /// Used only when nothing better is left.
    Critical,
    /// Finishes what it holds and gets nothing new.
    Draining,
}

impl InstanceState {
    pub const ALL: [InstanceState; 4] =
        [Self::Passing, Self::Warning, Self::Critical, Self::Draining];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Draining => "draining",
        }
    }
}

impl FromStr for InstanceState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// `PUT /v1/instances/{id}/state`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateChange {
    pub state: InstanceState,
}

/// What registering, deregistering and a state change answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registered {
    pub id: String,
    /// The store's revision that holds the change; wait for it with [`super::Client::acknowledged`].
    pub revision: u64,
}

/// An instance as the registry knows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    pub namespace: String,
    pub service: String,
    pub ports: Vec<InstancePort>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default)]
    pub priority: u8,
    #[serde(default = "default_weight")]
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// What others go by: what the instance reports, or `critical` while its frames are missing.
    #[serde(default, deserialize_with = "tolerant_state")]
    pub state: InstanceState,
    /// What the instance last said of itself, where the registry overrules it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "tolerant_reported"
    )]
    pub reported: Option<InstanceState>,
    #[serde(default)]
    pub critical_after_seconds: u32,
    #[serde(default)]
    pub removed_after_seconds: u32,
    /// The load of its last frame; in reads only, never stored and never in a watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Fields of a newer version, carried on as they came.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// A state this version has no word for is neither good nor bad.
fn tolerant_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<InstanceState, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.parse().unwrap_or(InstanceState::Warning))
}

fn tolerant_reported<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<InstanceState>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| text.parse().unwrap_or(InstanceState::Warning)))
}

/// How busy an instance is, each a share in 0..=1 of what it has; absent where it cannot be measured.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<f64>,
    /// What the application says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<f64>,
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// The load factor: what is nearest to its limit, where memory counts from 80 % on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
}

/// `GET /v1/services`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Services {
    pub revision: u64,
    pub services: Vec<ServiceSummary>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceSummary {
    pub namespace: String,
    pub name: String,
    pub instances: usize,
    #[serde(default)]
    pub passing: usize,
    #[serde(default)]
    pub warning: usize,
    #[serde(default)]
    pub critical: usize,
    #[serde(default)]
    pub draining: usize,
}

/// `GET /v1/services/{namespace}/{name}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServiceInstances {
    pub namespace: String,
    pub name: String,
    /// Pass it back as `index` to wait for the next change.
    pub index: u64,
    pub instances: Vec<Instance>,
}
