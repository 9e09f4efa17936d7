use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failover::gateway_to_addresses;
use crate::harness::{
    Answer, Client, Load, Mesh, Service, Sidecar, Target, eventually, free_address,
};

#[tokio::test]
async fn a_service_that_fails_is_spared_and_its_clients_are_told_why_and_until_when() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    shop.fails(true);
    let circuit = "circuit: {breaker: {consecutive_failures: 5, open: 1h, open_max: 1h}}\n";
    let gateway = gateway_to(&mesh, &shop, circuit).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    for _ in 0..5 {
        assert_eq!(get(&mut client).await.body, "shop");
    }
    let refused = get(&mut client).await;
    assert_eq!(refused.status, 503);
    let why = "the circuit of default/shop is open: 5 failures in a row; tried again in ";
    assert!(
        refused.body.contains(why) && refused.body.contains("(UO)"),
        "{refused:?}"
    );
    let seconds: u64 = header(&refused, "retry-after").parse().expect("seconds");
    assert!((1..=3_960).contains(&seconds), "{seconds}");
    assert!(header(&refused, "proxy-status").contains("error=destination_unavailable"));
    assert_eq!(shop.asked(), 5);

    metric(
        &gateway,
        "pillion_circuit_open{service=\"default/shop\",port=\"80\"} 1",
    )
    .await;
    metric(
        &gateway,
        "pillion_circuit_refused_total{service=\"default/shop\",port=\"80\"} 1",
    )
    .await;
    let page = gateway.admin("/clusters").await.expect("a page").body;
    assert!(page.contains("circuit open: 5 failures in a row"), "{page}");
    let events = gateway.admin("/events").await.expect("a page").body;
    assert!(events.contains("circuit opened"), "{events}");
}

#[tokio::test]
async fn a_circuit_closes_by_itself_once_the_service_is_well() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    shop.fails(true);
    let circuit = "circuit: {breaker: {consecutive_failures: 5, open: 50ms, open_max: 50ms}}\n";
    let gateway = gateway_to(&mesh, &shop, circuit).await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let load = Load::start(&target, "/", 4);
    load.asks(200).await;
    shop.fails(false);
    load.asks(200).await;
    eventually("the circuit is closed", async || {
        let metrics = gateway.admin("/metrics").await.ok()?.body;
        let closed = "pillion_circuit_open{service=\"default/shop\",port=\"80\"} 0";
        metrics.lines().any(|line| line == closed).then_some(())
    })
    .await;
    load.stop().await;
    let load = Load::start(&target, "/", 4);
    load.asks(200).await;
    load.stop().await.expect_no_failure();
    for to in ["open", "half_open", "closed"] {
        let metrics = gateway.admin("/metrics").await.expect("metrics").body;
        let none = format!("port=\"80\",to=\"{to}\"}} 0");
        assert!(!metrics.contains(&none), "{metrics}");
    }
}

#[tokio::test]
async fn while_a_circuit_is_open_the_failover_service_takes_over_at_once() {
    let mesh = Mesh::new();
    let (own, spare) = (Service::start("own").await, Service::start("spare").await);
    own.fails(true);
    let more = format!(
        "circuit: {{breaker: {{consecutive_failures: 5, open: 1h, open_max: 1h}}}}\noutlier: {{consecutive_5xx: 0}}\n\
         failover: spare\n---\nkind: Service\nname: spare\n\
         ports: [{{port: 80, protocol: http}}]\nendpoints: [{{address: \"{}\"}}]\n",
        spare.address
    );
    let gateway = gateway_to(&mesh, &own, &more).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    for _ in 0..5 {
        assert_eq!(get(&mut client).await.status, 503);
    }
    for _ in 0..10 {
        let answer = get(&mut client).await;
        assert_eq!((answer.status, &*answer.body), (200, "spare"));
    }
    assert_eq!(own.asked(), 5);
}

#[tokio::test]
async fn tunnels_to_a_service_that_cannot_be_connected_to_are_refused_at_once() {
    let mesh = Mesh::new();
    let nobody = free_address();
    let circuit = "circuit: {breaker: {consecutive_failures: 2, open: 1h, open_max: 1h}}\n";
    let documents = |gateway| gateway_to_addresses(&[nobody], circuit, gateway);
    let gateway = mesh.gateway(documents).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(connect(gateway.outbound, "shop:80").await);
    }
    assert!(answers[1].contains("(UF)"), "{answers:?}");
    assert!(answers[2].contains("(UO)"), "{answers:?}");
    assert!(answers[2].contains("2 failures in a row"), "{answers:?}");
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_answered_at_once_with_which_limit_it_was() {
    let mesh = Mesh::new();
    let shop = Service::start("shop").await;
    let limit = "circuit: {endpoint_requests_max: 1}\n";
    let gateway = gateway_to(&mesh, &shop, limit).await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let mut holder = Client::new(target.clone());
    let held = tokio::spawn(async move { holder.get("/hold").await });
    gateway.has_one_under_way().await;
    let refused = get(&mut Client::new(target.clone())).await;
    assert_eq!(refused.status, 503);
    let why = "default/shop is at its limit endpoint_requests_max (UO)";
    assert!(refused.body.contains(why), "{refused:?}");
    let overflow = "pillion_circuit_overflow_total{service=\"default/shop\",port=\"80\",limit=\"endpoint_requests_max\"} 1";
    metric(&gateway, overflow).await;
    shop.release();
    let answer = held.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status, 200);
    // The proxy gives the place back a moment after the client has the last byte.
    let mut client = Client::new(target);
    eventually("there is room again", async || {
        (get(&mut client).await.status == 200).then_some(())
    })
    .await;
}

async fn gateway_to(mesh: &Mesh, service: &Service, more: &str) -> Sidecar {
    let documents = |gateway| gateway_to_addresses(&[service.address], more, gateway);
    mesh.gateway(documents).await
}

async fn get(client: &mut Client) -> Answer {
    client.get("/").await.expect("an answer")
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(name).expect(name);
    value.to_str().expect("text")
}

async fn metric(sidecar: &Sidecar, line: &str) {
    let metrics = sidecar.admin("/metrics").await.expect("metrics").body;
    assert!(
        metrics.lines().any(|found| found == line),
        "{line}\n{metrics}"
    );
}

/// What a proxy answers to a CONNECT.
async fn connect(proxy: SocketAddr, authority: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    let head =
        format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}
