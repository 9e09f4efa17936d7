//! Faults one at a time (as SQLite tests its pager): the first operation of a walk of requests fails, then the second, until none
//! is left to fail; and after each of them every request has had one outcome, and nothing that must not be repeated was.

mod application;
mod client;
mod network;

use std::collections::HashMap;
use std::net::SocketAddr;

use application::Seen;
use client::{Client, End, Step};
use network::{Fault, Network};

use crate::failover::gateway_to_addresses;
use crate::harness::{Mesh, Sidecar, eventually};

/// More operations than any walk has.
const OPERATIONS_MAX: u32 = 400;

const fn step(method: &'static str, path: &'static str) -> Step {
    Step {
        method,
        path,
        body: 0,
        streamed: false,
        keyed: false,
    }
}

const fn with_body(step: Step, body: usize) -> Step {
    Step { body, ..step }
}

const WALK: [Step; 8] = [
    step("GET", "/first"),
    with_body(step("POST", "/short"), 10),
    step("GET", "/large"),
    with_body(step("POST", "/long"), 100 * 1024),
    Step {
        keyed: true,
        ..with_body(step("POST", "/keyed"), 20 * 1024)
    },
    Step {
        streamed: true,
        ..with_body(step("PUT", "/streamed"), 30 * 1024)
    },
    with_body(step("POST", "/last"), 5),
    step("GET", "/last"),
];

#[tokio::test]
async fn whichever_operation_towards_http1_endpoints_fails_every_request_has_one_outcome() {
    World::start("http", Client::Http1(None))
        .await
        .fails_towards_endpoints()
        .await;
}

#[tokio::test]
async fn whichever_operation_towards_http2_endpoints_fails_every_request_has_one_outcome() {
    World::start("http2", Client::Http2(None))
        .await
        .fails_towards_endpoints()
        .await;
}

#[tokio::test]
async fn whichever_operation_towards_an_http1_client_fails_no_request_is_repeated() {
    World::start("http", Client::Http1(None))
        .await
        .fails_towards_clients()
        .await;
}

#[tokio::test]
async fn whichever_operation_towards_an_http2_client_fails_no_request_is_repeated() {
    World::start("http2", Client::Http2(None))
        .await
        .fails_towards_clients()
        .await;
}

/// What may become of a request that has reached an application so many times.
type Expect = fn(Fault, &Step, &End, u32, &str);

struct World {
    mesh: Mesh,
    network: Network,
    proxy: Sidecar,
    endpoints: [SocketAddr; 2],
    seen: Seen,
    client: Client,
    /// What became of each request, by its id.
    ends: HashMap<String, End>,
}

impl World {
    async fn start(protocol: &str, client: Client) -> Self {
        let mut mesh = Mesh::new();
        let network = Network::new(mesh.folder());
        mesh.environment = network.environment().to_vec();
        let seen = Seen::default();
        let endpoints = [
            application::start(&seen).await,
            application::start(&seen).await,
        ];
        let bootstrap = "workers: 1\naccess_log: {path: access.log}\n";
        let more = "outlier: {consecutive_5xx: 0, consecutive_gateway: 0, consecutive_local: 0}\n";
        let documents = |gateway| {
            gateway_to_addresses(&endpoints, more, gateway).replace(
                "port: 80, protocol: http}",
                &format!("port: 80, protocol: {protocol}}}"),
            )
        };
        let proxy = mesh.gateway_with(bootstrap, documents).await;
        Self {
            mesh,
            network,
            proxy,
            endpoints,
            seen,
            client,
            ends: HashMap::new(),
        }
    }

    async fn fails_towards_endpoints(self) {
        let watched = self.endpoints;
        self.fails(&Fault::ALL, &watched, expect_of_endpoints).await;
    }

    async fn fails_towards_clients(self) {
        let watched = [self.proxy.gateway];
        self.fails(Fault::OF_CONNECTIONS, &watched, expect_of_clients)
            .await;
    }

    async fn fails(mut self, faults: &[Fault], watched: &[SocketAddr], expect: Expect) {
        for fault in faults {
            let failed = self.until_none_fires(*fault, watched, expect).await;
            println!("{fault:?}: {failed} operations failed, one at a time");
            assert!(failed > 0, "{fault:?}");
        }
        self.expect_one_record_each_and_nothing_held().await;
    }

