use std::sync::Arc;

use super::Table;
use super::host::{HostMap, with_canonical};
use crate::model;
use crate::telemetry::metrics::{ListenerRequests, Requests};

/// The listeners that share a socket, told apart by host (or by the name a TLS client asks for).
#[derive(Debug)]
pub struct Listeners<T> {
    hosts: HostMap<ListenerRoutes<T>>,
}

/// One listener with the only routes that apply to its requests.
#[derive(Debug)]
pub struct ListenerRoutes<T> {
    pub listener: Arc<model::Listener>,
    pub requests: ListenerRequests,
    pub table: Table<T>,
}

impl<T> Listeners<T> {
    /// Of two listeners with one hostname, which `config` reports, the first counts.
    pub fn compile(
        listeners: &[Arc<model::Listener>],
        requests: &Requests,
        mut resolve: impl FnMut(&model::ClusterKey) -> T,
    ) -> Self {
        let mut hosts = HostMap::default();
        for listener in listeners {
            hosts.entry(listener.hostname.as_ref(), || {
                let label = format!("{}/{}", listener.gateway, listener.name);
                let requests = requests.listener(&label);
                ListenerRoutes {
                    listener: listener.clone(),
                    table: Table::compile(&listener.routes, &requests, &mut resolve),
                    requests,
                }
            });
        }
        Self { hosts }
    }

    /// The listener of a host (without port): exact hostname, then longest wildcard, then none.
    pub fn find(&self, host: &[u8]) -> Option<&ListenerRoutes<T>> {
        with_canonical(host, |host| self.hosts.matches(host).next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostPattern, Name, OnHalfClose, PathNormalization};

    fn listener(name: &str, hostname: Option<HostPattern>) -> Arc<model::Listener> {
        Arc::new(model::Listener {
            gateway: Name::local("edge"),
            name: name.into(),
            hostname,
            tls: None,
            routes: Vec::new(),
            on_half_close: OnHalfClose::Answer,
            path: PathNormalization::default(),
        })
    }

    #[test]
    fn the_most_specific_listener_takes_the_host() {
        let listeners = Listeners::<()>::compile(
            &[
                listener("any", None),
                listener("wild", Some(HostPattern::Wildcard("shop.com".into()))),
                listener("exact", Some(HostPattern::Exact("a.shop.com".into()))),
            ],
            &Requests::default(),
            |_| (),
        );
        for (host, expected) in [
            ("A.shop.com.", "exact"),
            ("b.a.shop.com", "wild"),
            ("shop.com", "any"),
        ] {
            let found = listeners.find(host.as_bytes()).expect("a listener");
            assert_eq!(&*found.listener.name, expected, "{host}");
        }
    }

    #[test]
    fn without_a_listener_for_the_host_nothing_is_found() {
        let exact = listener("exact", Some(HostPattern::Exact("a.shop.com".into())));
        let listeners = Listeners::<()>::compile(&[exact], &Requests::default(), |_| ());
        assert!(listeners.find(b"b.shop.com").is_none());
    }
}
