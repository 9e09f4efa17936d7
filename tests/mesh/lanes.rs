use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::harness::{Answer, Client, Mesh, Registry, Service, Sidecar, Target, eventually};

/// One instance of `shop` with a lane, and somebody who calls it.
struct Shop {
    registry: Registry,
    app: Service,
    sidecar: Sidecar,
    caller: Sidecar,
    /// Its files are there as long as its processes.
    _mesh: Mesh,
}

impl Shop {
    async fn with_lane(lane: &str) -> Self {
        let mesh = Mesh::new();
        let registry = mesh.registry().await;
        registry.apply(&documents(lane)).await;
        let app = Service::start("shop").await;
        let sidecar = mesh.sidecar("shop-a", "shop", &app, registry.address).await;
        let caller = mesh.caller("caller", registry.address).await;
        caller.reaches("shop", &["shop"]).await;
        let shop = Self {
            registry,
            app,
            sidecar,
            caller,
            _mesh: mesh,
        };
        shop.shows("pillion_lane_in_flight{service=\"default/shop\"} 0")
            .await;
        shop
    }

    fn client(&self) -> Client {
        Client::new(self.caller.target("shop"))
    }

    /// Where the sidecar of the instance takes requests.
    async fn instance(&self) -> SocketAddr {
        let clusters = self
            .caller
            .admin("/clusters?service=shop&format=json")
            .await;
        let clusters = clusters.expect("it answers").body;
        let clusters: serde_json::Value = serde_json::from_str(&clusters).expect("JSON");
        let address = clusters[0]["endpoints"][0]["address"].as_str();
        address
            .and_then(|address| address.parse().ok())
            .expect("its address")
    }

    /// A request on its way, whose answer is looked at later.
    fn asks(&self, path: &'static str, headers: &'static [(&str, &str)]) -> JoinHandle<Answer> {
        let mut client = self.client();
        tokio::spawn(async move { client.get_with(path, headers).await.expect("an answer") })
    }

    /// Waits until the metrics of the instance's sidecar have this line.
    async fn shows(&self, line: &str) {
        eventually(&format!("the sidecar shows {line}"), async || {
            let metrics = self.sidecar.admin("/metrics").await.ok()?.body;
            metrics.lines().any(|shown| shown == line).then_some(())
        })
        .await;
    }

    /// A request that holds a slot until the application releases it.
    async fn holds_the_slot(&self) -> JoinHandle<Answer> {
        let holds = self.asks("/hold", &[]);
        self.shows("pillion_lane_in_flight{service=\"default/shop\"} 1")
            .await;
        holds
    }
}

/// `/reports` is of the class batch, because the route says so.
fn documents(lane: &str) -> String {
    format!(
        "kind: Service\nname: shop\nports: [{{port: 80, protocol: http}}]\nlane: {lane}\n---\n\
         kind: HTTPRoute\nname: shop\nhostnames: [shop]\nrules:\n\
         - matches: [{{path: {{type: PathPrefix, value: /reports}}}}]\n  \
           filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-mesh-class, value: batch}}]}}}}]\n  \
           backendRefs: [{{name: shop, port: 80}}]\n\
         - backendRefs: [{{name: shop, port: 80}}]\n"
    )
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(name);
    value.map_or("", |value| value.to_str().expect("ASCII"))
}

#[tokio::test]
async fn what_a_full_lane_refuses_says_so_and_does_not_count_against_the_instance() {
    let shop = Shop::with_lane("{limit: 1, queue: {max: 0}}").await;
    let held = shop.holds_the_slot().await;
    let mut client = shop.client();
    // More than it takes to eject an instance that fails.
    for _ in 0..20 {
        let refused = client.get("/").await.expect("an answer");
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert_eq!(header(&refused, "x-mesh-shed"), "full");
        assert_eq!(header(&refused, "retry-after"), "1");
        assert!(refused.body.contains("(LS)"), "{}", refused.body);
    }
    let lanes = Command::new(env!("CARGO_BIN_EXE_pillion"))
        .args(["lanes", "--admin", &shop.sidecar.admin.to_string()])
        .output()
        .await
        .expect("it runs");
    let lanes = String::from_utf8_lossy(&lanes.stdout);
    assert!(lanes.contains("20 (full 20)"), "{lanes}");
    let grpc = [("content-type", "application/grpc")];
    let refused = client.get_with("/", &grpc).await.expect("an answer");
    assert_eq!(
        (refused.status, header(&refused, "grpc-status")),
        (200, "14")
    );
    assert_eq!(header(&refused, "x-mesh-shed"), "full");
    shop.app.release();
    assert_eq!(held.await.expect("no panic").status, 200);
    assert_eq!(client.get("/").await.expect("an answer").status, 200);
    let clusters = shop
        .caller
        .admin("/clusters?service=shop&format=json")
        .await;
    let clusters = clusters.expect("it answers").body;
    let clusters: serde_json::Value = serde_json::from_str(&clusters).expect("JSON");
    let endpoint = &clusters[0]["endpoints"][0];
    assert_eq!(
        (&endpoint["state"], &endpoint["failures"]),
        (&"passing".into(), &0.into()),
        "{clusters}"
    );
    let refused =
        "pillion_lane_refused_total{service=\"default/shop\",class=\"default\",reason=\"full\"} 21";
    shop.shows(refused).await;
}

