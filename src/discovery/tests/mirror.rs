use serde_json::json;

use super::*;

fn instance(service: &str, id: &str, weight: u32) -> Instance {
    serde_json::from_value(json!({
        "id": id, "namespace": "default", "service": service, "weight": weight, "ports": [{"address": "10.0.0.7:80"}],
    }))
    .expect("an instance")
}

fn document(name: &str, revision: u64) -> Document {
    serde_json::from_value(json!({
        "kind": "HTTPRoute", "namespace": "default", "name": name, "revision": revision, "created": 1,
        "time": "2026-01-01T00:00:00Z", "author": "a test", "text": format!("kind: HTTPRoute # {revision}"),
    }))
    .expect("a document")
}

fn hello(store: &str) -> WatchFrame {
    WatchFrame::Hello {
        version: 1,
        store: store.into(),
        revision: 0,
    }
}

fn reset() -> WatchFrame {
    WatchFrame::Reset {
        reason: "a test".into(),
    }
}

fn listed(documents: &[Document], services: &[(&str, &[&str])]) -> WatchFrame {
    let set = |(name, ids): &(&str, &[&str])| ServiceSet {
        namespace: "default".into(),
        name: (*name).into(),
        instances: ids.iter().map(|id| instance(name, id, 1)).collect(),
    };
    WatchFrame::Snapshot {
        documents: documents.to_vec(),
        services: services.iter().map(set).collect(),
    }
}

fn delta(revision: u64, service: &str, upserts: &[(&str, u32)], removals: &[&str]) -> WatchFrame {
    WatchFrame::Changes {
        revision,
        documents: Vec::new(),
        documents_deleted: Vec::new(),
        instances: vec![InstancesChange {
            namespace: "default".into(),
            service: service.into(),
            upserts: upserts
                .iter()
                .map(|(id, weight)| instance(service, id, *weight))
                .collect(),
            removals: removals.iter().map(|id| (*id).into()).collect(),
        }],
    }
}

fn feed(mirror: &mut Mirror, frames: impl IntoIterator<Item = WatchFrame>) -> Changed {
    let mut last = Changed::default();
    for frame in frames {
        last = mirror.apply(frame).expect("a frame in its place");
    }
    last
}

/// `service: id@weight …` in order.
fn shape(mirror: &Mirror) -> Vec<String> {
    let mut shape: Vec<String> = mirror
        .services()
        .map(|service| {
            let endpoints = mirror.endpoints(service).endpoints;
            let ids: Vec<String> = endpoints
                .iter()
                .map(|endpoint| {
                    format!(
                        "{}@{}",
                        endpoint.instance.as_deref().unwrap_or("?"),
                        endpoint.weight
                    )
                })
                .collect();
            format!("{}: {}", service.name, ids.join(" "))
        })
        .collect();
    shape.sort();
    shape
}

fn synced(services: &[(&str, &[&str])]) -> Mirror {
    let mut mirror = Mirror::default();
    let routes = [document("shop", 1)];
    feed(
        &mut mirror,
        [
            hello("a"),
            reset(),
            listed(&routes, services),
            WatchFrame::Synced { revision: 5 },
        ],
    );
    mirror
}

#[test]
fn nothing_of_a_listing_is_seen_before_it_is_synced() {
    let mut mirror = Mirror::default();
    feed(
        &mut mirror,
        [
            hello("a"),
            reset(),
            listed(&[document("shop", 1)], &[("cart", &["i1"])]),
        ],
    );
    assert!(!mirror.is_known());
    let changed = feed(
        &mut mirror,
        [
            listed(&[], &[("cart", &["i2"])]),
            WatchFrame::Synced { revision: 5 },
        ],
    );
    assert_eq!(
        (shape(&mirror), mirror.position().revision),
        (vec!["cart: i1@1 i2@1".to_owned()], 5)
    );
    assert_eq!(
        (
            changed.documents.len(),
            changed.services.len(),
            changed.instances.len()
        ),
        (1, 1, 2)
    );
    assert_eq!(
        changed.listed,
        Some(Listed {
            other_store: true,
            documents_kept: 0
        })
    );
}

#[test]
fn a_change_names_only_what_it_changed() {
    let mut mirror = synced(&[("cart", &["i1", "i2"]), ("shop", &["i3"])]);
    let changed = feed(
        &mut mirror,
        [delta(6, "cart", &[("i1", 1), ("i2", 7)], &["unknown"])],
    );
    assert_eq!(shape(&mirror), ["cart: i1@1 i2@7", "shop: i3@1"]);
    assert_eq!(changed.services, HashSet::from([Name::local("cart")]));
    assert_eq!(changed.instances.len(), 1);
    let changed = feed(&mut mirror, [delta(7, "cart", &[("i2", 7)], &[])]);
    assert!(changed.services.is_empty());
    assert_eq!(mirror.position().revision, 7);
}

#[test]
fn changes_during_a_listing_hold_over_what_is_listed() {
    let mut mirror = synced(&[("cart", &["i1"])]);
    feed(
        &mut mirror,
        [
            reset(),
            delta(9, "cart", &[("i4", 4)], &["i2"]),
            listed(&[document("shop", 1)], &[("cart", &["i1", "i2", "i3"])]),
            delta(10, "cart", &[("i3", 3)], &[]),
            WatchFrame::Synced { revision: 12 },
        ],
    );
    assert_eq!(
        (shape(&mirror), mirror.position().revision),
        (vec!["cart: i1@1 i3@3 i4@4".to_owned()], 12)
    );
}

