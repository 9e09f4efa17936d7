//! What a sidecar registers of the application beside it.

use std::net::SocketAddr;

use crate::api::{InstancePort, Protocol, Registration};
use crate::model::{self, AppPort, Name};

/// One registration per service with all of its ports, each with the instance id that this sidecar gives it.
///
/// A port is reached at the sidecar's own listener for it, or where it has none (interception brings the traffic here) at
/// the application's port; `advertise` is the host by which other machines reach this one.
pub fn registrations(
    sidecar: &str,
    advertise: &str,
    apps: &[AppPort],
) -> Vec<(String, Registration)> {
    let mut registrations: Vec<(Name, String, Registration)> = Vec::new();
    for app in apps {
        let port = InstancePort {
            address: address(advertise, app.listen.unwrap_or(app.app)),
            port: Some(app.port),
            protocol: app.protocol.map(protocol),
        };
        match registrations
            .iter_mut()
            .find(|(service, ..)| *service == app.service)
        {
            Some((.., registration)) => registration.ports.push(port),
            None => registrations.push((
                app.service.clone(),
                instance_id(&app.service, sidecar),
                registration(&app.service, sidecar, port),
            )),
        }
    }
    registrations
        .into_iter()
        .map(|(_, id, registration)| (id, registration))
        .collect()
}

fn registration(service: &Name, sidecar: &str, port: InstancePort) -> Registration {
    Registration {
        namespace: service.namespace.to_string(),
        sidecar: Some(sidecar.to_owned()),
        ..Registration::new(&service.name, vec![port])
    }
}

fn instance_id(service: &Name, sidecar: &str) -> String {
    format!("{}.{}.{sidecar}", service.name, service.namespace)
}

fn address(advertise: &str, listener: SocketAddr) -> String {
    let host = advertise.trim_matches(['[', ']']);
    match host.contains(':') {
        true => format!("[{host}]:{}", listener.port()),
        false => format!("{host}:{}", listener.port()),
    }
}

fn protocol(protocol: model::Protocol) -> Protocol {
    match protocol {
        model::Protocol::Http => Protocol::Http,
        model::Protocol::Http2 => Protocol::Http2,
        model::Protocol::Grpc => Protocol::Grpc,
        model::Protocol::Tcp => Protocol::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn app(service: &str, port: u16, listen: Option<&str>) -> AppPort {
        AppPort {
            service: Name::local(service),
            app: "127.0.0.1:8080".parse().expect("an address"),
            port,
            protocol: Some(model::Protocol::Http),
            listen: listen.map(|listen| listen.parse().expect("an address")),
            health: model::AppHealth {
                probe: model::AppProbe::None,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
            },
        }
    }

    #[test]
    fn the_ports_of_one_service_are_one_instance() {
        let apps = [
            app("cart", 80, Some("0.0.0.0:15080")),
            app("shop", 80, None),
            app("cart", 90, None),
        ];
        let registrations = registrations("pod-7", "10.0.0.7", &apps);
        let ids: Vec<&str> = registrations.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["cart.default.pod-7", "shop.default.pod-7"]);
        let ports: Vec<_> = registrations[0]
            .1
            .ports
            .iter()
            .map(|port| (port.address.as_str(), port.port))
            .collect();
        assert_eq!(
            ports,
            [("10.0.0.7:15080", Some(80)), ("10.0.0.7:8080", Some(90))]
        );
    }

    #[test]
    fn an_ipv6_host_is_bracketed_once() {
        for host in ["2001:db8::7", "[2001:db8::7]"] {
            let registrations = registrations("pod-7", host, &[app("cart", 80, None)]);
            assert_eq!(registrations[0].1.ports[0].address, "[2001:db8::7]:8080");
        }
    }
}
