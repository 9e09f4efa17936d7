use crate::failover::gateway_to_addresses;
use crate::harness::{Client, Load, Mesh, Service, Target};

#[tokio::test]
async fn a_terminated_sidecar_leaves_without_failing_a_request() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    registry
        .apply("kind: Service\nname: shop\nports: [{port: 80, protocol: http}]\n")
        .await;
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let mut leaving = mesh.sidecar("shop-a", "shop", &a, registry.address).await;
    let _staying = mesh.sidecar("shop-b", "shop", &b, registry.address).await;
    let caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["a", "b"]).await;
    let load = Load::start(&caller.target("shop"), "/", 8);
    load.asks(500).await;
    leaving.process.terminate();
    let status = leaving.process.exit_status().await;
    assert!(status.success(), "{status}: {}", leaving.process.output());
    let before = load.answers_of("a");
    load.asks(500).await;
    assert_eq!(load.answers_of("a"), before, "it has left");
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_terminated_gateway_finishes_what_has_begun() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    let mut gateway = mesh
        .gateway(|gateway| gateway_to_addresses(&[shop.address], "", gateway))
        .await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let slow = tokio::spawn(async move { client.get("/slow").await });
    gateway.has_one_under_way().await;
    gateway.process.terminate();
    let answer = slow
        .await
        .expect("no panic")
        .expect("the request that had begun is answered");
    assert_eq!((answer.status, answer.body.as_str()), (200, "shop"));
    assert_eq!(
        answer.headers["connection"], "close",
        "{:?}",
        answer.headers
    );
    let status = gateway.process.exit_status().await;
    assert!(status.success(), "{status}: {}", gateway.process.output());
}
