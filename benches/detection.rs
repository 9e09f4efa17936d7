//! How soon an endpoint that fails is taken out, and how often one is that does not: a real cluster, on a clock of its own.
//!
//! Prints two tables. Of each fault, the mean and the longest time from its begin to the moment in which the endpoint is no longer
//! used in the ordinary way, `never` where that does not come within half a minute; and how many of that half minute's requests
//! the endpoint got. A policy that looks at latency keeps requests away by itself, so that nothing is left to eject for.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use pillion::model::{Address, Balance, ClusterKey, Endpoint, Name, Policy, Service};
use pillion::proxy::cluster::plan::Standing;
use pillion::proxy::cluster::{Cluster, Outcome};
use tokio::time::Instant;

const ENDPOINTS: u32 = 10;
const RUNS: u64 = 20;
const HORIZON: Duration = Duration::from_secs(30);
const LATENCY: Duration = Duration::from_millis(5);

/// What an endpoint begins to do.
#[derive(Clone, Copy)]
enum Fault {
    Refuses,
    Resets,
    /// Answers 503 to so many of 100 requests.
    Fails(u32),
    /// Takes so many times as long.
    Slow(u32),
}

const FAULTS: [(&str, Fault); 5] = [
    ("connections refused", Fault::Refuses),
    ("connections reset", Fault::Resets),
    ("every answer 503", Fault::Fails(100)),
    ("every fourth answer 503", Fault::Fails(25)),
    ("10 times as slow", Fault::Slow(10)),
];

impl Fault {
    fn answer(self, rng: &mut fastrand::Rng) -> (Outcome, Duration) {
        match self {
            Fault::Refuses => (Outcome::ConnectFailure, Duration::ZERO),
            Fault::Resets => (Outcome::Reset, LATENCY),
            Fault::Fails(percent) if rng.u32(..100) < percent => (Outcome::GatewayFailure, LATENCY),
            Fault::Fails(_) => (Outcome::Success, LATENCY),
            Fault::Slow(factor) => (Outcome::Success, LATENCY * factor),
        }
    }
}

/// A cluster under a steady load.
struct Scene {
    cluster: Arc<Cluster>,
    now: Instant,
    /// Between two requests.
    gap: Duration,
    next_look: Instant,
    rng: fastrand::Rng,
}

impl Scene {
    fn new(policy: Policy, endpoints: u32, requests_per_second: u32, seed: u64) -> Self {
        let service = Service {
            balance: Balance {
                policy,
                ..Balance::default()
            },
            ..Service::new(Name::local("bench"))
        };
        let key = ClusterKey {
            service: service.name.clone(),
            subset: None,
            port: None,
        };
        let cluster = Cluster::new(key, &Arc::new(service), None);
        cluster.set_endpoints((0..endpoints).map(endpoint).collect());
        let now = Instant::now();
        Self {
            cluster,
            now,
            gap: Duration::from_secs(1) / requests_per_second,
            next_look: now,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// One request; `answer` says what comes of it at an endpoint.
    fn request(&mut self, answer: impl FnOnce(u32, &mut fastrand::Rng) -> (Outcome, Duration)) {
        self.now += self.gap;
        if self.now >= self.next_look {
            self.cluster.evaluate(self.now, &mut self.rng);
            self.next_look += Duration::from_secs(1);
        }
        let picked = self.cluster.pick(&[], self.now, &mut self.rng);
        let lease = picked.expect("somebody is always used");
        let number = u32::from(lease.endpoint().address.port()) - 1;
        let (outcome, latency) = answer(number, &mut self.rng);
        lease.settle(outcome, latency, self.now);
    }

    fn serve_well(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.request(|_, _| (Outcome::Success, LATENCY));
        }
    }

    /// How long the first endpoint is used with this fault, and how many requests it gets.
    fn detect(&mut self, fault: Fault) -> (Option<Duration>, u64) {
        let began = self.now;
        let (mut detected, mut suffered) = (None, 0);
        while self.now < began + HORIZON {
            self.request(|number, rng| match number {
                0 => {
                    suffered += 1;
                    fault.answer(rng)
                }
                _ => (Outcome::Success, LATENCY),
            });
            if detected.is_none() {
                let endpoints = self.cluster.report(self.now).endpoints;
                let is_out = endpoints[0].standing != Standing::Healthy;
                detected = is_out.then(|| self.now - began);
            }
        }
        (detected, suffered)
    }
}

fn endpoint(number: u32) -> Endpoint {
    Endpoint::new(Address::Socket(
        (Ipv4Addr::LOCALHOST, number as u16 + 1).into(),
    ))
}

fn main() {
    println!(
        "Detection, {ENDPOINTS} endpoints, {RUNS} runs each: mean / longest, requests it got in {HORIZON:?}\n"
    );
    println!(
        "{:<26}{:>32}{:>32}",
        "", "100 requests/s", "1,000 requests/s"
    );
    for (policy, name) in [
        (Policy::RoundRobin, "round_robin"),
        (Policy::PeakEwma, "peak_ewma"),
    ] {
        println!("{name}");
        for (what, fault) in FAULTS {
            let cells = [100, 1_000].map(|rate| detection(policy, rate, fault));
            println!("  {what:<24}{:>32}{:>32}", cells[0], cells[1]);
        }
    }
    println!("\nFalse ejections, 20 healthy endpoints with 1 % random 503s, an hour\n");
    for rate in [200, 1_000] {
        let ejections = false_ejections(rate);
        println!("  {rate:>5} requests/s: {ejections} ejections of 7,200 endpoint intervals");
    }
}

fn detection(policy: Policy, rate: u32, fault: Fault) -> String {
    let run = |seed| {
        let mut scene = Scene::new(policy, ENDPOINTS, rate, seed);
        // The fault begins at any moment of an interval.
        let before = 15.0 + 10.0 * scene.rng.f64();
        scene.serve_well(Duration::from_secs_f64(before));
        scene.detect(fault)
    };
    let runs: Vec<(Option<Duration>, u64)> = (0..RUNS).map(run).collect();
    let suffered = runs.iter().map(|(_, suffered)| suffered).sum::<u64>() / RUNS;
    let asked = u64::from(rate) * HORIZON.as_secs();
    let times: Option<Vec<Duration>> = runs.into_iter().map(|(time, _)| time).collect();
    let delay = match times {
        None => "never".to_owned(),
        Some(times) => {
            let mean = times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64;
            let longest = times.iter().max().map_or(0.0, Duration::as_secs_f64);
            format!("{mean:.2} s / {longest:.2} s")
        }
    };
    format!("{delay}, {suffered} of {asked}")
}

fn false_ejections(rate: u32) -> u64 {
    let mut scene = Scene::new(Policy::PeakEwma, 20, rate, 1);
    let until = scene.now + Duration::from_secs(3600);
    while scene.now < until {
        scene.request(|_, rng| match rng.u32(..100) {
            0 => (Outcome::GatewayFailure, LATENCY),
            _ => (Outcome::Success, LATENCY),
        });
    }
    scene.cluster.ejections_total()
}
