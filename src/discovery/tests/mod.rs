//! Scenarios of a sidecar and its registry, over real sockets.

mod fake;
mod following;
mod keeping;
mod registering;

use std::future::Future;
use std::time::Duration;

use serde_json::json;

use http::StatusCode;

use super::*;
use crate::api::{
    ClientOptions, Document, InstancePort, InstancesChange, Load, Problem, Registration,
    ServiceSet, WatchFrame,
};
use crate::base::backoff::Backoff;
use crate::model::Name;
use fake::FakeRegistry;

/// What hangs is broken; no test takes nearly as long.
const GUARD: Duration = Duration::from_secs(30);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("no hang")
}

async fn until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(poll).await;
}

fn settings(registries: Vec<ClientOptions>) -> Settings {
    Settings {
        frame_interval: Duration::from_millis(50),
        backoff: Backoff::new(Duration::from_millis(5), Duration::from_millis(50)),
        // Only what a test does decides, not how long it takes.
        first_answer_timeout: GUARD,
        ..Settings::new("sidecar-1", registries)
    }
}

fn with_instance(mut settings: Settings) -> Settings {
    let port = InstancePort {
        address: "10.0.0.1:8080".into(),
        port: Some(80),
        protocol: None,
    };
    settings.registrations = vec![("cart-1".into(), Registration::new("cart", vec![port]))];
    settings
}

fn start(settings: Settings) -> (Discovery, Changes) {
    Discovery::start(settings).expect("good settings")
}

fn document(name: &str, revision: u64) -> Document {
    serde_json::from_value(json!({
        "kind": "HTTPRoute", "namespace": "default", "name": name, "revision": revision, "created": 1,
        "time": "2026-01-01T00:00:00Z", "author": "a test", "text": format!("{name} as of {revision}"),
    }))
    .expect("a document")
}

fn instance(service: &str, id: &str) -> crate::api::Instance {
    serde_json::from_value(json!({
        "id": id, "namespace": "default", "service": service, "ports": [{"address": "10.0.0.7:80"}],
    }))
    .expect("an instance")
}

fn listing(
    store: &str,
    revision: u64,
    documents: &[Document],
    services: &[(&str, &[&str])],
) -> Vec<WatchFrame> {
    let set = |(name, ids): &(&str, &[&str])| ServiceSet {
        namespace: "default".into(),
        name: (*name).into(),
        instances: ids.iter().map(|id| instance(name, id)).collect(),
    };
    vec![
        WatchFrame::Hello {
            version: 1,
            store: store.into(),
            revision,
        },
        WatchFrame::Reset {
            reason: "a test".into(),
        },
        WatchFrame::Snapshot {
            documents: documents.to_vec(),
            services: services.iter().map(set).collect(),
        },
        WatchFrame::Synced { revision },
    ]
}

fn hello(store: &str) -> WatchFrame {
    WatchFrame::Hello {
        version: 1,
        store: store.into(),
        revision: 0,
    }
}

fn documents_changed(revision: u64, document: Document) -> WatchFrame {
    WatchFrame::Changes {
        revision,
        documents: vec![document],
        documents_deleted: Vec::new(),
        instances: Vec::new(),
    }
}

fn instances_changed(
    revision: u64,
    service: &str,
    upserts: &[&str],
    removals: &[&str],
) -> WatchFrame {
    let change = InstancesChange {
        namespace: "default".into(),
        service: service.into(),
        upserts: upserts.iter().map(|id| instance(service, id)).collect(),
        removals: removals.iter().map(|id| (*id).into()).collect(),
    };
    WatchFrame::Changes {
        revision,
        documents: Vec::new(),
        documents_deleted: Vec::new(),
        instances: vec![change],
    }
}

/// `service: instance …`, in order.
fn shape(change: &EndpointsChange) -> Vec<String> {
    let describe = |update: &crate::model::EndpointUpdate| {
        let ids: Vec<&str> = update
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.instance.as_deref())
            .collect();
        format!("{}: {}", update.service.name, ids.join(" "))
    };
    let mut shape: Vec<String> = change.updates.iter().map(describe).collect();
    shape.sort();
    shape
}

fn texts(change: &DocumentsChange) -> Vec<String> {
    let mut texts: Vec<String> = change
        .changed
        .iter()
        .map(|document| document.text.clone())
        .collect();
    texts.sort();
    texts
}

impl Changes {
    async fn next_documents(&mut self) -> DocumentsChange {
        soon(self.documents.recv()).await.expect("discovery runs")
    }

    async fn next_endpoints(&mut self) -> EndpointsChange {
        soon(self.endpoints.recv()).await.expect("discovery runs")
    }

    /// Accepts one change of each; gives the documents' texts and the endpoints.
    async fn accept_both(&mut self) -> (Vec<String>, Vec<String>) {
        let (documents, endpoints) = (self.next_documents().await, self.next_endpoints().await);
        let seen = (texts(&documents), shape(&endpoints));
        documents.accepted();
        endpoints.applied();
        seen
    }
}

/// A registry with one route and two services, and a sidecar that follows it.
async fn followed() -> (FakeRegistry, Discovery, Changes) {
    let registry = FakeRegistry::start().await;
    registry.greet(&listing(
        "a",
        5,
        &[document("shop", 3)],
        &[("cart", &["c1", "c2"]), ("till", &["t1"])],
    ));
    let (discovery, mut changes) = start(settings(vec![registry.options()]));
    changes.accept_both().await;
    (registry, discovery, changes)
}

fn applied(registry: &FakeRegistry) -> Option<u64> {
    registry.last_frame().map(|frame| frame.applied_revision)
}
