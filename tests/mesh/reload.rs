use crate::failover::gateway_to_addresses;
use crate::harness::{Client, Load, Mesh, Service, Target, eventually};

/// The reloads of the contract in `design.md`, section 10.
const RELOADS: usize = 200;

#[tokio::test]
async fn reloading_a_document_200_times_under_load_fails_nothing() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    let gateway = mesh.gateway(|gateway| documents(&shop, 0, gateway)).await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let load = Load::start(&target, "/", 8);
    let mut probe = Client::new(target);
    for revision in 1..=RELOADS {
        mesh.write("mesh.yaml", &documents(&shop, revision, gateway.gateway));
        let wanted = revision.to_string();
        eventually(&format!("reload {revision} is in effect"), async || {
            let answer = probe.get("/").await.expect("the gateway answers");
            (answer.headers.get("x-revision")?.to_str().ok()? == wanted).then_some(())
        })
        .await;
    }
    let journal = load.stop().await;
    journal.expect_no_failure();
    assert!(journal.total() > RELOADS, "{journal:?}");
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_is_shown() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    let gateway = mesh.gateway(|gateway| documents(&shop, 1, gateway)).await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let load = Load::start(&target, "/", 4);
    mesh.write(
        "mesh.yaml",
        &documents(&shop, 2, gateway.gateway).replace("backendRefs", "backendRef"),
    );
    let problems = eventually("the problem is shown", async || {
        let page = gateway.admin("/config/problems").await.ok()?;
        page.body.contains("backendRef").then_some(page.body)
    })
    .await;
    assert!(problems.contains("mesh.yaml"), "{problems}");
    load.asks(500).await;
    let answer = Client::new(target)
        .get("/")
        .await
        .expect("the gateway answers");
    assert_eq!(
        answer.headers["x-revision"], "1",
        "the last good one serves on"
    );
    load.stop().await.expect_no_failure();
}

fn documents(shop: &Service, revision: usize, gateway: std::net::SocketAddr) -> String {
    gateway_to_addresses(&[shop.address], "", gateway).replace(
        "rules: [{",
        &format!("rules: [{{filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-revision, value: \"{revision}\"}}]}}}}], "),
    )
}
