//! The routes of a sidecar's outbound traffic: by the service that is called, or by hostname.

use std::collections::HashMap;
use std::sync::Arc;

use super::Table;
use crate::model::{self, Name};
use crate::telemetry::metrics::ListenerRequests;

/// Compiled from the routes of a snapshot for a sidecar of one namespace.
#[derive(Debug)]
pub struct MeshRoutes<T> {
    by_host: Table<T>,
    by_service: HashMap<Name, ServiceRoutes<T>>,
}

/// The routes attached to one service.
#[derive(Debug)]
struct ServiceRoutes<T> {
    /// For the ports that some route names, with the routes that name none.
    by_port: HashMap<u16, Table<T>>,
    /// For all other ports.
    other: Option<Table<T>>,
}

/// A route as attached to a service; None is every port.
type Attached = (Option<u16>, Arc<model::Route>);

impl<T> MeshRoutes<T> {
    pub fn compile(
        routes: &[Arc<model::Route>],
        namespace: &str,
        requests: &ListenerRequests,
        mut resolve: impl FnMut(&model::ClusterKey) -> T,
    ) -> Self {
        let by_hostname = routes.iter().filter(|route| route.parents.is_empty());
        let by_hostname: Vec<_> = by_hostname.cloned().collect();
        let by_service = attached(routes)
            .into_iter()
            .filter_map(|(service, routes)| {
                let routes = in_force(&service, routes, namespace);
                (!routes.is_empty())
                    .then(|| ServiceRoutes::compile(&routes, requests, &mut resolve))
                    .map(|compiled| (service, compiled))
            })
            .collect();
        Self {
            by_host: Table::compile(&by_hostname, requests, &mut resolve),
            by_service,
        }
    }

    /// Routes without parents. Where none is for the host, the service of that name is meant itself.
    pub fn by_host(&self) -> &Table<T> {
        &self.by_host
    }

    /// Whether any route is attached to a service: without, nobody needs to find out which service a request is for.
    pub fn has_attached(&self) -> bool {
        !self.by_service.is_empty()
    }

    /// The routes attached to a service at a port; without any, its traffic goes to the service itself.
    pub fn of_service(&self, service: &Name, port: u16) -> Option<&Table<T>> {
        let routes = self.by_service.get(service)?;
        routes.by_port.get(&port).or(routes.other.as_ref())
    }
}

impl<T> ServiceRoutes<T> {
    fn compile(
        routes: &[Attached],
        requests: &ListenerRequests,
        mut resolve: impl FnMut(&model::ClusterKey) -> T,
    ) -> Self {
        let mut table = |port: Option<u16>| {
            let fitting = routes
                .iter()
                .filter(|(at, _)| at.is_none() || *at == port)
                .map(|(_, route)| route.clone());
            let fitting: Vec<_> = fitting.collect();
            (!fitting.is_empty()).then(|| Table::compile(&fitting, requests, &mut resolve))
        };
        let mut ports: Vec<u16> = routes.iter().filter_map(|(port, _)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        Self {
            other: table(None),
            by_port: ports
                .into_iter()
                .filter_map(|port| Some((port, table(Some(port))?)))
                .collect(),
        }
    }
}

/// Routes by the services they are attached to, there whatever the host is.
fn attached(routes: &[Arc<model::Route>]) -> HashMap<Name, Vec<Attached>> {
    let mut by_service: HashMap<Name, Vec<Attached>> = HashMap::new();
    for route in routes.iter().filter(|route| !route.parents.is_empty()) {
        let everywhere = match route.hostnames.is_empty() {
            true => route.clone(),
            false => Arc::new(model::Route {
                hostnames: Vec::new(),
                ..(**route).clone()
            }),
        };
        for parent in &route.parents {
            let attached = by_service.entry(parent.service.clone()).or_default();
            attached.push((parent.port, everywhere.clone()));
        }
    }
    by_service
}

/// Those of the caller's own namespace where it has any for a service of another one, else those of the service's.
fn in_force(service: &Name, mut routes: Vec<Attached>, caller_namespace: &str) -> Vec<Attached> {
    let of = |namespace: &str| {
        let namespace = Arc::<str>::from(namespace);
        move |(_, route): &Attached| route.name.namespace == namespace
    };
    let chosen = match routes.iter().any(of(caller_namespace)) {
        true => caller_namespace,
        false => &service.namespace,
    };
    routes.retain(of(chosen));
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostPattern, Route, RouteKind, RouteMatch, Rule, ServiceParent, Timeouts};
    use crate::proxy::http::head::RequestHead;
    use crate::proxy::route::{Found, HeadView};
    use crate::telemetry::metrics::Requests;

