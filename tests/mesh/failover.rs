use crate::harness::{Load, Mesh, Service, Target, documents};

#[tokio::test]
async fn killing_one_of_three_endpoints_under_load_fails_no_idempotent_request() {
    let mesh = Mesh::new();
    let mut services = Vec::new();
    for name in ["a", "b", "c"] {
        services.push(Service::spawn(name, mesh.folder()).await);
    }
    let gateway = mesh.gateway(|address| gateway_to(&services, address)).await;
    let load = Load::start(&Target::direct(gateway.gateway, "shop.test"), "/", 12);
    load.asks(1_000).await;
    services[1].kill();
    load.asks(3_000).await;
    let journal = load.stop().await;
    journal.expect_no_failure();
    assert!(
        ["a", "b", "c"].iter().all(|name| journal.of(name) > 0),
        "{journal:?}"
    );
}

#[tokio::test]
async fn killing_an_application_beside_its_sidecar_fails_no_idempotent_request() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    let shop = "kind: Service\nname: shop\nports: [{port: 80, protocol: http}]\n";
    registry.apply(shop).await;
    let (mut applications, mut sidecars) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let application = Service::spawn(name, mesh.folder()).await;
        let instance = format!("shop-{name}");
        let sidecar = mesh.sidecar(&instance, "shop", &application, registry.address);
        sidecars.push(sidecar.await);
        applications.push(application);
    }
    let caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["a", "b", "c"]).await;
    let load = Load::start(&caller.target("shop"), "/", 12);
    load.asks(1_000).await;
    applications[1].kill();
    load.asks(3_000).await;
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn an_endpoint_that_comes_back_is_used_again() {
    let mesh = Mesh::new();
    let steady = Service::start("steady").await;
    let mut other = Service::spawn("other", mesh.folder()).await;
    let documents = |gateway| {
        gateway_to_addresses(
            &[steady.address, other.address],
            "outlier: {base_ejection: 100ms}\n",
            gateway,
        )
    };
    let gateway = mesh.gateway(documents).await;
    let load = Load::start(&Target::direct(gateway.gateway, "shop.test"), "/", 4);
    load.asks(200).await;
    other.kill();
    load.asks(200).await;
    let before = load.answers_of("other");
    other.start_again(mesh.folder()).await;
    crate::harness::eventually("it answers again", async || {
        (load.answers_of("other") > before + 100).then_some(())
    })
    .await;
    load.stop().await.expect_no_failure();
}

fn gateway_to(services: &[Service], gateway: std::net::SocketAddr) -> String {
    let addresses: Vec<_> = services.iter().map(|service| service.address).collect();
    gateway_to_addresses(&addresses, "", gateway)
}

/// A gateway whose every request goes to one service with these endpoints.
pub fn gateway_to_addresses(
    endpoints: &[std::net::SocketAddr],
    more: &str,
    gateway: std::net::SocketAddr,
) -> String {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|address| format!("{{address: \"{address}\"}}"))
        .collect();
    format!(
        "{}kind: HTTPRoute\nname: shop\nhostnames: [shop.test]\nrules: [{{backendRefs: [{{name: shop, port: 80}}]}}]\n---\n\
         kind: Service\nname: shop\nports: [{{port: 80, protocol: http}}]\nendpoints: [{}]\n{more}",
        documents::edge(gateway),
        endpoints.join(", ")
    )
}