#[tokio::test]
async fn a_full_queue_gives_way_to_a_higher_class_and_only_those_who_may_raise_theirs() {
    let shop =
        Shop::with_lane("{limit: 1, queue: {max: 1, timeout: 60s}, class_from: [192.0.2.0/24]}")
            .await;
    let held = shop.holds_the_slot().await;
    let report = shop.asks("/reports", &[]);
    shop.shows("pillion_lane_queued{service=\"default/shop\",class=\"batch\"} 1")
        .await;
    let order = shop.asks("/", &[]);
    let report = report.await.expect("no panic");
    assert_eq!(
        (report.status, header(&report, "x-mesh-shed")),
        (503, "class")
    );
    shop.shows("pillion_lane_queued{service=\"default/shop\",class=\"default\"} 1")
        .await;
    let critical = [("x-mesh-class", "critical")];
    let pretender = shop
        .client()
        .get_with("/", &critical)
        .await
        .expect("an answer");
    assert_eq!(
        (pretender.status, header(&pretender, "x-mesh-shed")),
        (503, "full")
    );
    let documents =
        documents("{limit: 1, queue: {max: 1, timeout: 60s}, class_from: [127.0.0.0/8]}");
    let revision = shop.registry.apply(&documents).await;
    eventually("the sidecar has the change", async || {
        let config = shop.sidecar.admin("/config").await.ok()?.body;
        config.contains("127.0.0.0/8").then_some(())
    })
    .await;
    assert!(revision > 0);
    let critical = shop.asks("/", &[("x-mesh-class", "critical")]);
    let order = order.await.expect("no panic");
    assert_eq!(
        (order.status, header(&order, "x-mesh-shed")),
        (503, "class")
    );
    shop.app.release();
    assert_eq!(critical.await.expect("no panic").status, 200);
    assert_eq!(held.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_up_and_one_without_time_does_not_get_there() {
    let shop = Shop::with_lane("{limit: 1, queue: {timeout: 60s}}").await;
    let held = shop.holds_the_slot().await;
    let mut leaves = TcpStream::connect(shop.caller.outbound)
        .await
        .expect("a connection");
    let request = b"GET http://shop/ HTTP/1.1\r\nHost: shop\r\n\r\n";
    leaves.write_all(request).await.expect("sent");
    shop.shows("pillion_lane_queued{service=\"default/shop\",class=\"default\"} 1")
        .await;
    // A plain close could be half of one by a client that still reads.
    leaves.set_zero_linger().expect("a socket option");
    drop(leaves);
    shop.shows("pillion_lane_queued{service=\"default/shop\",class=\"default\"} 0")
        .await;
    shop.shows("pillion_lane_left_total{service=\"default/shop\"} 1")
        .await;
    let hurried = [("x-mesh-timeout-ms", "0")];
    let refused = shop
        .client()
        .get_with("/", &hurried)
        .await
        .expect("an answer");
    assert_eq!((refused.status, header(&refused, "x-mesh-shed")), (504, ""));
    shop.app.release();
    held.await.expect("no panic");
    shop.shows("pillion_lane_in_flight{service=\"default/shop\"} 0")
        .await;
}

#[tokio::test]
async fn what_one_instance_refuses_another_one_takes() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    let lane = "lane: {limit: 1, queue: {max: 0}}\nbalance: round_robin";
    registry
        .apply(&format!(
            "kind: Service\nname: shop\nports: [{{port: 80, protocol: http}}]\n{lane}\n"
        ))
        .await;
    let (full, free) = (Service::start("full").await, Service::start("free").await);
    let sidecar = mesh
        .sidecar("shop-full", "shop", &full, registry.address)
        .await;
    let caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["full"]).await;
    let mut holder = Client::new(caller.target("shop"));
    let held = tokio::spawn(async move { holder.get("/hold").await.expect("an answer").status });
    let lanes = async || {
        sidecar
            .admin("/lanes?format=json")
            .await
            .expect("it answers")
            .body
    };
    eventually("the slot is taken", async || {
        lanes().await.contains("\"in_flight\": 1").then_some(())
    })
    .await;
    let _other = mesh
        .sidecar("shop-free", "shop", &free, registry.address)
        .await;
    let mut client = Client::new(caller.target("shop"));
    eventually("the other instance answers", async || {
        let answer = client.get("/").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    for _ in 0..20 {
        let answer = client.get("/").await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "free"));
    }
    assert!(!lanes().await.contains("\"full\": 0"), "it was asked too");
    full.release();
    assert_eq!(held.await.expect("no panic"), 200);
}

