//! One pod, or one template of pods: whether it gets a sidecar, and where in it that goes.

use serde::Serialize;
use serde_yaml::{Mapping, Value};

use super::LABEL;
use super::additions::{INTERCEPT, PROXY_ID, REGISTRY_VOLUME, SIDECAR, STATE_VOLUME, additions};
use super::settings::{Settings, Style};
use super::wishes::{WishError, Wishes};
use super::yaml::{at, text_at};

/// The annotation without which podman keeps no init container.
const PODMAN_INIT: &str = "io.podman.annotations.init.container.type";

#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The pod with its sidecar.
    Injected(Value),
    Left(Left),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Left {
    #[error("it has no label {LABEL}: enabled")]
    NotAsked,
    #[error("its label {LABEL} is disabled")]
    Disabled,
    #[error("it is on the host's network, where redirect rules would take the node's own traffic")]
    HostNetwork,
    #[error("it runs on Windows")]
    Windows,
}

impl Left {
    /// Whether the pod asked for a sidecar and gets none.
    pub fn surprises(self) -> bool {
        match self {
            Left::NotAsked | Left::Disabled => false,
            Left::HostNetwork | Left::Windows => true,
        }
    }
}

/// Gives a pod its sidecar, if it asks for one; a sidecar from before is replaced.
pub fn inject_pod(pod: &Value, namespace: &str, settings: &Settings) -> Result<Outcome, WishError> {
    if let Some(left) = left(pod)? {
        return Ok(Outcome::Left(left));
    }
    let mut pod = pod.clone();
    remove_ours(&mut pod);
    expect_other_users(&pod)?;
    let additions = additions(settings, &Wishes::of(&pod, namespace)?)?;
    let (intercept, sidecar) = (valued(&additions.intercept), valued(&additions.sidecar));
    match settings.style {
        // First of all, so that the application's own init containers are in the mesh as well.
        Style::Native => {
            list(&mut pod, "initContainers").splice(0..0, [intercept, sidecar]);
        }
        Style::Plain => {
            list(&mut pod, "initContainers").insert(0, intercept);
            list(&mut pod, "containers").push(sidecar);
        }
    }
    list(&mut pod, "volumes").extend(additions.volumes.iter().map(valued));
    Ok(Outcome::Injected(pod))
}

/// Whether a pod has a sidecar.
pub fn is_injected(pod: &Value) -> bool {
    ["initContainers", "containers"]
        .iter()
        .filter_map(|list| at(pod, &["spec", list])?.as_sequence())
        .flatten()
        .any(|container| text_at(container, &["name"]) == Some(SIDECAR))
}

fn left(pod: &Value) -> Result<Option<Left>, WishError> {
    let label = text_at(pod, &["metadata", "labels", LABEL]);
    let host_network = at(pod, &["spec", "hostNetwork"]).and_then(Value::as_bool);
    let windows = text_at(pod, &["spec", "os", "name"]) == Some("windows");
    match label {
        None => Ok(Some(Left::NotAsked)),
        Some("disabled") => Ok(Some(Left::Disabled)),
        Some("enabled") if host_network == Some(true) => Ok(Some(Left::HostNetwork)),
        Some("enabled") if windows => Ok(Some(Left::Windows)),
        Some("enabled") => Ok(None),
        Some(other) => Err(WishError::Label(other.to_owned())),
    }
}

/// What runs as the sidecar's user is taken for the sidecar, and goes past it.
fn expect_other_users(pod: &Value) -> Result<(), WishError> {
    let user = |of: &Value, path: &[&str]| at(of, path).and_then(Value::as_u64);
    let usual = user(pod, &["spec", "securityContext", "runAsUser"]);
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_sequence);
    for container in containers.into_iter().flatten() {
        let own = user(container, &["securityContext", "runAsUser"]);
        if own.or(usual) == Some(PROXY_ID.into()) {
            let name = text_at(container, &["name"]).unwrap_or_default();
            return Err(WishError::ProxysUser(name.to_owned()));
        }
    }
    Ok(())
}

/// Takes out what an earlier injection put in, in whichever style.
fn remove_ours(pod: &mut Value) {
    let is_container = |name: &str| [INTERCEPT, SIDECAR].contains(&name);
    remove_named(pod, "initContainers", is_container);
    remove_named(pod, "containers", is_container);
    // In the plain style the state's name goes on with the service's.
    let is_volume = |name: &str| name.starts_with(STATE_VOLUME) || name == REGISTRY_VOLUME;
    remove_named(pod, "volumes", is_volume);
}

/// Annotates the object around a pod, or takes that back: podman reads it there, and without it waits for the init container to be gone.
pub(super) fn settle_podman(object: &mut Value, style: Style) {
    match style {
        Style::Plain => annotate(object, PODMAN_INIT, "always"),
        Style::Native => remove_annotation(object, PODMAN_INIT),
    }
}

/// The last annotation takes the empty mapping with it.
fn remove_annotation(object: &mut Value, key: &str) {
    let metadata = object.get_mut("metadata").and_then(Value::as_mapping_mut);
    let Some(metadata) = metadata else { return };
    let annotations = metadata.get_mut("annotations");
    if let Some(annotations) = annotations.and_then(Value::as_mapping_mut)
        && annotations.shift_remove(key).is_some()
        && annotations.is_empty()
    {
        metadata.shift_remove("annotations");
    }
}

/// Takes items of these names out of a list of the pod's `spec`, and an empty list with them.
fn remove_named(pod: &mut Value, list: &str, is_ours: impl Fn(&str) -> bool) {
    let spec = pod.get_mut("spec").and_then(Value::as_mapping_mut);
    let Some(spec) = spec else { return };
    let Some(items) = spec.get_mut(list).and_then(Value::as_sequence_mut) else {
        return;
    };
    let before = items.len();
    items.retain(|item| text_at(item, &["name"]).is_none_or(|name| !is_ours(name)));
    if items.is_empty() && before > 0 {
        spec.shift_remove(list);
    }
}

fn annotate(pod: &mut Value, key: &str, value: &str) {
    let metadata = child(mapping(pod), "metadata");
    let annotations = child(mapping(metadata), "annotations");
    mapping(annotations).insert(key.into(), value.into());
}

/// A list of the pod's `spec`, made if it is not there.
fn list<'p>(pod: &'p mut Value, key: &str) -> &'p mut Vec<Value> {
    let spec = child(mapping(pod), "spec");
    let list = child(mapping(spec), key);
    if !list.is_sequence() {
        *list = Value::Sequence(Vec::new());
    }
    list.as_sequence_mut()
        .expect("it was made a sequence just now")
}

fn child<'p>(parent: &'p mut Mapping, key: &str) -> &'p mut Value {
    parent.entry(key.into()).or_insert(Value::Null)
}

fn mapping(value: &mut Value) -> &mut Mapping {
    if !value.is_mapping() {
        *value = Value::Mapping(Mapping::new());
    }
    value
        .as_mapping_mut()
        .expect("it was made a mapping just now")
}

fn valued(part: &impl Serialize) -> Value {
    serde_yaml::to_value(part).expect("structs of texts and numbers always serialize")
}
