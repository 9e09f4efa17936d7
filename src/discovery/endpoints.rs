//! From the registry's instances to the endpoints that the data plane knows.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;
use tracing::warn;

use crate::api::{Instance, InstancePort, InstanceState};
use crate::model::{Address, Endpoint, EndpointState};

/// The most that an endpoint's weight may be; a larger one means the same.
const WEIGHT_MAX: u32 = 1_000_000;

type Labels = Arc<BTreeMap<Arc<str>, Arc<str>>>;

/// An instance's endpoints, one a port.
pub(super) type Endpoints = SmallVec<[Endpoint; 1]>;

/// Makes endpoints, and lets those with equal labels or zones share them: a hundred thousand instances have few.
#[derive(Default)]
pub(super) struct Converter {
    labels: HashSet<Labels>,
    zones: HashSet<Arc<str>>,
    /// Sets larger than this are swept of what nobody else holds.
    sweep_at: usize,
}

/// Below this many the shared sets are not worth a sweep.
const SWEEP_MIN: usize = 1_024;

impl Converter {
    pub fn endpoints(&mut self, instance: &Instance) -> Endpoints {
        let labels = self.shared_labels(&instance.labels);
        let zone = instance
            .zone
            .as_deref()
            .map(|zone| shared(&mut self.zones, zone));
        let id: Arc<str> = instance.id.as_str().into();
        let endpoint = |port: &InstancePort| {
            let address = parse_address(&port.address);
            if address.is_none() {
                warn!(
                    instance = instance.id,
                    address = port.address,
                    "Skipped an address that cannot be read"
                );
            }
            Some(Endpoint {
                address: address?,
                port: port.port,
                weight: instance.weight.min(WEIGHT_MAX),
                zone: zone.clone(),
                priority: instance.priority,
                labels: labels.clone(),
                state: state(instance.state),
                instance: Some(id.clone()),
            })
        };
        instance.ports.iter().filter_map(endpoint).collect()
    }

    fn shared_labels(&mut self, labels: &BTreeMap<String, String>) -> Labels {
        self.sweep();
        let labels: BTreeMap<Arc<str>, Arc<str>> = labels
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect();
        match self.labels.get(&labels) {
            Some(shared) => shared.clone(),
            None => {
                let shared = Arc::new(labels);
                self.labels.insert(shared.clone());
                shared
            }
        }
    }

    /// Forgets what no endpoint holds any more; amortised over the insertions since the last sweep.
    fn sweep(&mut self) {
        if self.labels.len() + self.zones.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.zones.retain(|zone| Arc::strong_count(zone) > 1);
        self.sweep_at = 2 * (self.labels.len() + self.zones.len());
    }
}

fn shared(strings: &mut HashSet<Arc<str>>, text: &str) -> Arc<str> {
    match strings.get(text) {
        Some(shared) => shared.clone(),
        None => {
            let shared: Arc<str> = text.into();
            strings.insert(shared.clone());
            shared
        }
    }
}

fn state(state: InstanceState) -> EndpointState {
    match state {
        InstanceState::Passing => EndpointState::Passing,
        InstanceState::Warning => EndpointState::Warning,
        InstanceState::Critical => EndpointState::Critical,
        InstanceState::Draining => EndpointState::Draining,
    }
}

/// `host:port` or `[v6]:port`.
fn parse_address(text: &str) -> Option<Address> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(Address::Socket(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(is_name) {
        return None;
    }
    let host = host.to_ascii_lowercase().into();
    port.parse()
        .ok()
        .filter(|port| *port != 0)
        .map(|port| Address::Name { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, addresses: &[&str]) -> Instance {
        let ports: Vec<_> = addresses
            .iter()
            .map(|address| serde_json::json!({"address": address}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "id": id, "namespace": "default", "service": "cart", "ports": ports, "zone": "a", "labels": {"version": "v1"},
        }))
        .expect("an instance")
    }

    #[test]
    fn addresses_are_sockets_or_names_and_anything_else_is_skipped() {
        let addresses = [
            "10.0.0.7:80",
            "[2001:db8::1]:80",
            "Cart.Example:80",
            "cart",
            ":80",
            "a/b:80",
            "x:0",
            "2001:db8::1:80",
        ];
        let endpoints = Converter::default().endpoints(&instance("i", &addresses));
        let read: Vec<String> = endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect();
        assert_eq!(read, ["10.0.0.7:80", "[2001:db8::1]:80", "cart.example:80"]);
    }

    #[test]
    fn equal_labels_and_zones_are_shared_and_forgotten_when_unused() {
        let mut converter = Converter::default();
        let first = converter.endpoints(&instance("a", &["10.0.0.7:80"]));
        let second = converter.endpoints(&instance("b", &["10.0.0.8:80"]));
        assert!(Arc::ptr_eq(&first[0].labels, &second[0].labels));
        for n in 0..3 * SWEEP_MIN {
            let mut other = instance("c", &["10.0.0.9:80"]);
            other.labels.insert("build".into(), n.to_string());
            converter.endpoints(&other);
        }
        assert!(
            converter.labels.len() <= SWEEP_MIN + 1,
            "{}",
            converter.labels.len()
        );
        assert!(converter.labels.contains(&first[0].labels));
    }
}