#[test]
fn a_service_that_the_registry_does_not_list_is_kept_and_one_listed_as_empty_is_not() {
    let mut mirror = synced(&[("cart", &["i1"]), ("shop", &["i2"])]);
    feed(
        &mut mirror,
        [
            hello("b"),
            reset(),
            listed(&[document("shop", 1)], &[("shop", &[])]),
            WatchFrame::Synced { revision: 1 },
        ],
    );
    assert_eq!(shape(&mirror), ["cart: i1@1", "shop: "]);
}

#[test]
fn documents_survive_a_registry_that_lost_them_and_not_one_that_deleted_them() {
    let mut lost = synced(&[]);
    let changed = feed(
        &mut lost,
        [hello("b"), reset(), WatchFrame::Synced { revision: 1 }],
    );
    assert_eq!(
        changed.listed,
        Some(Listed {
            other_store: true,
            documents_kept: 1
        })
    );
    assert_eq!((lost.documents().count(), lost.position().revision), (1, 1));

    let mut deleted = synced(&[]);
    let changed = feed(
        &mut deleted,
        [hello("a"), reset(), WatchFrame::Synced { revision: 9 }],
    );
    assert_eq!(
        changed.listed,
        Some(Listed {
            other_store: false,
            documents_kept: 0
        })
    );
    assert_eq!(changed.documents.into_values().collect::<Vec<_>>(), [None]);
    assert_eq!(deleted.documents().count(), 0);
}

#[test]
fn a_listing_that_says_the_same_changes_nothing() {
    let mut mirror = synced(&[("cart", &["i1"])]);
    let frames = [
        hello("a"),
        reset(),
        listed(&[document("shop", 1)], &[("cart", &["i1"])]),
        WatchFrame::Synced { revision: 9 },
    ];
    let changed = feed(&mut mirror, frames);
    assert!(
        changed.documents.is_empty() && changed.services.is_empty() && changed.instances.is_empty()
    );
}

#[test]
fn a_listing_that_was_not_finished_leaves_no_trace() {
    let mut mirror = synced(&[("cart", &["i1"])]);
    feed(
        &mut mirror,
        [hello("a"), reset(), listed(&[], &[("cart", &["i9"])])],
    );
    mirror.disconnected();
    assert_eq!(shape(&mirror), ["cart: i1@1"]);
    assert_eq!(
        mirror.apply(WatchFrame::Synced { revision: 9 }).map(|_| ()),
        Err(MirrorError::OutOfPlace("synced"))
    );
}

#[test]
fn frames_out_of_place_are_errors() {
    let frames = [
        reset(),
        listed(&[], &[]),
        WatchFrame::Synced { revision: 1 },
        delta(1, "cart", &[], &[]),
        WatchFrame::Heartbeat { revision: 1 },
    ];
    for frame in frames {
        assert!(Mirror::default().apply(frame.clone()).is_err(), "{frame:?}");
    }
    let mut mirror = synced(&[]);
    feed(&mut mirror, [hello("b")]);
    assert_eq!(
        mirror.apply(delta(9, "cart", &[], &[])).map(|_| ()),
        Err(MirrorError::OtherStore)
    );
}

#[test]
fn a_restored_mirror_goes_on_where_it_was() {
    let position = Position {
        store: Some("a".into()),
        revision: 5,
    };
    let mut mirror = Mirror::restore(position, [document("shop", 1)], [instance("cart", "i1", 1)]);
    assert_eq!(shape(&mirror), ["cart: i1@1"]);
    feed(&mut mirror, [hello("a"), delta(6, "cart", &[], &["i1"])]);
    assert_eq!(
        (shape(&mirror), mirror.position().revision),
        (vec!["cart: ".to_owned()], 6)
    );
}

/// The straightforward way: a map of everything, to compare with after any sequence of changes.
#[test]
fn any_changes_give_what_a_plain_map_gives() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut mirror, mut oracle) = (synced(&[]), BTreeMap::new());
    for revision in 6..2_000 {
        let service = ["cart", "shop", "till"][rng.usize(..3)];
        let pick = |rng: &mut fastrand::Rng| ["i1", "i2", "i3", "i4"][rng.usize(..4)];
        let removals: Vec<&str> = (0..rng.usize(..2)).map(|_| pick(&mut rng)).collect();
        let upserts: Vec<(&str, u32)> = (0..rng.usize(..3))
            .map(|_| (pick(&mut rng), rng.u32(1..3)))
            .collect();
        removals.iter().for_each(|id| {
            oracle.remove(&(service, *id));
        });
        oracle.extend(upserts.iter().map(|(id, weight)| ((service, *id), *weight)));
        feed(&mut mirror, [delta(revision, service, &upserts, &removals)]);
        let endpoints = mirror.endpoints(&Name::local(service)).endpoints;
        let found: Vec<(String, u32)> = endpoints
            .iter()
            .map(|endpoint| {
                (
                    endpoint.instance.as_deref().unwrap_or("?").to_owned(),
                    endpoint.weight,
                )
            })
            .collect();
        let expected = oracle.iter().filter(|((of, _), _)| *of == service);
        let expected: Vec<(String, u32)> = expected
            .map(|((_, id), weight)| ((*id).to_owned(), *weight))
            .collect();
        assert_eq!(found, expected, "revision {revision}");
    }
}