/// How long the short requests of a load took, and how much of the bulk was done meanwhile.
struct Seen {
    short: Vec<Duration>,
    bulk: usize,
}

impl Seen {
    fn median(&mut self) -> Duration {
        self.short.sort_unstable();
        self.short[self.short.len() / 2]
    }
}

const SHORT_CLIENTS: usize = 8;
const SHORT_REQUESTS: usize = 8;
const BULK_CLIENTS: usize = 40;

/// One tenant keeps forty requests of 300 to 500 ms going, of different lengths so that slots do not all come free at once; eight
/// others ask for 20 ms of work at a time, one after the other.
async fn overload(shop: &Shop) -> Seen {
    let stopping = Arc::new(AtomicBool::new(false));
    let mut bulk = JoinSet::new();
    for number in 0..BULK_CLIENTS {
        let work = format!("/work/{}", 300 + 5 * number);
        let (mut client, stopping) = (shop.client(), stopping.clone());
        bulk.spawn(async move {
            let mut done = 0;
            while !stopping.load(Ordering::Relaxed) {
                let answer = client.get_with(&work, &[("x-tenant", "bulk")]).await;
                done += usize::from(answer.expect("an answer").status == 200);
            }
            done
        });
    }
    shop.shows("pillion_lane_in_flight{service=\"default/shop\"} 16")
        .await;
    let mut short = JoinSet::new();
    for number in 0..SHORT_CLIENTS {
        let mut client = shop.client();
        short.spawn(async move {
            let (tenant, mut times) = (format!("short-{number}"), Vec::new());
            for _ in 0..SHORT_REQUESTS {
                let began = Instant::now();
                let answer = client.get_with("/work/20", &[("x-tenant", &tenant)]).await;
                let answer = answer.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.body);
                times.push(began.elapsed());
            }
            times
        });
    }
    let short = short.join_all().await.into_iter().flatten().collect();
    stopping.store(true, Ordering::Relaxed);
    let bulk = bulk.join_all().await.into_iter().sum();
    Seen { short, bulk }
}

#[tokio::test]
async fn under_overload_the_levels_keep_short_tenants_fast_where_arrival_order_does_not() {
    let lane = |discipline| {
        format!(
            "{{limit: 16, discipline: {discipline}, queue: {{timeout: 60s}}, tenant: {{header: x-tenant}}}}"
        )
    };
    let shop = Shop::with_lane(&lane("fifo")).await;
    let mut fifo = overload(&shop).await;
    shop.registry.apply(&documents(&lane("mlfq"))).await;
    shop.shows("pillion_lane_discipline{service=\"default/shop\",discipline=\"mlfq\"} 1")
        .await;
    let mut mlfq = overload(&shop).await;
    let (slow, fast) = (fifo.median(), mlfq.median());
    println!(
        "short requests: fifo {slow:?}, mlfq {fast:?}; bulk: fifo {}, mlfq {}",
        fifo.bulk, mlfq.bulk
    );
    assert!(fast * 3 < slow, "fifo {slow:?}, mlfq {fast:?}");
    assert!(mlfq.bulk > 0, "the bulk gets what is left");
}

/// Clients that ask one request of 20 ms after the other, until they are told to stop; how many were let in.
fn ask_on(
    shop: &Shop,
    clients: usize,
    class: &'static str,
    stopping: &Arc<AtomicBool>,
) -> JoinSet<usize> {
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let (mut client, stopping) = (shop.client(), stopping.clone());
        asking.spawn(async move {
            let mut done = 0;
            while !stopping.load(Ordering::Relaxed) {
                let answer = client
                    .get_with("/work/20", &[("x-mesh-class", class)])
                    .await;
                let answer = answer.expect("an answer");
                assert_eq!(header(&answer, "x-mesh-admit"), "", "between sidecars only");
                let kept = answer.body.contains("it was not sent");
                assert!(!kept || class != "default", "{}", answer.body);
                done += usize::from(answer.status == 200);
                if answer.status == 503 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            done
        });
    }
    asking
}

