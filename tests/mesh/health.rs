use hyper::Method;

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

#[tokio::test]
async fn another_service_takes_over_while_no_endpoint_is_well() {
    let mesh = Mesh::new();
    let (own, spare) = (Service::start("own").await, Service::start("spare").await);
    let documents = |gateway| {
        let more = format!(
            "{CHECK}failover: spare\n---\nkind: Service\nname: spare\n\
             ports: [{{port: 80, protocol: http}}]\nendpoints: [{{address: \"{}\"}}]\n",
            spare.address
        );
        gateway_to_addresses(&[own.address], &more, gateway)
    };
    let gateway = mesh.gateway(documents).await;
    let load = Load::start(&Target::direct(gateway.gateway, "shop.test"), "/", 4);
    load.asks(100).await;
    assert_eq!(load.answers_of("spare"), 0);
    own.is_ill(true);
    becomes(&gateway, &own, "failing").await;
    load.asks(50).await;
    let before = load.answers_of("own");
    load.asks(500).await;
    assert_eq!(load.answers_of("own"), before);
    own.is_ill(false);
    eventually("it takes back", async || {
        (load.answers_of("own") > before + 100).then_some(())
    })
    .await;
    load.stop().await.expect_no_failure();
    let metrics = gateway.admin("/metrics").await.expect("metrics").body;
    let count = metrics.lines().find_map(|line| {
        line.strip_prefix("pillion_upstream_failovers_total{service=\"default/shop\"} ")
    });
    let count = count.and_then(|count| count.parse::<u64>().ok());
    assert!(count.is_some_and(|count| count >= 500), "{count:?}");
}

#[tokio::test]
async fn what_a_sidecar_detects_is_listed_by_it_and_by_its_registry() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    let (one, other) = (Service::start("one").await, Service::start("other").await);
    registry
        .apply(&format!(
            "kind: Service\nname: shop\nports: [{{port: 80, protocol: http}}]\n\
             endpoints: [{{address: \"{}\"}}, {{address: \"{}\"}}]\n{CHECK}",
            one.address, other.address
        ))
        .await;
    let caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["one", "other"]).await;
    other.is_ill(true);
    let listed = eventually("the registry lists it", async || {
        let answer = registry.ask(Method::GET, "/v1/events", "").await.ok()?;
        event_of(&answer.body, &other)
    })
    .await;
    let sidecar = listed["sidecar"].as_str().expect("who it was");
    assert!(
        sidecar.ends_with(&caller.admin.port().to_string()),
        "{sidecar}"
    );
    assert_eq!(listed["evidence"], "GET /healthz was answered with 503");
    let page = caller.admin("/events").await.expect("events").body;
    let own = event_of(&page, &other).expect("the same event");
    assert_eq!(own["time"], listed["time"]);
    let later = format!("/events?since={}", own["id"]);
    let later = caller.admin(&later).await.expect("events").body;
    assert_eq!(event_of(&later, &other), None);
}

/// The event of an endpoint that was taken out.
fn event_of(events: &str, service: &Service) -> Option<serde_json::Value> {
    let events: serde_json::Value = serde_json::from_str(events).ok()?;
    let address = service.address.to_string();
    let mut events = events["events"].as_array()?.iter();
    events
        .find(|event| event["endpoint"] == address.as_str() && event["action"] == "taken out")
        .cloned()
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
