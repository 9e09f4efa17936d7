//! Registering, frames and leaving.

use super::*;
use crate::api::{Event, Events};
use crate::base::recent::Recent;

#[tokio::test]
async fn an_instance_is_registered_when_it_is_announced_and_again_when_it_is_unknown() {
    let mut registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 0, &[], &[]));
    let load = Load {
        cpu: Some(0.5),
        ..Load::default()
    };
    let (discovery, mut changes) = start(Settings {
        load: Some(Box::new(move || load)),
        ..with_instance(settings(vec![registry.options()]))
    });
    changes.accept_both().await;
    until(|| registry.told().frames.len() > 2).await;
    assert!(registry.told().registered.is_empty());

    discovery.announce(InstanceState::Passing);
    until(|| {
        registry
            .last_frame()
            .is_some_and(|frame| frame.instances.len() == 1)
    })
    .await;
    let frame = registry.last_frame().expect("a frame");
    assert_eq!(
        (frame.instances[0].id.as_str(), frame.instances[0].load),
        ("cart-1", Some(load))
    );
    assert_eq!(
        registry.told().registered["cart-1"].ports[0].address,
        "10.0.0.1:8080"
    );

    registry.kill().await;
    registry.told().registered.clear();
    registry.greet(&listing("b", 0, &[], &[]));
    registry.open().await;
    until(|| registry.told().registered.contains_key("cart-1")).await;
    discovery.announce(InstanceState::Draining);
    let state = || {
        registry
            .last_frame()
            .and_then(|frame| frame.instances.first().map(|instance| instance.state))
    };
    until(|| state() == Some(InstanceState::Draining)).await;
}

#[tokio::test]
async fn the_registry_is_told_each_event_once_and_again_after_it_was_away() {
    let mut registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 0, &[], &[]));
    let events = Arc::new(Recent::new(3));
    let happen = |events: &Recent<Event>| {
        events.push(|id| Event {
            id,
            ..Event::default()
        })
    };
    let kept = events.clone();
    let (discovery, mut changes) = start(Settings {
        events: Some(Box::new(move |since, max| Events {
            last: kept.last(),
            events: kept.since(since, max),
        })),
        ..settings(vec![registry.options()])
    });
    changes.accept_both().await;
    happen(&events);
    let told = |registry: &FakeRegistry| -> Vec<u64> {
        let told = registry.told();
        let frames = told.frames.iter();
        frames
            .flat_map(|frame| frame.events.iter().map(|event| event.id))
            .collect()
    };
    until(|| told(&registry) == [1]).await;
    registry.kill().await;
    until(|| discovery.status().connected.is_none()).await;
    (0..5).for_each(|_| happen(&events));
    registry.greet(&listing("a", 0, &[], &[]));
    registry.open().await;
    until(|| told(&registry) == [1, 4, 5, 6]).await;
    until(|| discovery.status().events_forgotten == 2).await;
}

#[tokio::test]
async fn a_refused_registration_is_said_and_watching_goes_on() {
    let registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 5, &[], &[("cart", &["c1"])]));
    registry.told().refuse = Some(StatusCode::UNPROCESSABLE_ENTITY);
    let (discovery, mut changes) = start(with_instance(settings(vec![registry.options()])));
    discovery.announce(InstanceState::Passing);
    changes.accept_both().await;
    until(|| discovery.status().registration_problem.is_some()).await;
    until(|| applied(&registry) == Some(5)).await;
    assert_eq!(
        (discovery.status().connects, registry.told().registrations),
        (1, 1)
    );
}

#[tokio::test]
async fn leaving_waits_for_the_peers_and_is_not_undone() {
    let registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 0, &[], &[]));
    registry.told().missing = vec!["peer-1".into()];
    let (discovery, mut changes) = start(with_instance(settings(vec![registry.options()])));
    changes.accept_both().await;
    discovery.announce(InstanceState::Passing);
    until(|| discovery.status().registered == 1).await;

    let unacknowledged = discovery.leave(Duration::from_millis(200)).await;
    assert_eq!(
        unacknowledged,
        Departure::Unacknowledged {
            missing: vec!["peer-1".into()]
        }
    );
    assert!(registry.told().registered.is_empty());
    let before = registry.told().frames.len();
    until(|| registry.told().frames.len() > before + 2).await;
    assert!(registry.told().registered.is_empty());
    assert_eq!(discovery.leave(GUARD).await, Departure::NothingRegistered);
}

#[tokio::test]
async fn leaving_ends_as_soon_as_every_peer_knows() {
    let registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 0, &[], &[]));
    registry.told().missing = vec!["peer-1".into()];
    let (discovery, mut changes) = start(with_instance(settings(vec![registry.options()])));
    changes.accept_both().await;
    discovery.announce(InstanceState::Passing);
    until(|| discovery.status().registered == 1).await;
    let acknowledge = async {
        until(|| registry.told().registered.is_empty()).await;
        registry.told().missing.clear();
    };
    let (departure, ()) = tokio::join!(discovery.leave(GUARD), acknowledge);
    assert_eq!(departure, Departure::Acknowledged);
}

#[tokio::test]
async fn leaving_without_a_registry_does_not_hang() {
    let mut registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 0, &[], &[]));
    let (discovery, mut changes) = start(with_instance(settings(vec![registry.options()])));
    changes.accept_both().await;
    discovery.announce(InstanceState::Passing);
    until(|| discovery.status().registered == 1).await;
    registry.kill().await;
    until(|| discovery.status().connected.is_none()).await;
    assert_eq!(
        discovery.leave(Duration::from_millis(100)).await,
        Departure::Untold
    );
}