#[tokio::test]
async fn callers_keep_at_home_what_a_lane_shuts_out_until_there_is_room_again() {
    let shop = Shop::with_lane("{limit: 4, queue: {max: 8, timeout: 60s}}").await;
    let (all, batch) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let most = ask_on(&shop, 24, "default", &all);
    let least = ask_on(&shop, 4, "batch", &batch);
    shop.shows("pillion_lane_admits{service=\"default/shop\",class=\"default\"} 1")
        .await;
    eventually("the caller sheds by itself", async || {
        let metrics = shop.caller.admin("/metrics").await.ok()?.body;
        let kept = "pillion_upstream_not_admitted_total{service=\"default/shop\"} ";
        let kept = metrics.lines().find_map(|line| line.strip_prefix(kept))?;
        (kept.parse::<u64>().ok()? >= 20).then_some(())
    })
    .await;
    let batch_class = [("x-mesh-class", "batch")];
    let mut client = shop.client();
    let refused = eventually("one is kept at home", async || {
        let answer = client.get_with("/", &batch_class).await.ok()?;
        answer.body.contains("it was not sent").then_some(answer)
    })
    .await;
    assert_eq!(refused.status, 503);
    assert_eq!(header(&refused, "x-mesh-shed"), "class");
    assert_eq!(header(&refused, "retry-after"), "1");
    assert!(refused.body.contains("(LS)"), "{}", refused.body);
    let mut direct = Client::new(Target::direct(shop.instance().await, "shop"));
    eventually("answers of the instance's sidecar say so", async || {
        let answer = direct.get("/").await.ok()?;
        (header(&answer, "x-mesh-admit") == "default").then_some(())
    })
    .await;
    all.store(true, Ordering::Relaxed);
    let done: usize = most.join_all().await.into_iter().sum();
    assert!(done > 0, "nobody of these is kept at home");
    eventually("all are let in again", async || {
        let lanes = shop.sidecar.admin("/lanes?format=json").await.ok()?.body;
        lanes.contains("\"admits\": null").then_some(())
    })
    .await;
    for _ in 0..50 {
        let answer = client.get_with("/", &batch_class).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    batch.store(true, Ordering::Relaxed);
    let done: usize = least.join_all().await.into_iter().sum();
    assert!(done > 0, "they were let in when there was room");
}

#[tokio::test]
async fn a_callers_lane_holds_back_what_is_too_much_at_once_before_it_is_sent() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    let ports = "kind: Service\nname: shop\nports: [{port: 80, protocol: http}]\n";
    let with_lane = format!(
        "{ports}outbound_lane: {{limit: 1, queue: {{max: 1, timeout: 60s}}, class_from: [127.0.0.0/8]}}\n"
    );
    registry.apply(&with_lane).await;
    let app = Service::start("shop").await;
    let sidecar = mesh.sidecar("shop-a", "shop", &app, registry.address).await;
    let caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["shop"]).await;
    let shows = async |line: &str| {
        eventually(&format!("the caller shows {line}"), async || {
            let metrics = caller.admin("/metrics").await.ok()?.body;
            metrics.lines().any(|shown| shown == line).then_some(())
        })
        .await;
    };
    let asks = |path: &'static str, class: &'static str| {
        let mut client = Client::new(caller.target("shop"));
        let headers = [("x-mesh-class", class)];
        tokio::spawn(async move { client.get_with(path, &headers).await.expect("an answer") })
    };
    let held = asks("/hold", "default");
    shows("pillion_lane_in_flight{service=\"default/shop (outbound)\"} 1").await;
    let waits = asks("/", "default");
    shows("pillion_lane_queued{service=\"default/shop (outbound)\",class=\"default\"} 1").await;
    let refused = asks("/", "batch").await.expect("no panic");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(header(&refused, "x-mesh-shed"), "full");
    assert_eq!(header(&refused, "x-mesh-admit"), "", "nobody's business");
    let first = asks("/", "critical");
    let displaced = waits.await.expect("no panic");
    assert_eq!(
        (displaced.status, header(&displaced, "x-mesh-shed")),
        (503, "class")
    );
    let at_instance = sidecar.admin("/metrics").await.expect("it answers").body;
    let own = "pillion_lane_in_flight{service=\"default/shop\"}";
    assert!(!at_instance.contains(own), "the application has no lane");
    app.release();
    assert_eq!(held.await.expect("no panic").status, 200);
    assert_eq!(first.await.expect("no panic").status, 200);
    shows("pillion_lane_in_flight{service=\"default/shop (outbound)\"} 0").await;
    registry.apply(ports).await;
    eventually("the lane is gone", async || {
        let lanes = caller.admin("/lanes").await.ok()?.body;
        (lanes == "no lanes\n").then_some(())
    })
    .await;
    let answer = asks("/", "batch").await.expect("no panic");
    assert_eq!(answer.status, 200, "{}", answer.body);
}
