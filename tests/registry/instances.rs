//! Instances: states, silence, guards, long-polls. The future is given to the sweep, so nothing waits for it.

use std::time::Duration;

use pillion::api::{Event, Events, Frame, Instance, InstanceState, ServiceInstances};
use pillion::model::Name;
use pillion::registry::watch::LongPoll;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::{HANG, Harness, instance};

/// Each second from now for `seconds`, keeping those in `alive` heard.
async fn pass(harness: &Harness, seconds: u64) {
    let start = Instant::now();
    for second in 1..=seconds {
        harness
            .registry
            .sweep(start + Duration::from_secs(second))
            .await;
    }
}

/// An address where nobody is.
async fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn left(harness: &Harness) -> usize {
    harness
        .registry
        .service(&Name::local("cart"), None)
        .await
        .unwrap()
        .instances
        .len()
}

#[tokio::test]
async fn what_a_sidecar_has_detected_is_listed_with_who_it_was() {
    let harness = Harness::start().await;
    let event = |evidence: &str| Event {
        id: 7,
        service: "default/cart".to_owned(),
        cause: "health_check".into(),
        evidence: evidence.to_owned(),
        ..Event::default()
    };
    let frame = |events| Frame {
        events,
        ..Frame::default()
    };
    let first = frame(vec![event("one"), event(&"x".repeat(5_000))]);
    harness.client.send_frame("a", &first).await.unwrap();
    let crowd = frame(vec![event("crowd"); 200]);
    harness.client.send_frame("b", &crowd).await.unwrap();
    let listed: Events = harness.client.get("/v1/events").await.unwrap();
    let ids: Vec<u64> = listed.events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=66).collect::<Vec<_>>());
    assert_eq!(listed.last, 66);
    assert_eq!(listed.events[0].sidecar.as_deref(), Some("a"));
    assert_eq!(listed.events[1].evidence.len(), 300);
    assert_eq!(listed.events[2].sidecar.as_deref(), Some("b"));
    let later: Events = harness.client.get("/v1/events?since=65").await.unwrap();
    assert_eq!(later.events.len(), 1);
}

#[tokio::test]
async fn silence_makes_critical_and_a_heartbeat_brings_it_back() {
    let harness = Harness::start().await;
    harness
        .client
        .register("cart-1", &instance("cart", &closed().await))
        .await
        .unwrap();
    pass(&harness, 16).await;
    let found = harness.registry.instance("cart-1").unwrap();
    assert_eq!(
        (found.state, found.reported),
        (InstanceState::Critical, Some(InstanceState::Passing))
    );
    harness.registry.heartbeat("cart-1", None).await.unwrap();
    let found = harness.registry.instance("cart-1").unwrap();
    assert_eq!(
        (found.state, found.reported),
        (InstanceState::Passing, None)
    );
}

#[tokio::test]
async fn the_last_instance_goes_only_when_a_probe_finds_it_gone() {
    let harness = Harness::start().await;
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = open.local_addr().unwrap().to_string();
    harness
        .client
        .register("cart-1", &instance("cart", &address))
        .await
        .unwrap();
    pass(&harness, 40).await;
    assert_eq!(left(&harness).await, 1, "it takes connections, so it stays");
    drop(open);
    pass(&harness, 70).await;
    assert_eq!(left(&harness).await, 0, "nobody is there any more");
}

#[tokio::test]
async fn most_of_a_service_does_not_vanish_at_once_while_it_takes_connections() {
    let harness = Harness::start().await;
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = open.local_addr().unwrap().to_string();
    for n in 0..10 {
        harness
            .client
            .register(&format!("cart-{n}"), &instance("cart", &address))
            .await
            .unwrap();
    }
    pass(&harness, 40).await;
    assert_eq!(left(&harness).await, 10);
}

#[tokio::test]
async fn deregistering_may_empty_a_service_and_it_stays_known_as_empty() {
    let harness = Harness::start().await;
    harness
        .client
        .register("cart-1", &instance("cart", "127.0.0.1:1"))
        .await
        .unwrap();
    harness.client.deregister("cart-1").await.unwrap();
    assert_eq!(left(&harness).await, 0);
    let folder = harness.stop().await;
    let harness = Harness::start_in(folder, "").await;
    assert_eq!(
        left(&harness).await,
        0,
        "also after a restart it is empty, not unknown"
    );
}

#[tokio::test]
async fn nothing_expires_before_its_time_after_a_restart() {
    let harness = Harness::start().await;
    harness
        .client
        .register("cart-1", &instance("cart", &closed().await))
        .await
        .unwrap();
    let harness = Harness::start_in(harness.stop().await, "").await;
    pass(&harness, 14).await;
    assert_eq!(
        harness.registry.instance("cart-1").unwrap().state,
        InstanceState::Passing
    );
}

#[tokio::test]
async fn registering_again_renews_without_a_write_and_may_change_the_service() {
    let harness = Harness::start().await;
    let first = harness
        .client
        .register("x", &instance("cart", "127.0.0.1:1"))
        .await
        .unwrap();
    let same = harness
        .client
        .register("x", &instance("cart", "127.0.0.1:1"))
        .await
        .unwrap();
    assert_eq!(first.revision, same.revision);
    harness
        .client
        .register("x", &instance("shop", "127.0.0.1:1"))
        .await
        .unwrap();
    assert_eq!(left(&harness).await, 0);
    let moved: Instance = harness.client.get("/v1/instances/x").await.unwrap();
    assert_eq!(moved.service, "shop");
}

#[tokio::test]
async fn a_long_poll_answers_when_its_service_changes_and_not_for_others() {
    let harness = Harness::start().await;
    let registered = harness
        .client
        .register("cart-1", &instance("cart", "127.0.0.1:1"))
        .await
        .unwrap();
    let registry = harness.registry.clone();
    let poll = LongPoll {
        index: registered.revision,
        wait: HANG,
    };
    let waiting = tokio::spawn(async move {
        registry
            .service(&Name::local("cart"), Some(poll))
            .await
            .unwrap()
    });
    harness
        .client
        .register("shop-1", &instance("shop", "127.0.0.1:1"))
        .await
        .unwrap();
    assert!(!waiting.is_finished());
    let second = harness
        .client
        .register("cart-2", &instance("cart", "127.0.0.1:2"))
        .await
        .unwrap();
    let found = waiting.await.unwrap();
    assert_eq!((found.index, found.instances.len()), (second.revision, 2));
    let path = format!("/v1/services/default/cart?index={}&wait=1ms", found.index);
    let same: ServiceInstances = harness.client.get(&path).await.unwrap();
    assert_eq!(
        same.index, found.index,
        "nothing changed, so the wait ran out"
    );
}
