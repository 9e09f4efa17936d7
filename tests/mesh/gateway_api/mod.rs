//! The Gateway API's published features, in the full form of Kubernetes: what its conformance suite asks of HTTPRoute and
//! GRPCRoute, and connections by TLSRoute and TCPRoute. What is ours beyond it has scenarios beside this folder.

mod connections;
mod filters;
mod grpc;
mod http;

use std::net::SocketAddr;

use crate::harness::{Mesh, Service, Sidecar};

/// A gateway with some documents, one listener, and the backends `a`, `b` and `c`.
struct Shop {
    gateway: Sidecar,
    _mesh: Mesh,
    backends: [Service; 3],
}

impl Shop {
    async fn start(documents: &str) -> Self {
        let mesh = Mesh::new();
        let services = [
            Service::start("a").await,
            Service::start("b").await,
            Service::start("c").await,
        ];
        let gateway = mesh
            .gateway(|address| {
                let listeners = [http_listener(address)];
                let backends = backends(&services.each_ref());
                gateway(address, &listeners) + documents + &backends
            })
            .await;
        Self {
            gateway,
            _mesh: mesh,
            backends: services,
        }
    }
}

/// The Gateway `edge` of namespace `infra`, with these listeners (flow mappings without braces), for routes of every namespace.
fn gateway(address: SocketAddr, listeners: &[String]) -> String {
    let open = "allowedRoutes: {namespaces: {from: All}}";
    let listeners = listeners
        .iter()
        .map(|listener| format!("    - {{{listener}, {open}}}\n"));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: pillion}}\n\
         spec: {{controllerName: pillion.dev/mesh}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: infra}}\n\
         spec:\n  gatewayClassName: pillion\n  addresses: [{{type: IPAddress, value: {}}}]\n  listeners:\n{}---\n",
        address.ip(),
        listeners.collect::<String>()
    )
}

fn http_listener(address: SocketAddr) -> String {
    format!("name: http, port: {}, protocol: HTTP", address.port())
}

/// A route of `edge`: `spec` is what it has beside its parents, as a flow mapping without braces.
fn route(kind: &str, name: &str, spec: &str) -> String {
    created_route(kind, name, "2025-01-01T00:00:00Z", spec)
}

fn created_route(kind: &str, name: &str, created: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: shop, creationTimestamp: '{created}'}}\n\
         spec: {{parentRefs: [{{name: edge, namespace: infra}}], {spec}}}\n---\n"
    )
}

/// Kubernetes' Service of the name of each backend, and its endpoints.
fn backends(services: &[&Service]) -> String {
    let one = |service: &&Service| {
        let Service { name, address, .. } = service;
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{{port: 80, targetPort: {port}}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{port: {port}, protocol: TCP}}]\n\
             endpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n---\n",
            port = address.port(),
            ip = address.ip()
        )
    };
    services.iter().map(one).collect()
}

/// A rule: its matches, and the backend.
fn rule(matches: &str, backend: &str) -> String {
    format!("{{matches: [{matches}], backendRefs: [{{name: {backend}, port: 80}}]}}")
}
