//! Discovery against the real registry, in one process and over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::registry::RegistryProcess;
use crate::api::{Applied, Client, ClientOptions, InstancePort, InstanceState, Registration};
use crate::base::backoff::Backoff;
use crate::config::RegistryBootstrap;
use crate::config::bootstrap::InstanceLimits;
use crate::discovery::{Changes, Departure, Discovery, Settings, Source};

/// What hangs is broken; no test takes nearly as long.
const GUARD: Duration = Duration::from_secs(60);

async fn until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(GUARD, poll).await.expect("no hang");
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("no hang")
}

/// A registry that can be stopped, and started again on the same address.
struct Registry {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl Registry {
    async fn start(address: SocketAddr, data: &Path) -> Self {
        let bootstrap = RegistryBootstrap {
            address,
            data: data.to_owned(),
            tls: None,
            token_file: None,
            insecure: false,
            history: 10,
            instances: InstanceLimits::default(),
            log: Default::default(),
        };
        let process = RegistryProcess::open(&bootstrap).await.expect("a registry");
        let address = process.address();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            process
                .run(async { drop(stopped.await) })
                .await
                .expect("a store that works");
        });
        Self {
            address,
            stop: Some(stop),
            running: Some(running),
        }
    }

    async fn fresh(data: &Path) -> Self {
        Self::start(([127, 0, 0, 1], 0).into(), data).await
    }

    async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            soon(running).await.expect("a clean end");
        }
    }

    fn options(&self) -> ClientOptions {
        ClientOptions::new(&format!("http://{}", self.address))
    }

    async fn apply(&self, yaml: &str) -> u64 {
        let client = Client::new(&self.options()).expect("a client");
        let sent =
            client.send::<Applied>(Method::POST, "/v1/documents", Bytes::from(yaml.to_owned()));
        soon(sent).await.expect("good documents").revision
    }
}

/// A sidecar whose app takes everything at once and remembers it.
struct Sidecar {
    discovery: Discovery,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    documents: BTreeSet<String>,
    endpoints: BTreeMap<String, Vec<String>>,
}

impl Sidecar {
    fn start(name: &str, registry: &Registry) -> Self {
        let port = InstancePort {
            address: "127.0.0.1:8080".into(),
            port: Some(80),
            protocol: None,
        };
        let settings = Settings {
            registrations: vec![(
                format!("cart.{name}"),
                Registration::new("cart", vec![port]),
            )],
            frame_interval: Duration::from_millis(100),
            backoff: Backoff::new(Duration::from_millis(5), Duration::from_millis(50)),
            ..Settings::new(name, vec![registry.options()])
        };
        let (discovery, changes) = Discovery::start(settings).expect("good settings");
        let seen = Arc::default();
        tokio::spawn(follow(changes, Arc::clone(&seen)));
        Self { discovery, seen }
    }

    fn carts(&self) -> Vec<String> {
        let seen = self
            .seen
            .lock()
            .expect("no test panics while it holds this");
        seen.endpoints
            .get("default/cart")
            .cloned()
            .unwrap_or_default()
    }

    fn documents(&self) -> Vec<String> {
        let seen = self
            .seen
            .lock()
            .expect("no test panics while it holds this");
        seen.documents.iter().cloned().collect()
    }
}

async fn follow(mut changes: Changes, seen: Arc<Mutex<Seen>>) {
    loop {
        tokio::select! {
            Some(change) = changes.documents.recv() => {
                let mut now = seen.lock().expect("no test panics while it holds this");
                now.documents.extend(change.changed.iter().map(|document| document.key.name.clone()));
                now.documents.retain(|name| !change.removed.iter().any(|key| key.name == *name));
                drop(now);
                change.accepted();
            }
            Some(change) = changes.endpoints.recv() => {
                let mut now = seen.lock().expect("no test panics while it holds this");
                for update in &change.updates {
                    let ids = update.endpoints.iter().filter_map(|endpoint| endpoint.instance.as_deref());
                    now.endpoints.insert(update.service.to_string(), ids.map(str::to_owned).collect());
                }
                drop(now);
                change.applied();
            }
            else => return,
        }
    }
}

const CART: &str = "kind: Service\nname: cart\nports: [{port: 80, protocol: http}]\n";

