use crate::failover::gateway_to_addresses;
use crate::harness::{Load, Mesh, Service, Sidecar, Target, eventually};

const CHECK: &str = "health: {http: {path: /healthz}, interval: 50ms, healthy_threshold: 1, unhealthy_threshold: 1}\n";

#[tokio::test]
async fn an_endpoint_that_says_it_is_ill_gets_no_request_until_it_is_well() {
    let mesh = Mesh::new();
    let (one, other) = (Service::start("one").await, Service::start("other").await);
    let addresses = [one.address, other.address];
    let documents = |gateway| gateway_to_addresses(&addresses, CHECK, gateway);
    let gateway = mesh.gateway(documents).await;
    let load = Load::start(&Target::direct(gateway.gateway, "shop.test"), "/", 4);
    load.asks(100).await;
    other.is_ill(true);
    becomes(&gateway, &other, "failing").await;
    // What was on its way is answered.
    load.asks(50).await;
    let before = load.answers_of("other");
    load.asks(500).await;
    assert_eq!(load.answers_of("other"), before);
    other.is_ill(false);
    eventually("it answers again", async || {
        (load.answers_of("other") > before + 100).then_some(())
    })
    .await;
    load.stop().await.expect_no_failure();
    let metrics = gateway.admin("/metrics").await.expect("metrics").body;
    let passing = format!(
        "pillion_endpoint_health_passing{{service=\"default/shop\",port=\"80\",endpoint=\"{}\"}} 1",
        other.address
    );
    assert!(metrics.contains(&passing), "{metrics}");
}

/// Waits until the proxy says so of this endpoint.
async fn becomes(proxy: &Sidecar, service: &Service, state: &str) {
    let address = service.address.to_string();
    eventually(&format!("{address} becomes {state}"), async || {
        let answer = proxy.admin("/clusters?format=json").await.ok()?;
        let clusters: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        let mut endpoints = clusters[0]["endpoints"].as_array()?.iter();
        endpoints
            .any(|endpoint| endpoint["address"] == address.as_str() && endpoint["state"] == state)
            .then_some(())
    })
    .await;
}
