//! The last good snapshot on disk.

use super::*;

#[tokio::test]
async fn without_a_registry_the_last_good_snapshot_is_started_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = |registry: &FakeRegistry| Settings {
        snapshot: Some(folder.path().join("snapshot")),
        ..settings(vec![registry.options()])
    };
    let mut registry = FakeRegistry::start().await;
    registry.greet(&listing(
        "a",
        5,
        &[document("shop", 3)],
        &[("cart", &["c1", "c2"])],
    ));
    let (discovery, mut changes) = start(kept(&registry));
    changes.accept_both().await;
    registry.send(&instances_changed(6, "cart", &[], &["c1"]));
    changes.next_endpoints().await.applied();
    registry.send(&documents_changed(7, document("shop", 7)));
    changes.next_documents().await.rejected(Vec::new());
    discovery.stop().await;
    registry.kill().await;

    let (discovery, mut changes) = start(kept(&registry));
    let (texts, shape) = changes.accept_both().await;
    assert_eq!(
        (texts, shape),
        (vec!["shop as of 3".to_owned()], vec!["cart: c2".to_owned()])
    );
    assert_eq!(
        (discovery.status().source, discovery.status().not_ready()),
        (Source::Disk, None)
    );

    // The refused document was not kept, so the watch goes on before it.
    registry.greet(&[hello("a"), documents_changed(8, document("shop", 8))]);
    registry.open().await;
    assert_eq!(
        self::texts(&changes.next_documents().await),
        ["shop as of 8"]
    );
    let last = registry.told().watches.last().cloned().expect("a watch");
    assert!(
        last.contains("from=6") && last.contains("store=a"),
        "{last}"
    );
    assert_eq!(discovery.status().source, Source::Registry);
}

#[tokio::test]
async fn a_snapshot_of_another_selection_begins_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 5, &[], &[("cart", &["c1"])]));
    let selecting = |service: &str| Settings {
        snapshot: Some(folder.path().join("snapshot")),
        services: Some(vec![Name::local(service)]),
        ..settings(vec![registry.options()])
    };
    let (discovery, mut changes) = start(selecting("cart"));
    changes.accept_both().await;
    discovery.stop().await;
    registry.greet(&listing("a", 5, &[], &[("till", &["t1"])]));
    let (_discovery, mut changes) = start(selecting("till"));
    assert_eq!(changes.accept_both().await.1, ["till: t1"]);
    let last = registry.told().watches.last().cloned().expect("a watch");
    assert!(
        last.contains("from=0") && last.contains("services=default%2Ftill"),
        "{last}"
    );
}

#[tokio::test]
async fn a_damaged_snapshot_is_said_and_the_rest_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("snapshot");
    let mut registry = FakeRegistry::start().await;
    registry.greet(&listing(
        "a",
        5,
        &[document("shop", 3)],
        &[("cart", &["c1"])],
    ));
    let kept = |registry: &FakeRegistry| Settings {
        snapshot: Some(path.clone()),
        ..settings(vec![registry.options()])
    };
    let (discovery, mut changes) = start(kept(&registry));
    changes.accept_both().await;
    discovery.stop().await;
    registry.kill().await;
    let mut bytes = std::fs::read(&path).expect("the snapshot");
    bytes.extend(b"torn");
    std::fs::write(&path, bytes).expect("a writable folder");

    let (discovery, mut changes) = start(kept(&registry));
    assert_eq!(discovery.status().snapshot_damage.len(), 1);
    assert_eq!(changes.accept_both().await.1, ["cart: c1"]);
}

#[tokio::test]
async fn a_snapshot_that_is_up_to_date_is_used_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 5, &[], &[("cart", &["c1"])]));
    let kept = || Settings {
        snapshot: Some(folder.path().join("snapshot")),
        ..settings(vec![registry.options()])
    };
    let (discovery, mut changes) = start(kept());
    changes.accept_both().await;
    discovery.stop().await;
    registry.greet(&[WatchFrame::Hello {
        version: 1,
        store: "a".into(),
        revision: 5,
    }]);
    let (discovery, mut changes) = start(kept());
    assert_eq!(changes.accept_both().await.1, ["cart: c1"]);
    assert_eq!(discovery.status().source, Source::Registry);
}

#[tokio::test]
async fn a_silent_registry_does_not_hold_up_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 5, &[], &[("cart", &["c1"])]));
    let kept = || Settings {
        snapshot: Some(folder.path().join("snapshot")),
        first_answer_timeout: Duration::from_millis(50),
        ..settings(vec![registry.options()])
    };
    let (discovery, mut changes) = start(kept());
    changes.accept_both().await;
    discovery.stop().await;
    registry.greet(&[]);
    let (discovery, mut changes) = start(kept());
    assert_eq!(changes.accept_both().await.1, ["cart: c1"]);
    assert_eq!(discovery.status().source, Source::Disk);
}
