//! What a pod says about its sidecar, in labels and annotations.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde_yaml::Value;

use super::additions::PROXY_ID;
use super::yaml::{at, text_at};
use super::{LABEL, PREFIX};
use crate::base::cidr::Cidr;
use crate::intercept::PortRange;

/// Annotations of a pod, after [`PREFIX`].
const SERVICE: &str = "service";
const PORTS: &str = "ports";
const EXCLUDE_INBOUND_PORTS: &str = "exclude-inbound-ports";
const EXCLUDE_OUTBOUND_PORTS: &str = "exclude-outbound-ports";
const EXCLUDE_OUTBOUND_CIDRS: &str = "exclude-outbound-cidrs";
const ANNOTATIONS: [&str; 5] = [
    SERVICE,
    PORTS,
    EXCLUDE_INBOUND_PORTS,
    EXCLUDE_OUTBOUND_PORTS,
    EXCLUDE_OUTBOUND_CIDRS,
];

/// Labels that name the service, the first that is there.
const SERVICE_LABELS: [&str; 2] = ["app.kubernetes.io/name", "app"];
/// Labels that controllers add to tell pods apart: no subset is made of them.
const CONTROLLER_LABELS: [&str; 6] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "controller-uid",
    "job-name",
    "statefulset.kubernetes.io/pod-name",
];
const CONTROLLER_LABEL_PREFIXES: [&str; 2] = ["batch.kubernetes.io/", "apps.kubernetes.io/"];

/// How long Kubernetes lets a pod end that does not say.
const GRACE_PERIOD: u64 = 30;

/// What is particular to one pod's sidecar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wishes {
    /// Where the pod is, as far as the file says; a native sidecar asks Kubernetes.
    pub namespace: String,
    /// The service that the pod is an instance of.
    pub service: String,
    /// The application's ports; the sidecar of a pod without any registers nothing.
    pub ports: Vec<Port>,
    /// What endpoints are told apart by.
    pub labels: BTreeMap<String, String>,
    pub exclude_inbound_ports: Vec<PortRange>,
    pub exclude_outbound_ports: Vec<PortRange>,
    pub exclude_outbound_cidrs: Vec<Cidr>,
    /// From the pod's end being asked for until what still runs is killed.
    pub grace_period: Duration,
}

/// `PORT[:APP_PORT][/PROTOCOL]`: the service's port, where the application listens if elsewhere, and what it speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    pub port: u16,
    pub app_port: Option<u16>,
    pub protocol: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WishError {
    #[error("annotation {PREFIX}{annotation}: `{value}`: {problem}")]
    Value {
        annotation: &'static str,
        value: String,
        problem: String,
    },
    #[error("annotation {PREFIX}{name} means nothing; there are: {}", ANNOTATIONS.join(", "))]
    Unknown { name: String },
    #[error("label {LABEL}: `{0}`; write enabled or disabled")]
    Label(String),
    #[error("its sidecar would not start: {0}")]
    Bootstrap(String),
    #[error(
        "container {0} runs as user {PROXY_ID}, which is the sidecar's: nothing it sends would be redirected. Give it another securityContext.runAsUser"
    )]
    ProxysUser(String),
    #[error("a plain sidecar would keep a Job from ending; use --style native")]
    PlainJob,
}

impl Wishes {
    /// Reads a pod, or a template of pods, in a namespace.
    pub fn of(pod: &Value, namespace: &str) -> Result<Self, WishError> {
        let annotations = Annotations::of(pod)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            service: match annotations.get(SERVICE) {
                Some(service) => service.to_owned(),
                None => service_of(pod),
            },
            ports: match annotations.get(PORTS) {
                Some(_) => annotations.list(PORTS)?,
                None => container_ports(pod),
            },
            labels: labels_of(pod),
            exclude_inbound_ports: annotations.list(EXCLUDE_INBOUND_PORTS)?,
            exclude_outbound_ports: annotations.list(EXCLUDE_OUTBOUND_PORTS)?,
            exclude_outbound_cidrs: annotations.list(EXCLUDE_OUTBOUND_CIDRS)?,
            grace_period: grace_period(pod),
        })
    }
}

/// Our annotations of a pod, by their names after the prefix.
struct Annotations<'p>(BTreeMap<&'static str, &'p str>);

