//! What needs root: redirect rules and sidecars in network namespaces, images and the compose file on a real engine.
//!
//! `tests/hosts/run` runs them, as root. Plain `cargo test` runs none and says so, unless CI or PILLION_TESTS_ALL is set:
//! there a machine that cannot run them fails, by the name of each scenario.

mod containers;
mod contract;
mod engine;
mod intercepted;
mod languages;
mod machine;
mod names;
mod namespace;
mod process;
mod rules;
mod sidecar;
mod tproxy;
mod units;
mod upstream;
mod vanished;

use std::io::Write;

#[test]
fn scenarios_that_need_root_run_with_tests_hosts_run() {
    if !machine::scenarios_wanted() {
        // Past the test harness, which would keep a passing test's words to itself.
        let _ = writeln!(
            std::io::stderr(),
            "hosts: scenarios with network namespaces and containers are skipped; run them as root with tests/hosts/run"
        );
    }
}
