//! A proxy is replaced by a new process while it carries traffic: an upgrade.

use crate::failover::gateway_to_addresses;
use crate::harness::{Client, Load, Mesh, Service, Target};

const HANDOVER: &str = "handover: {path: handover.sock}\n";

#[tokio::test]
async fn sidecars_of_both_sides_are_replaced_under_load_and_no_request_fails() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    registry
        .apply("kind: Service\nname: shop\nports: [{port: 80, protocol: http}]\n")
        .await;
    let shop = Service::start("shop").await;
    let mut callee = mesh
        .sidecar("shop-1", "shop", &shop, registry.address)
        .await;
    let mut caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["shop"]).await;
    // The only instance: whenever it is gone, even for a moment, requests fail.
    let load = Load::start(&caller.target("shop"), "/", 8);
    for _ in 0..3 {
        load.asks(200).await;
        mesh.replace(&mut callee).await;
        load.asks(200).await;
        mesh.replace(&mut caller).await;
    }
    load.asks(200).await;
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_by_the_process_that_took_it() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    let documents = |gateway| gateway_to_addresses(&[shop.address], "", gateway);
    let mut gateway = mesh.gateway_with(HANDOVER, documents).await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let mut client = Client::new(target.clone());
    let slow = tokio::spawn(async move { client.get("/slow").await });
    gateway.has_one_under_way().await;
    mesh.replace(&mut gateway).await;
    let answer = slow.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, "shop"));
    let answer = Client::new(target).get("/").await.expect("an answer");
    assert_eq!(answer.body, "shop");
}

#[tokio::test]
async fn a_process_that_cannot_take_over_leaves_the_one_before_as_it_was() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    let documents = |gateway| gateway_to_addresses(&[shop.address], "", gateway);
    let mut gateway = mesh.gateway_with(HANDOVER, documents).await;
    let load = Load::start(&Target::direct(gateway.gateway, "shop.test"), "/", 4);
    mesh.write("mesh.yaml", "kind: Nonsense\n");
    let mut other = mesh.spawn_again(&gateway);
    assert!(!other.exit_status().await.success());
    gateway.says("did not; this one serves on").await;
    load.asks(200).await;
    mesh.write("mesh.yaml", &documents(gateway.gateway));
    mesh.replace(&mut gateway).await;
    load.asks(200).await;
    load.stop().await.expect_no_failure();
}
