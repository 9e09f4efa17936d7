//! What a pod gets: the init container that redirects its traffic, the sidecar, and their volumes, as Kubernetes writes them.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::settings::{Settings, Style};
use super::wishes::{Port, WishError, Wishes};
use crate::config::{SidecarBootstrap, defaults};

/// Names in the pod that are ours.
pub(super) const INTERCEPT: &str = "pillion-intercept";
pub(super) const SIDECAR: &str = "pillion-sidecar";
pub(super) const STATE_VOLUME: &str = "pillion-state";
pub(super) const REGISTRY_VOLUME: &str = "pillion-registry";

/// Characters in the name of a volume (a DNS label, RFC 1123).
const VOLUME_NAME_MAX: usize = 63;

/// The user that the image runs as, whose traffic the rules leave alone.
pub const PROXY_ID: u32 = 1337;
/// Where the image has the binary.
const PROGRAM: &str = "/pillion";
const STATE_FOLDER: &str = "/var/lib/pillion";
const REGISTRY_FOLDER: &str = "/run/secrets/pillion";
/// Set from a label that newer Kubernetes copies from the node; empty where there is none.
const ZONE_FIELD: &str = "metadata.labels['topology.kubernetes.io/zone']";

#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Additions {
    pub intercept: Container,
    pub sidecar: Container,
    pub volumes: Vec<Volume>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    name: &'static str,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_policy: Option<&'static str>,
    args: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<Variable>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<ContainerPort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifecycle: Option<Lifecycle>,
    resources: Resources,
    security_context: SecurityContext,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volume_mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Variable {
    Value {
        name: &'static str,
        value: String,
    },
    Field {
        name: &'static str,
        value_from: ValueFrom,
    },
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ValueFrom {
    field_ref: FieldRef,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FieldRef {
    field_path: &'static str,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: &'static str,
    container_port: u16,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: HttpGet,
    period_seconds: u32,
    timeout_seconds: u32,
    failure_threshold: u32,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct HttpGet {
    path: &'static str,
    port: u16,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    pre_stop: Handler,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Handler {
    exec: Exec,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Exec {
    command: Vec<&'static str>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Resources {
    requests: Amounts,
    limits: Amounts,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Amounts {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    memory: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: u32,
    run_as_group: u32,
    run_as_non_root: bool,
    read_only_root_filesystem: bool,
    allow_privilege_escalation: bool,
    capabilities: Capabilities,
    seccomp_profile: SeccompProfile,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Capabilities {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    add: Vec<&'static str>,
    drop: Vec<&'static str>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct SeccompProfile {
    r#type: &'static str,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    mount_path: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    empty_dir: Option<EmptyDir>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<SecretVolume>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct EmptyDir {}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretVolume {
    secret_name: String,
}

/// The one description of a sidecar in Kubernetes. An error: with these wishes the sidecar would refuse to start.
pub fn additions(settings: &Settings, wishes: &Wishes) -> Result<Additions, WishError> {
    let sidecar = sidecar(settings, wishes);
    check(&sidecar.env)?;
    Ok(Additions {
        intercept: intercept(settings, wishes),
        sidecar,
        volumes: volumes(settings, wishes),
    })
}

/// It alone may change the network, and it ends before anything else starts. nft needs root for that, without any of root's
/// other capabilities.
fn intercept(settings: &Settings, wishes: &Wishes) -> Container {
    Container {
        name: INTERCEPT,
        image: settings.init_image.clone(),
        restart_policy: None,
        args: intercept_args(wishes),
        env: Vec::new(),
        ports: Vec::new(),
        startup_probe: None,
        readiness_probe: None,
        liveness_probe: None,
        lifecycle: None,
        resources: resources("10m", "16Mi", "64Mi"),
        security_context: security(0, vec!["NET_ADMIN"]),
        volume_mounts: Vec::new(),
    }
}

fn intercept_args(wishes: &Wishes) -> Vec<String> {
    // The kubelet's probes and scrapers come to the admin port, which is the sidecar's own.
    let mut inbound = vec![defaults::ADMIN_ADDRESS.port().to_string()];
    inbound.extend(wishes.exclude_inbound_ports.iter().map(ToString::to_string));
    let outbound: Vec<_> = wishes
        .exclude_outbound_ports
        .iter()
        .map(ToString::to_string)
        .collect();
    let cidrs: Vec<_> = wishes
        .exclude_outbound_cidrs
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut args = vec!["apply".to_owned(), format!("--uid={PROXY_ID}")];
    for (flag, values) in [
        ("--exclude-inbound-ports", inbound),
        ("--exclude-outbound-ports", outbound),
        ("--exclude-outbound-cidrs", cidrs),
    ] {
        if !values.is_empty() {
            args.push(format!("{flag}={}", values.join(",")));
        }
    }
    args
}

fn sidecar(settings: &Settings, wishes: &Wishes) -> Container {
    let native = settings.style == Style::Native;
    let admin = defaults::ADMIN_ADDRESS.port();
    let probe = |path, period_seconds, failure_threshold| {
        native.then_some(Probe {
            http_get: HttpGet { path, port: admin },
            period_seconds,
            timeout_seconds: 2,
            failure_threshold,
        })
    };
    Container {
        name: SIDECAR,
        image: settings.image.clone(),
        restart_policy: native.then_some("Always"),
        args: vec!["proxy".to_owned()],
        env: environment(settings, wishes),
        // podman would publish it on the host, where the next pod's could not be.
        ports: match native {
            true => vec![ContainerPort {
                name: "pillion-admin",
                container_port: admin,
            }],
            false => Vec::new(),
        },
        // The application starts when this has succeeded, so it must not wait for the application.
        startup_probe: probe("/started", 1, 120),
        readiness_probe: probe("/ready", 5, 3),
        liveness_probe: probe("/live", 10, 3),
        // Run when the pod's end begins; the signal comes only after the application has ended.
        lifecycle: native.then(|| Lifecycle {
            pre_stop: Handler {
                exec: Exec {
                    command: vec![PROGRAM, "leave"],
                },
            },
        }),
        resources: resources(
            &settings.cpu_request,
            &settings.memory_request,
            &settings.memory_limit,
        ),
        security_context: security(PROXY_ID, Vec::new()),
        volume_mounts: mounts(settings, wishes),
    }
}

/// The bootstrap, every key as a variable.
fn environment(settings: &Settings, wishes: &Wishes) -> Vec<Variable> {
    let drain = drain(wishes.grace_period);
    let mut variables = identity(settings.style, wishes);
    variables.extend([
        value("PILLION_SERVICE", &wishes.service),
        value("PILLION_APPS", apps(&wishes.ports)),
        value("PILLION_LABELS", labels(wishes)),
        value("PILLION_INTERCEPT", "true"),
        // The kubelet's probes come to the pod's address.
        value(
            "PILLION_ADMIN__ADDRESS",
            format!("0.0.0.0:{}", defaults::ADMIN_ADDRESS.port()),
        ),
        value(
            "PILLION_REGISTRY__ADDRESSES",
            format!("[{}]", settings.registry),
        ),
        value("PILLION_SNAPSHOT__PATH", format!("{STATE_FOLDER}/snapshot")),
        value("PILLION_ACCESS_LOG__PATH", "stdout"),
        value(
            "PILLION_DRAIN__ACKNOWLEDGE_TIMEOUT",
            milliseconds(drain.acknowledge),
        ),
        value("PILLION_DRAIN__TIMEOUT", milliseconds(drain.timeout)),
    ]);
    if settings.registry_secret.is_some() {
        variables.push(value(
            "PILLION_REGISTRY__TOKEN_FILE",
            format!("{REGISTRY_FOLDER}/token"),
        ));
        variables.push(value(
            "PILLION_REGISTRY__CA",
            format!("{REGISTRY_FOLDER}/ca.crt"),
        ));
    }
    variables
}

/// Who this instance is, and where. podman knows no field but the name; a plain sidecar finds out its address by itself.
fn identity(style: Style, wishes: &Wishes) -> Vec<Variable> {
    let instance = field("PILLION_INSTANCE", "metadata.name");
    match style {
        Style::Native => vec![
            instance,
            field("PILLION_NAMESPACE", "metadata.namespace"),
            field("PILLION_ADVERTISE", "status.podIP"),
            field("PILLION_ZONE", ZONE_FIELD),
        ],
        Style::Plain => vec![instance, value("PILLION_NAMESPACE", &wishes.namespace)],
    }
}

/// `[{port: 80, app: 8080, protocol: http}]`
fn apps(ports: &[Port]) -> String {
    let app = |port: &Port| {
        let mut app = format!("port: {}", port.port);
        // Writing to a String does not fail.
        if let Some(app_port) = port.app_port {
            let _ = write!(app, ", app: {app_port}");
        }
        if let Some(protocol) = &port.protocol {
            let _ = write!(app, ", protocol: {protocol}");
        }
        format!("{{{app}}}")
    };
    format!("[{}]", ports.iter().map(app).collect::<Vec<_>>().join(", "))
}

/// A JSON object, which is YAML as well.
fn labels(wishes: &Wishes) -> String {
    // Texts by texts always serialize.
    serde_json::to_string(&wishes.labels).unwrap_or_default()
}

struct DrainTimes {
    acknowledge: Duration,
    timeout: Duration,
}

/// What fits into the time that Kubernetes gives a pod: first the peers see it leave, then open requests end, and a rest is kept.
fn drain(grace_period: Duration) -> DrainTimes {
    let acknowledge = defaults::ACKNOWLEDGE_TIMEOUT.min(grace_period / 4);
    let timeout = defaults::DRAIN_TIMEOUT.min((grace_period - acknowledge).mul_f64(0.9));
    DrainTimes {
        acknowledge,
        timeout,
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// podman gives all pods one volume of a name, and a snapshot belongs to one sidecar.
fn state_volume(settings: &Settings, wishes: &Wishes) -> String {
    match settings.style {
        Style::Native => STATE_VOLUME.to_owned(),
        Style::Plain => {
            let name = format!("{STATE_VOLUME}-{}", wishes.service);
            let fits: String = name.chars().take(VOLUME_NAME_MAX).collect();
            fits.trim_end_matches('-').to_owned()
        }
    }
}

fn volumes(settings: &Settings, wishes: &Wishes) -> Vec<Volume> {
    let state = Volume {
        name: state_volume(settings, wishes),
        empty_dir: Some(EmptyDir {}),
        secret: None,
    };
    let secret = |name: &String| Volume {
        name: REGISTRY_VOLUME.to_owned(),
        empty_dir: None,
        secret: Some(SecretVolume {
            secret_name: name.clone(),
        }),
    };
    std::iter::once(state)
        .chain(settings.registry_secret.as_ref().map(secret))
        .collect()
}

fn mounts(settings: &Settings, wishes: &Wishes) -> Vec<Mount> {
    let state = Mount {
        name: state_volume(settings, wishes),
        mount_path: STATE_FOLDER,
        read_only: false,
    };
    let secret = settings.registry_secret.is_some().then_some(Mount {
        name: REGISTRY_VOLUME.to_owned(),
        mount_path: REGISTRY_FOLDER,
        read_only: true,
    });
    std::iter::once(state).chain(secret).collect()
}

/// No limit of CPU: throttled, a sidecar makes every request of its application late.
fn resources(cpu: &str, memory: &str, memory_limit: &str) -> Resources {
    Resources {
        requests: Amounts {
            cpu: Some(cpu.to_owned()),
            memory: memory.to_owned(),
        },
        limits: Amounts {
            cpu: None,
            memory: memory_limit.to_owned(),
        },
    }
}

fn security(user: u32, capabilities: Vec<&'static str>) -> SecurityContext {
    SecurityContext {
        run_as_user: user,
        run_as_group: user,
        run_as_non_root: user != 0,
        read_only_root_filesystem: true,
        allow_privilege_escalation: false,
        capabilities: Capabilities {
            add: capabilities,
            drop: vec!["ALL"],
        },
        seccomp_profile: SeccompProfile {
            r#type: "RuntimeDefault",
        },
    }
}

fn value(name: &'static str, value: impl Into<String>) -> Variable {
    Variable::Value {
        name,
        value: value.into(),
    }
}

fn field(name: &'static str, field_path: &'static str) -> Variable {
    Variable::Field {
        name,
        value_from: ValueFrom {
            field_ref: FieldRef { field_path },
        },
    }
}

/// Reads the variables as the sidecar will, with examples for what only Kubernetes knows.
fn check(variables: &[Variable]) -> Result<(), WishError> {
    let pair = |variable: &Variable| match variable {
        Variable::Value { name, value } => ((*name).to_owned(), value.clone()),
        Variable::Field { name, value_from } => {
            let value = match value_from.field_ref.field_path {
                "status.podIP" => "192.0.2.1",
                ZONE_FIELD => "",
                _ => "example",
            };
            ((*name).to_owned(), value.to_owned())
        }
    };
    match SidecarBootstrap::read(None, variables.iter().map(pair)) {
        Ok(_) => Ok(()),
        Err(problems) => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Err(WishError::Bootstrap(problems.join("; ")))
        }
    }
}