#[tokio::test]
async fn sidecars_see_each_other_and_what_is_applied() {
    let data = tempfile::tempdir().expect("a folder");
    let registry = Registry::fresh(data.path()).await;
    let (first, second) = (
        Sidecar::start("first", &registry),
        Sidecar::start("second", &registry),
    );
    first.discovery.announce(InstanceState::Passing);
    second.discovery.announce(InstanceState::Passing);
    until(|| first.carts() == ["cart.first", "cart.second"] && second.carts() == first.carts())
        .await;

    let revision = registry.apply(CART).await;
    let client = Client::new(&registry.options()).expect("a client");
    let acknowledged = soon(client.acknowledged(revision, None, GUARD))
        .await
        .expect("an answer");
    assert!(
        acknowledged.complete && acknowledged.acknowledged == 2,
        "{acknowledged:?}"
    );
    assert_eq!(
        (first.documents(), second.documents()),
        (vec!["cart".into()], vec!["cart".into()])
    );
}

#[tokio::test]
async fn whoever_leaves_is_out_of_use_everywhere_when_it_is_told_so() {
    let data = tempfile::tempdir().expect("a folder");
    let registry = Registry::fresh(data.path()).await;
    let (first, second) = (
        Sidecar::start("first", &registry),
        Sidecar::start("second", &registry),
    );
    first.discovery.announce(InstanceState::Passing);
    second.discovery.announce(InstanceState::Passing);
    until(|| first.carts().len() == 2 && second.carts().len() == 2).await;

    assert_eq!(
        soon(first.discovery.leave(GUARD)).await,
        Departure::Acknowledged
    );
    assert_eq!(second.carts(), ["cart.second"]);
    assert_eq!(
        soon(second.discovery.leave(GUARD)).await,
        Departure::Acknowledged
    );
}

#[tokio::test]
async fn a_restarted_registry_is_taken_up_where_it_was_left() {
    let data = tempfile::tempdir().expect("a folder");
    let mut registry = Registry::fresh(data.path()).await;
    let sidecar = Sidecar::start("first", &registry);
    sidecar.discovery.announce(InstanceState::Passing);
    registry.apply(CART).await;
    until(|| sidecar.carts().len() == 1 && sidecar.documents().len() == 1).await;
    registry.stop().await;
    until(|| sidecar.discovery.status().connected.is_none()).await;
    assert_eq!(
        (sidecar.carts(), sidecar.documents()),
        (vec!["cart.first".to_owned()], vec!["cart".to_owned()])
    );

    let registry = Registry::start(registry.address, data.path()).await;
    until(|| sidecar.discovery.status().connected.is_some()).await;
    let revision = registry
        .apply("kind: Service\nname: till\nports: [{port: 80}]\n")
        .await;
    until(|| sidecar.discovery.status().applied_revision >= revision).await;
    assert_eq!(
        (sidecar.carts(), sidecar.documents().len()),
        (vec!["cart.first".to_owned()], 2)
    );
}

#[tokio::test]
async fn a_registry_that_lost_its_data_is_filled_again_and_takes_nothing_away() {
    let (data, empty) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let mut registry = Registry::fresh(data.path()).await;
    let (first, second) = (
        Sidecar::start("first", &registry),
        Sidecar::start("second", &registry),
    );
    first.discovery.announce(InstanceState::Passing);
    second.discovery.announce(InstanceState::Passing);
    registry.apply(CART).await;
    until(|| first.carts().len() == 2 && first.documents().len() == 1).await;
    registry.stop().await;

    let registry = Registry::start(registry.address, empty.path()).await;
    let kept = |sidecar: &Sidecar| sidecar.discovery.status().documents_kept == 1;
    until(|| kept(&first) && kept(&second)).await;
    until(|| first.discovery.status().registered == 1 && second.discovery.status().registered == 1)
        .await;
    until(|| first.carts().len() == 2 && second.carts().len() == 2).await;
    assert_eq!(
        (first.documents(), first.discovery.status().source),
        (vec!["cart".to_owned()], Source::Registry)
    );
    let revision = registry.apply(CART).await;
    until(|| first.discovery.status().applied_revision >= revision).await;
}
