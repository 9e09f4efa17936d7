//! Endpoints of unequal speed under many proxies: how long requests take with each policy, in a simulation of the real balancers.
//!
//! Twenty endpoints (ten fast, nine at half, one at a fifth of that speed) and fifty proxies, each with a cluster of its own and so with
//! its own view of latency and requests in flight. An endpoint has eight slots and a queue; the time that a request holds a slot is
//! drawn from an exponential distribution, 10 ms on average where it is fast. Requests come at random. Each second an endpoint
//! works out its load (the share of its slots that was in use) and what it has done, and tells each proxy with the next answer,
//! as a sidecar does. Everything runs on a clock of its own, so that no machine is too slow for it.
//!
//! `cargo bench --bench unequal [-- SECONDS [SVG]]` measures each case for so long (20), after a warm-up of 15 s, prints the table and
//! draws it. A policy that does not keep up has queues that grow, so that its figures grow with the time. `best` is what nobody can
//! do: one balancer that knows all, and sends each request where it will be done first.
//!
//! p50 / p99 in ms of 10 s, seed 1, when this was written:
//!
//! ```text
//!                        75 %, 1s          90 %, 1s          75 %, 3s          50 %, 1s
//! best                16.2 / 61.4       16.9 / 69.4       16.2 / 61.4        6.9 / 45.1
//! load_factor         11.2 / 67.8       19.1 / 76.6       11.4 / 67.0        8.1 / 63.9
//! peak_ewma           10.5 / 75.7       15.2 / 84.6       10.5 / 75.7        8.5 / 70.9
//! weights: auto       10.3 / 80.8      16.0 / 128.4     10.7 / 2744.6        8.8 / 75.8
//! least_request      16.3 / 304.8      19.4 / 451.9      16.3 / 304.8      10.5 / 199.5
//! least_connections  17.9 / 226.9      27.9 / 252.5      17.9 / 226.9      10.5 / 166.7
//! round_robin      85.8 / 18847.1   713.9 / 25286.2   163.4 / 19047.4     11.1 / 9166.1
//! lowest_load    1262.8 / 43189.0  2214.3 / 23141.9  8370.0 / 125680.4   305.5 / 16224.3
//! ```

mod plot;
mod simulation;

use std::time::Duration;

use pillion::model::Policy;

use simulation::{Case, Chooser, Figures};

/// Everything that is compared, the best first.
const CHOOSERS: [(&str, Chooser); 8] = [
    ("best", Chooser::Best),
    ("load_factor", Chooser::Policy(Policy::LoadFactor)),
    ("peak_ewma", Chooser::Policy(Policy::PeakEwma)),
    (
        "weights: auto",
        Chooser::Policy(Policy::AutoWeightedRoundRobin),
    ),
    ("least_request", Chooser::Policy(Policy::LeastRequest)),
    (
        "least_connections",
        Chooser::Policy(Policy::LeastConnections),
    ),
    ("round_robin", Chooser::Policy(Policy::RoundRobin)),
    ("lowest_load", Chooser::Policy(Policy::LowestLoad)),
];

/// The share of what all endpoints together could do, and the time between two reports.
const CASES: [(f64, Duration); 4] = [
    (0.75, Duration::from_secs(1)),
    (0.90, Duration::from_secs(1)),
    (0.75, Duration::from_secs(3)),
    (0.50, Duration::from_secs(1)),
];

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let seconds = arguments
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(20);
    let drawing = arguments.next();
    let mut rows = Vec::new();
    println!("p50 / p99 in ms\n");
    let heads = CASES.map(|(load, reports)| format!("{:.0} %, {reports:?}", load * 100.0));
    println!(
        "{:<20}{}",
        "",
        heads.map(|head| format!("{head:>20}")).concat()
    );
    for (name, chooser) in CHOOSERS {
        let figures = CASES.map(|(load, reports)| {
            let case = Case {
                chooser,
                load,
                reports,
                length: Duration::from_secs(seconds),
            };
            case.run(1)
        });
        let cells =
            figures.map(|Figures { p50, p99 }| format!("{:>20}", format!("{p50:.1} / {p99:.1}")));
        println!("{name:<20}{}", cells.concat());
        rows.push((name, figures.map(|figures| figures.p99)));
    }
    if let Some(path) = drawing {
        std::fs::write(&path, plot::bars(&heads_of_plot(), &rows))
            .expect("the drawing can be written");
        println!("\n{path}");
    }
}

fn heads_of_plot() -> [String; CASES.len()] {
    CASES.map(|(load, reports)| format!("{:.0} % load, reports each {reports:?}", load * 100.0))
}