    /// How many operations there were to fail.
    async fn until_none_fires(
        &mut self,
        fault: Fault,
        watched: &[SocketAddr],
        expect: Expect,
    ) -> u32 {
        for n in 1..OPERATIONS_MAX {
            self.network.fail_nth(fault, n, watched);
            let ends = self.walk(&format!("{fault:?}-{n}")).await;
            let fired = self.network.has_failed();
            self.network.heal();
            let mut hit = 0;
            for (step, (id, end)) in WALK.iter().zip(&ends) {
                let times = self.times(id);
                expect(fault, step, end, times, id);
                if *end == End::Answered {
                    assert!(times >= 1, "{id} was answered by nobody");
                } else {
                    hit += 1;
                }
            }
            assert!(hit <= 1, "one fault has hit {hit} requests: {ends:?}");
            self.ends.extend(ends);
            if !fired {
                assert_eq!(hit, 0, "{fault:?}");
                return n - 1;
            }
        }
        panic!("{fault:?}: there is no end of operations");
    }

    async fn walk(&mut self, name: &str) -> Vec<(String, End)> {
        let mut ends = Vec::new();
        for (index, step) in WALK.iter().enumerate() {
            let id = format!("{name}-{index}");
            let end = self.client.asks(self.proxy.gateway, step, &id).await;
            ends.push((id, end));
        }
        ends
    }

    fn times(&self, id: &str) -> u32 {
        let seen = self.seen.lock().expect("no holder panics");
        seen.get(id).copied().unwrap_or(0)
    }

    async fn expect_one_record_each_and_nothing_held(mut self) {
        eventually("nothing is held any more", async || {
            let page = self.proxy.admin("/metrics").await.ok()?.body;
            let held = page.lines().filter(|line| {
                let is_gauge = line.starts_with("pillion_upstream_in_flight")
                    || line.starts_with("pillion_endpoint_in_flight");
                is_gauge && !line.ends_with(" 0")
            });
            (held.count() == 0).then_some(())
        })
        .await;
        self.proxy.process.terminate();
        let status = self.proxy.process.exit_status().await;
        assert!(status.success(), "{status}");
        let records = self.records();
        for (id, end) in &self.ends {
            let count = records.get(id).copied().unwrap_or(0);
            // What never reached the proxy has no record.
            let least = u32::from(*end != End::Lost);
            assert!(
                (least..=1).contains(&count),
                "{id}: {end:?}, {count} records"
            );
        }
    }

    fn records(&self) -> HashMap<String, u32> {
        let path = self.mesh.folder().join("access.log");
        let text = std::fs::read_to_string(path).expect("an access log");
        let mut records = HashMap::new();
        for line in text.lines() {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            if let Some(id) = record["request_id"].as_str() {
                *records.entry(id.to_owned()).or_default() += 1;
            }
        }
        records
    }
}

/// Whatever can be repeated succeeds, unless its answer had begun; all else reaches an application at most once.
fn expect_of_endpoints(fault: Fault, step: &Step, end: &End, times: u32, id: &str) {
    let facts = format!("{id} {step:?}: {end:?}, {times} times");
    match end {
        End::Answered => {}
        // Its answer had begun, and what there was of it may have been taken back.
        _ if step.path == "/large" => {}
        End::Refused(_) => assert!(!step.is_repeatable(), "{facts}"),
        End::Cut | End::Lost => panic!("{facts}"),
    }
    // Nothing has reached an application, or all of it does.
    let harmless = fault.is_delay() || fault.is_of_connecting();
    assert!(*end == End::Answered || !harmless, "{facts}");
    let most = if step.is_repeatable() && !harmless {
        2
    } else {
        1
    };
    assert!(times <= most, "{facts}");
}

/// Nothing is repeated on behalf of a client that broke off.
fn expect_of_clients(fault: Fault, step: &Step, end: &End, times: u32, id: &str) {
    let facts = format!("{id} {step:?}: {end:?}, {times} times");
    assert!(times <= 1, "{facts}");
    assert!(*end == End::Answered || !fault.is_delay(), "{facts}");
}