impl<'p> Annotations<'p> {
    fn of(pod: &'p Value) -> Result<Self, WishError> {
        let mut found = BTreeMap::new();
        for (key, value) in texts(at(pod, &["metadata", "annotations"])) {
            let Some(name) = key.strip_prefix(PREFIX) else {
                continue;
            };
            match ANNOTATIONS.iter().find(|annotation| **annotation == name) {
                Some(annotation) => found.insert(*annotation, value),
                None => {
                    return Err(WishError::Unknown {
                        name: name.to_owned(),
                    });
                }
            };
        }
        Ok(Self(found))
    }

    fn get(&self, annotation: &'static str) -> Option<&'p str> {
        self.0.get(annotation).copied()
    }

    /// Values between commas.
    fn list<T: FromStr<Err: Display>>(
        &self,
        annotation: &'static str,
    ) -> Result<Vec<T>, WishError> {
        let whole = self.get(annotation).unwrap_or_default();
        let values = whole
            .split(',')
            .map(str::trim)
            .filter(|value| !value.is_empty());
        let read = |value: &str| {
            value.parse().map_err(|problem: T::Err| WishError::Value {
                annotation,
                value: value.to_owned(),
                problem: problem.to_string(),
            })
        };
        values.map(read).collect()
    }
}

impl FromStr for Port {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ports, protocol) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, Some(protocol)),
            None => (text, None),
        };
        let (port, app_port) = match ports.split_once(':') {
            Some((port, app_port)) => (port, Some(app_port)),
            None => (ports, None),
        };
        let number = |text: &str| match text.parse() {
            Ok(0) | Err(_) => {
                Err("write PORT, PORT:APP_PORT or PORT/PROTOCOL, such as 80:8080/http")
            }
            Ok(port) => Ok(port),
        };
        match protocol {
            None | Some("http" | "http2" | "grpc" | "tcp") => Ok(Self {
                port: number(port)?,
                app_port: app_port.map(number).transpose()?,
                protocol: protocol.map(str::to_owned),
            }),
            Some(_) => Err("the protocol is http, http2, grpc or tcp; left out, it is detected"),
        }
    }
}

/// The name in the labels, else that of the first container.
fn service_of(pod: &Value) -> String {
    let label = |name| text_at(pod, &["metadata", "labels", name]);
    let named = SERVICE_LABELS.into_iter().find_map(label);
    let first = || text_at(containers(pod).first()?, &["name"]);
    named.or_else(first).unwrap_or("unnamed").to_owned()
}

/// Every TCP port that a container says it listens on.
fn container_ports(pod: &Value) -> Vec<Port> {
    let ports = containers(pod)
        .iter()
        .filter_map(|container| at(container, &["ports"])?.as_sequence())
        .flatten()
        .filter(|port| text_at(port, &["protocol"]).unwrap_or("TCP") == "TCP");
    let numbers = ports.filter_map(|port| at(port, &["containerPort"])?.as_u64());
    let mut found: Vec<Port> = Vec::new();
    for port in numbers.filter_map(|number| u16::try_from(number).ok()) {
        if found.iter().all(|known| known.port != port) {
            found.push(Port {
                port,
                app_port: None,
                protocol: None,
            });
        }
    }
    found
}

fn containers(pod: &Value) -> &[Value] {
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_sequence);
    containers.map_or(&[], Vec::as_slice)
}

fn labels_of(pod: &Value) -> BTreeMap<String, String> {
    texts(at(pod, &["metadata", "labels"]))
        .filter(|(key, _)| !key.starts_with(PREFIX) && !is_controllers(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn is_controllers(label: &str) -> bool {
    let prefixed = CONTROLLER_LABEL_PREFIXES
        .iter()
        .any(|prefix| label.starts_with(prefix));
    prefixed || CONTROLLER_LABELS.contains(&label)
}

fn grace_period(pod: &Value) -> Duration {
    let given = at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_u64);
    Duration::from_secs(given.unwrap_or(GRACE_PERIOD))
}

/// The entries of a mapping whose values are texts.
fn texts(mapping: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    let entries = mapping.and_then(Value::as_mapping);
    let entries = entries.into_iter().flat_map(|entries| entries.iter());
    entries.filter_map(|(key, value)| Some((key.as_str()?, value.as_str()?)))
}
