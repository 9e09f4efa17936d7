use crate::failover::gateway_to_addresses;
use crate::harness::{Client, Mesh, Service, Sidecar, Target, eventually};

const HEDGE: &str = "hedge: {after: 50ms, extra_percent: 100}";

/// A gateway in front of both, which speaks this protocol to them.
async fn gateway(mesh: &Mesh, services: [&Service; 2], protocol: &str) -> Sidecar {
    let addresses = services.map(|service| service.address);
    let documents = |gateway| {
        gateway_to_addresses(&addresses, "balance: round_robin\n", gateway)
            .replace("port: 80}]}]", &format!("port: 80}}], {HEDGE}}}]"))
            .replace("protocol: http}", &format!("protocol: {protocol}}}"))
    };
    mesh.gateway_with("access_log: {path: access.log}\n", documents)
        .await
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_costs_a_hedged_request_nothing_but_a_moment() {
    for protocol in ["http", "http2"] {
        let mesh = Mesh::new();
        let (stuck, well) = (Service::start("stuck").await, Service::start("well").await);
        well.release();
        let gateway = gateway(&mesh, [&stuck, &well], protocol).await;
        let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
        for _ in 0..6 {
            let answer = client.get("/hold").await.expect("an answer");
            assert_eq!((answer.status, answer.body.as_str()), (200, "well"));
        }
        let metrics = gateway.admin("/metrics").await.expect("it answers").body;
        let won = "pillion_hedges_total{service=\"default/shop\",result=\"won\"} ";
        let won = metrics.lines().find_map(|line| line.strip_prefix(won));
        assert!(won.is_some_and(|won| won != "0"), "{protocol}: {metrics}");
        let log = mesh.folder().join("access.log");
        eventually("the log says so", async || {
            let log = std::fs::read_to_string(&log).ok()?;
            let words = "hedged after 50ms; the second endpoint answered first";
            (log.contains(words) && log.contains("\"attempts\":2")).then_some(())
        })
        .await;
        eventually(
            "no endpoint has anything left, or to answer for",
            async || {
                let page = gateway.admin("/clusters?format=json").await.ok()?.body;
                let page: serde_json::Value = serde_json::from_str(&page).ok()?;
                let endpoints = page[0]["endpoints"].as_array()?;
                let blameless = |endpoint: &serde_json::Value| {
                    endpoint["in_flight"] == 0 && endpoint["failures"] == 0
                };
                (endpoints.len() == 2 && endpoints.iter().all(blameless)).then_some(())
            },
        )
        .await;
    }
}

#[tokio::test]
async fn an_endpoint_that_is_lost_in_the_race_leaves_it_to_the_other() {
    let mesh = Mesh::new();
    let (mut lost, well) = (
        Service::spawn("lost", mesh.folder()).await,
        Service::start("well").await,
    );
    let gateway = gateway(&mesh, [&lost, &well], "http").await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut client = Client::new(target.clone());
        asking.spawn(async move { client.get("/hold").await.expect("an answer") });
    }
    eventually("both requests are at both endpoints", async || {
        let page = gateway.admin("/clusters?format=json").await.ok()?.body;
        (page.matches("\"in_flight\": 2").count() == 2).then_some(())
    })
    .await;
    lost.kill();
    eventually("only the other has them", async || {
        let page = gateway.admin("/clusters?format=json").await.ok()?.body;
        (page.matches("\"in_flight\": 2").count() == 1).then_some(())
    })
    .await;
    well.release();
    while let Some(answer) = asking.join_next().await {
        let answer = answer.expect("no panic");
        assert_eq!((answer.status, answer.body.as_str()), (200, "well"));
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_fast_does_not_win_against_one_that_is_slow() {
    let mesh = Mesh::new();
    let (slow, failing) = (
        Service::start("slow").await,
        Service::start("failing").await,
    );
    failing.is_ill(true);
    failing.release();
    let gateway = gateway(&mesh, [&slow, &failing], "http").await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut client = Client::new(target.clone());
        asking.spawn(async move { client.get("/hold").await.expect("an answer").status });
    }
    // Of the two that are asked first, the slow one has a hedge, which the failing one has answered.
    eventually("only the slow one is still asked", async || {
        let metrics = gateway.admin("/metrics").await.ok()?.body;
        let attempts = "pillion_upstream_attempts_total{service=\"default/shop\"} 3";
        let page = gateway.admin("/clusters?format=json").await.ok()?.body;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        let endpoints = page[0]["endpoints"].as_array()?;
        let in_flight = endpoints
            .iter()
            .map(|endpoint| endpoint["in_flight"].as_u64());
        let left: u64 = in_flight.sum::<Option<u64>>()?;
        (metrics.contains(attempts) && left == 1).then_some(())
    })
    .await;
    slow.release();
    let mut answers = asking.join_all().await;
    answers.sort_unstable();
    assert_eq!(answers, [200, 503]);
}
