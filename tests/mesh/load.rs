use crate::failover::gateway_to_addresses;
use crate::harness::{Answer, Client, Mesh, Registry, Service, Sidecar, Target, eventually};

/// One instance of `shop`, balanced like this, and somebody who calls it.
struct Shop {
    registry: Registry,
    caller: Sidecar,
    instance: Sidecar,
    _app: Service,
    /// Its files are there as long as its processes.
    _mesh: Mesh,
}

impl Shop {
    async fn balanced_by(policy: &str) -> Self {
        let mesh = Mesh::new();
        let registry = mesh.registry().await;
        let document = format!(
            "kind: Service\nname: shop\nports: [{{port: 80, protocol: http}}]\nbalance: {policy}\n"
        );
        registry.apply(&document).await;
        let app = Service::start("shop").await;
        let instance = mesh.sidecar("shop-a", "shop", &app, registry.address).await;
        let caller = mesh.caller("caller", registry.address).await;
        caller.reaches("shop", &["shop"]).await;
        Self {
            registry,
            caller,
            instance,
            _app: app,
            _mesh: mesh,
        }
    }

    /// The instance's load, as the caller has been told it.
    async fn told(&self) -> Option<f64> {
        let page = self.caller.admin("/clusters?service=shop&format=json");
        let clusters: serde_json::Value = serde_json::from_str(&page.await.ok()?.body).ok()?;
        clusters[0]["endpoints"][0]["load"].as_f64()
    }

    /// The instance's load, as the registry has been told it.
    async fn listed(&self) -> Option<f64> {
        let path = "/v1/services/default/shop";
        let answer = self.registry.ask(hyper::Method::GET, path, "").await.ok()?;
        let service: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        service["instances"][0]["load"]["factor"].as_f64()
    }
}

fn reports(answer: &Answer) -> Vec<&str> {
    let fields = ["endpoint-load-metrics", "endpoint-load-metrics-bin"];
    let values = fields.iter().filter_map(|name| answer.headers.get(*name));
    values.map(|value| value.to_str().expect("ASCII")).collect()
}

#[tokio::test]
async fn what_an_application_says_of_its_load_reaches_callers_and_the_registry_but_no_application()
{
    let shop = Shop::balanced_by("load_factor").await;
    let mut client = Client::new(shop.caller.target("shop"));
    eventually("the caller knows the load", async || {
        let answer = client.get("/busy").await.expect("an answer");
        assert_eq!((answer.status, reports(&answer)), (200, vec![]));
        (shop.told().await == Some(1.0)).then_some(())
    })
    .await;
    eventually("the registry knows the load", async || {
        client.get("/busy").await.expect("an answer");
        (shop.listed().await == Some(1.0)).then_some(())
    })
    .await;
    let metrics = shop
        .caller
        .admin("/metrics")
        .await
        .expect("it answers")
        .body;
    let mut lines = metrics.lines();
    let load = lines.find(|line| line.starts_with("pillion_endpoint_load{"));
    assert!(
        load.is_some_and(|line| line.contains("default/shop")),
        "{metrics}"
    );
}

#[tokio::test]
async fn where_nobody_goes_by_load_answers_are_left_as_they_are() {
    let shop = Shop::balanced_by("peak_ewma").await;
    let mut client = Client::new(shop.caller.target("shop"));
    let answer = client.get("/busy").await.expect("an answer");
    assert_eq!(reports(&answer), [Service::BUSY]);
    assert!(reports(&client.get("/").await.expect("an answer")).is_empty());
    assert_eq!(shop.told().await, None);
    // Without traffic too: the machine is always there.
    eventually("the registry knows the load", async || shop.listed().await).await;
    assert!(shop.instance.admin("/ready").await.is_ok());
}

#[tokio::test]
async fn how_busy_an_application_is_stays_within_the_mesh() {
    let mesh = Mesh::new();
    let app = Service::start("shop").await;
    let gateway = mesh
        .gateway(|address| gateway_to_addresses(&[app.address], "", address))
        .await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let answer = client.get("/busy").await.expect("an answer");
    assert_eq!((answer.status, &*answer.body), (200, "shop"));
    assert_eq!(reports(&answer), [""; 0]);
}
