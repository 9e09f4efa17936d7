use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Paths;
use super::log::{LogSettings, log};
use crate::config::decode::Fields;
use crate::config::defaults;

/// `registry.yaml`.
#[derive(Clone, PartialEq, Debug)]
pub struct RegistryBootstrap {
    pub address: SocketAddr,
    /// The folder of the store.
    pub data: PathBuf,
    pub tls: Option<RegistryTls>,
    /// A file with the token that callers must show; None asks for none.
    pub token_file: Option<PathBuf>,
    /// Serve beyond loopback without TLS or a token.
    pub insecure: bool,
    /// Revisions of each document that are kept.
    pub history: u32,
    pub instances: InstanceLimits,
    pub log: LogSettings,
}

/// The registry's own certificate, as PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryTls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// When an instance that sends nothing counts as gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstanceLimits {
    pub critical_after: Duration,
    pub remove_after: Duration,
}

impl Default for InstanceLimits {
    fn default() -> Self {
        Self {
            critical_after: defaults::CRITICAL_AFTER,
            remove_after: defaults::REMOVE_AFTER,
        }
    }
}

pub(super) fn read(fields: &mut Fields<'_, '_>, paths: &Paths<'_>) -> Option<RegistryBootstrap> {
    let address = fields.optional("address", |c| c.socket_address());
    let data = fields.optional("data", |c| c.path());
    let tls = fields.optional("tls", |cursor| cursor.fields(|fields| tls(fields, paths)));
    let token_file = fields.optional("token_file", |c| c.path());
    let insecure = fields.optional("insecure", |c| c.boolean());
    let history = fields.optional("history", |cursor| cursor.number(1..=1_000_000));
    let instances = fields.optional("instances", |cursor| cursor.fields(instances));
    let log = fields.optional("log", |cursor| cursor.fields(log));
    let data = data.unwrap_or_else(|| PathBuf::from(defaults::REGISTRY_DATA));
    let registry = RegistryBootstrap {
        address: address.unwrap_or(defaults::REGISTRY_ADDRESS),
        data: paths.resolve("data", data),
        tls,
        token_file: token_file.map(|path| paths.resolve("token_file", path)),
        insecure: insecure.unwrap_or(false),
        history: history.unwrap_or(defaults::HISTORY),
        instances: instances.unwrap_or_default(),
        log: log.unwrap_or_default(),
    };
    check_safety(&registry, fields);
    Some(registry)
}

/// What steers a mesh is not offered to a network without proof of who asks.
fn check_safety(registry: &RegistryBootstrap, fields: &Fields<'_, '_>) {
    let safe = registry.tls.is_some() && registry.token_file.is_some();
    // A `tls` with a problem of its own is not missing.
    let told = fields.has("tls") && fields.has("token_file");
    if registry.address.ip().is_loopback() || safe || told || registry.insecure {
        return;
    }
    let message = format!("{} can be reached from other machines", registry.address);
    let hint = "say `tls` and `token_file`, or `insecure: true` where the network is trusted";
    fields.cursor().error::<()>(message, hint);
}

fn tls(fields: &mut Fields<'_, '_>, paths: &Paths<'_>) -> Option<RegistryTls> {
    let cert = fields.required("cert", |c| c.path());
    let key = fields.required("key", |c| c.path());
    Some(RegistryTls {
        cert: paths.resolve("tls.cert", cert?),
        key: paths.resolve("tls.key", key?),
    })
}

fn instances(fields: &mut Fields<'_, '_>) -> Option<InstanceLimits> {
    let defaults = InstanceLimits::default();
    let critical = fields.optional("critical_after", |c| c.nonzero_duration());
    let remove = fields.optional("remove_after", |c| c.nonzero_duration());
    let limits = InstanceLimits {
        critical_after: critical.unwrap_or(defaults.critical_after),
        remove_after: remove.unwrap_or(defaults.remove_after),
    };
    if limits.remove_after < limits.critical_after {
        let here = fields.cursor();
        return here.error(
            "`remove_after` is shorter than `critical_after`",
            "make it longer",
        );
    }
    Some(limits)
}