    fn route(namespace: &str, name: &str, parents: &[Option<u16>]) -> Arc<Route> {
        let rule = Rule {
            name: None,
            matches: vec![RouteMatch::everything()],
            filters: Vec::new(),
            backends: Vec::new(),
            mirrors: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            hedge: None,
            session: None,
        };
        let parent = |port: &Option<u16>| ServiceParent {
            service: Name::new("shop", "cart"),
            port: *port,
        };
        Arc::new(Route {
            kind: RouteKind::Http,
            name: Name::new(namespace, name),
            hostnames: vec![HostPattern::Exact("cart".into())],
            parents: parents.iter().map(parent).collect(),
            created: 0,
            rules: vec![rule],
        })
    }

    fn compile(routes: &[Arc<Route>], namespace: &str) -> MeshRoutes<()> {
        let requests = Requests::default().listener("outbound");
        MeshRoutes::compile(routes, namespace, &requests, |_| ())
    }

    fn found(table: Option<&Table<()>>, host: &str) -> Option<String> {
        let mut head = RequestHead::new();
        head.set_target(b"/").expect("a target");
        head.fields.push(b"Host", host.as_bytes());
        match table?.find(&HeadView::new(&head, b"/")) {
            Found::Rule { rule, .. } => Some(rule.route.name.to_string()),
            Found::NoHost | Found::NoRule => None,
        }
    }

    #[test]
    fn an_attached_route_applies_to_its_service_whatever_the_host() {
        let routes = compile(&[route("shop", "r", &[None])], "web");
        let cart = Name::new("shop", "cart");
        assert_eq!(
            found(routes.of_service(&cart, 80), "x"),
            Some("shop/r".into())
        );
        assert_eq!(found(Some(routes.by_host()), "cart"), None);
        assert!(routes.of_service(&Name::new("shop", "other"), 80).is_none());
    }

    #[test]
    fn a_port_narrows_it() {
        let routes = compile(
            &[route("shop", "b", &[None]), route("shop", "a", &[Some(80)])],
            "web",
        );
        let cart = Name::new("shop", "cart");
        assert_eq!(
            found(routes.of_service(&cart, 80), "x"),
            Some("shop/a".into())
        );
        assert_eq!(
            found(routes.of_service(&cart, 81), "x"),
            Some("shop/b".into())
        );
        let only = compile(&[route("shop", "a", &[Some(80)])], "web");
        assert!(only.of_service(&cart, 81).is_none());
    }

    #[test]
    fn a_callers_own_route_replaces_the_services_for_it_alone() {
        let routes = [
            route("shop", "theirs", &[None]),
            route("web", "ours", &[None]),
        ];
        let cart = Name::new("shop", "cart");
        for (namespace, expected) in [
            ("web", "web/ours"),
            ("other", "shop/theirs"),
            ("shop", "shop/theirs"),
        ] {
            let routes = compile(&routes, namespace);
            let found = found(routes.of_service(&cart, 80), "x");
            assert_eq!(found.as_deref(), Some(expected), "{namespace}");
        }
    }

    #[test]
    fn a_route_without_parents_applies_by_host() {
        let routes = compile(&[route("shop", "r", &[])], "web");
        assert_eq!(found(Some(routes.by_host()), "cart"), Some("shop/r".into()));
        assert_eq!(found(Some(routes.by_host()), "other"), None);
    }
}
