//! `apps`: the ports of the application beside a sidecar.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::config::yaml::Value;
use crate::model::{AppHealth, AppPort, AppProbe, Name};

/// One of the application's ports.
pub(super) fn app(
    fields: &mut Fields<'_, '_>,
    namespace: &Arc<str>,
    service: Option<&Name>,
) -> Option<AppPort> {
    let own_namespace = fields.optional("namespace", |c| c.namespace());
    let port = fields.required("port", |c| c.port());
    let name = match service {
        Some(service) if !fields.has("service") => {
            fields.optional("service", |c| c.name());
            Some(Arc::clone(&service.name))
        }
        _ => fields.required("service", |c| c.name()),
    };
    let app = fields.optional("app", address);
    let listen = fields.optional("listen", |c| c.socket_address());
    let protocol = fields.optional("protocol", |c| c.protocol());
    let health = fields.optional("health", health);
    let namespace = own_namespace.unwrap_or_else(|| Arc::clone(namespace));
    let port = port?;
    Some(AppPort {
        service: Name {
            namespace,
            name: name?,
        },
        app: app.unwrap_or(SocketAddr::new(defaults::APP_HOST, port)),
        port,
        protocol,
        listen,
        health: health.unwrap_or_else(|| probed_by(AppProbe::Listening)),
    })
}

/// `127.0.0.1:3000`, or `3000` on loopback.
fn address(cursor: Cursor<'_>) -> Option<SocketAddr> {
    match cursor.text()?.parse::<u16>() {
        Ok(_) => Some(SocketAddr::new(defaults::APP_HOST, cursor.port()?)),
        Err(_) => cursor.socket_address(),
    }
}

/// One word, or a mapping with its details.
fn health(cursor: Cursor<'_>) -> Option<AppHealth> {
    if let Value::Mapping(_) = cursor.node.value {
        return cursor.fields(detailed_health);
    }
    let word = cursor.choice(&[
        ("none", None),
        ("listening", Some(false)),
        ("tcp", Some(true)),
    ])?;
    Some(probed_by(match word {
        None => AppProbe::None,
        Some(false) => AppProbe::Listening,
        Some(true) => AppProbe::Tcp,
    }))
}

fn detailed_health(fields: &mut Fields<'_, '_>) -> Option<AppHealth> {
    let http = fields.optional("http", |cursor| {
        cursor.fields(|fields| fields.required("path", |c| c.absolute_path()))
    });
    let tcp = fields.optional("tcp", |cursor| cursor.fields(|_| Some(())));
    if http.is_some() && tcp.is_some() {
        fields
            .cursor()
            .error::<()>("both `http` and `tcp`", "keep one of the two");
    }
    let health = probed_by(match (http, tcp) {
        (Some(path), _) => AppProbe::Http { path },
        (None, Some(())) => AppProbe::Tcp,
        (None, None) => AppProbe::Listening,
    });
    let interval = fields.optional("interval", |c| c.nonzero_duration());
    let timeout = fields.optional("timeout", |c| c.nonzero_duration());
    Some(AppHealth {
        interval: interval.unwrap_or(health.interval),
        timeout: timeout.unwrap_or(health.timeout),
        ..health
    })
}

fn probed_by(probe: AppProbe) -> AppHealth {
    AppHealth {
        interval: match probe {
            AppProbe::Listening => defaults::APP_LISTENING_INTERVAL,
            _ => defaults::APP_HEALTH_INTERVAL,
        },
        timeout: defaults::APP_HEALTH_TIMEOUT,
        probe,
    }
}
