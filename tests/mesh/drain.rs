use tokio::process::Command;

use crate::failover::gateway_to_addresses;
use crate::harness::{Client, Load, Mesh, Service, Target, eventually};

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
async fn a_sidecar_that_is_told_to_leave_serves_on_while_nobody_sends_to_it_any_more() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let mut leaving = mesh.sidecar("shop-a", "shop", &a, registry.address).await;
    let _staying = mesh.sidecar("shop-b", "shop", &b, registry.address).await;
    let caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["a", "b"]).await;
    let load = Load::start(&caller.target("shop"), "/", 4);
    load.asks(200).await;
    let mut leave = Command::new(env!("CARGO_BIN_EXE_pillion"));
    let told = leave.args(["leave", "--admin", &leaving.admin.to_string()]);
    let told = told.output().await.expect("pillion runs");
    assert!(told.status.success(), "{told:?}");
    eventually("only b is known", async || {
        let page = caller.admin("/clusters?format=json").await.ok()?;
        let is_known = |instance| page.body.contains(instance);
        (!is_known("default.shop-a") && is_known("default.shop-b")).then_some(())
    })
    .await;
    load.asks(50).await;
    let before = load.answers_of("a");
    load.asks(200).await;
    assert_eq!(load.answers_of("a"), before, "it has left");
    load.stop().await.expect_no_failure();
    // Whoever does not follow the registry is served, and so is the application.
    let answer = Client::new(leaving.target("shop")).get("/").await;
    assert_eq!(answer.expect("it carries traffic").body, "b");
    leaving.process.expect_running();
    leaving.process.terminate();
    let status = leaving.process.exit_status().await;
    assert!(status.success(), "{status}: {}", leaving.process.output());
}

#[tokio::test]
async fn a_terminated_gateway_finishes_what_has_begun() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    let mut gateway = mesh
        .gateway(|gateway| gateway_to_addresses(&[shop.address], "", gateway))
        .await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let slow = tokio::spawn(async move { client.get("/hold").await });
    gateway.has_one_under_way().await;
    gateway.process.terminate();
    eventually("it is not ready any more", async || {
        let ready = gateway.admin("/ready").await.ok()?;
        (ready.status == 503 && ready.body.contains("draining")).then_some(())
    })
    .await;
    shop.release();
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
