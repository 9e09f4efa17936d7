use std::net::SocketAddr;

use crate::harness::{Load, Mesh, Service, Target, documents};

#[tokio::test]
async fn a_canary_gets_its_share() {
    let mesh = Mesh::new();
    let (stable, canary) = (
        Service::start("stable").await,
        Service::start("canary").await,
    );
    let gateway = mesh
        .gateway(|gateway| split(&stable, &canary, 90, 10, gateway))
        .await;
    let load = Load::start(&Target::direct(gateway.gateway, "shop.test"), "/", 8);
    load.asks(4_000).await;
    let journal = load.stop().await;
    journal.expect_no_failure();
    // A tenth of 4,000 with a standard deviation of 19; six of them either way never fail by chance.
    let share = journal.of("canary") as f64 / journal.total() as f64;
    assert!(
        (0.07..0.13).contains(&share),
        "the canary got {share:.3}: {journal:?}"
    );
}

#[tokio::test]
async fn weight_zero_gets_nothing() {
    let mesh = Mesh::new();
    let (stable, canary) = (
        Service::start("stable").await,
        Service::start("canary").await,
    );
    let gateway = mesh
        .gateway(|gateway| split(&stable, &canary, 1, 0, gateway))
        .await;
    let load = Load::start(&Target::direct(gateway.gateway, "shop.test"), "/", 4);
    load.asks(500).await;
    let journal = load.stop().await;
    journal.expect_no_failure();
    assert_eq!(journal.of("canary"), 0);
}

/// One service with two subsets, and a route that splits between them.
fn split(
    stable: &Service,
    canary: &Service,
    stable_weight: u32,
    canary_weight: u32,
    gateway: SocketAddr,
) -> String {
    format!(
        "{}kind: HTTPRoute\nname: shop\nhostnames: [shop.test]\nrules:\n  - backendRefs:\n      \
         - {{name: shop-v1, port: 80, weight: {stable_weight}}}\n      - {{name: shop-v2, port: 80, weight: {canary_weight}}}\n---\n\
         kind: Service\nname: shop\nports: [{{port: 80, protocol: http}}]\n\
         subsets: {{shop-v1: {{version: v1}}, shop-v2: {{version: v2}}}}\nendpoints:\n  \
         - {{address: \"{}\", labels: {{version: v1}}}}\n  - {{address: \"{}\", labels: {{version: v2}}}}\n",
        documents::edge(gateway),
        stable.address,
        canary.address
    )
}
