//! Retries at every hop of a chain whose last hop fails: what reaches that one.

use crate::harness::{Load, Mesh, Registry, Service, Sidecar};

const REQUESTS: usize = 1_000;
const CLIENTS: usize = 16;

/// `a` asks `b`, and `b` asks `c`; each through its sidecar, and each route retries.
struct Chain {
    apps: [Service; 3],
    caller: Sidecar,
    /// They end with the scenario.
    _sidecars: Vec<Sidecar>,
    _registry: Registry,
    _mesh: Mesh,
}

/// What came of a storm.
#[derive(Debug)]
struct Storm {
    offered: usize,
    /// Requests that each hop got.
    got: [usize; 3],
}

impl Chain {
    async fn with(circuit: &str, passes_on: bool) -> Self {
        let mesh = Mesh::new();
        let registry = mesh.registry().await;
        let names = ["a", "b", "c"];
        let documents: Vec<_> = names.iter().map(|name| hop(name, circuit)).collect();
        registry.apply(&documents.join("---\n")).await;
        let mut apps = Vec::new();
        let mut sidecars = Vec::new();
        for name in names {
            let app = Service::start(name).await;
            let instance = format!("{name}-1");
            let sidecar = mesh.sidecar(&instance, name, &app, registry.address);
            sidecars.push(sidecar.await);
            apps.push(app);
        }
        let caller = mesh.caller("caller", registry.address).await;
        for (from, to) in [(&caller, "a"), (&sidecars[0], "b"), (&sidecars[1], "c")] {
            from.reaches(to, &[to]).await;
        }
        let apps: [Service; 3] = apps.try_into().ok().expect("three of them");
        apps[0].relays_to(sidecars[0].target("b"), passes_on);
        apps[1].relays_to(sidecars[1].target("c"), passes_on);
        caller.reaches("a", &["c"]).await;
        Self {
            apps,
            caller,
            _sidecars: sidecars,
            _registry: registry,
            _mesh: mesh,
        }
    }

    /// Clients ask, and the last hop fails every time.
    async fn storm(self) -> Storm {
        let asked = || std::array::from_fn(|hop| self.apps[hop].asked());
        let before: [usize; 3] = asked();
        self.apps[2].fails(true);
        let load = Load::start(&self.caller.target("a"), "/", CLIENTS);
        load.asks(REQUESTS).await;
        let journal = load.stop().await;
        assert_eq!(journal.total(), 0, "{:?}", journal.answered);
        let offered = journal.failures.len();
        let after = asked();
        Storm {
            offered,
            got: std::array::from_fn(|hop| after[hop] - before[hop]),
        }
    }
}

/// A service, and a route to it that retries.
fn hop(name: &str, circuit: &str) -> String {
    format!(
        "kind: Service\nname: {name}\nports: [{{port: 80, protocol: http}}]\ncircuit: {{{circuit}}}\n---\n\
         kind: HTTPRoute\nname: {name}\nhostnames: [{name}]\nrules:\n\
         - backendRefs: [{{name: {name}, port: 80}}]\n  retry: {{attempts: 3, codes: [503], backoff: 1ms}}\n"
    )
}

impl Storm {
    /// Requests at the last hop for each one that the clients have sent.
    fn amplification(&self) -> f64 {
        self.got[2] as f64 / self.offered as f64
    }
}

#[tokio::test]
async fn open_circuits_keep_a_retry_storm_from_the_hop_that_fails() {
    let storm = Chain::with("breaker: {}", false).await.storm().await;
    println!("{storm:?}: {:.2}", storm.amplification());
    assert!(storm.amplification() <= 1.3, "{storm:?}");
}

/// The budgets alone, for applications that pass on what the mesh adds to requests and for those that do not. Ten retries a second, as
/// by default, would be 2 % at 500 requests a second; a slower machine has to do with as large a share.
#[tokio::test]
async fn without_circuits_the_retry_budgets_of_all_hops_together_bound_the_storm() {
    for passes_on in [false, true] {
        let budget = "retries: {min_per_second: 1}";
        let storm = Chain::with(budget, passes_on).await.storm().await;
        println!("{storm:?}: {:.2}", storm.amplification());
        assert!(storm.amplification() <= 1.3, "{storm:?}");
        assert!(storm.got[2] >= storm.offered, "{storm:?}");
    }
}
