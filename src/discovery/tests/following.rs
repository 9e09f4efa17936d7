//! Watching a registry: listings, changes, answers, broken connections.

use super::*;

#[tokio::test]
async fn the_first_listing_comes_whole_and_is_acknowledged_once_it_is_applied() {
    let registry = FakeRegistry::start().await;
    registry.greet(&listing(
        "a",
        5,
        &[document("shop", 3)],
        &[("cart", &["c1", "c2"]), ("till", &["t1"])],
    ));
    let (discovery, mut changes) = start(settings(vec![registry.options()]));
    assert!(discovery.status().not_ready().is_some());

    let documents = changes.next_documents().await;
    let endpoints = changes.next_endpoints().await;
    assert_eq!(
        (texts(&documents), documents.revision),
        (vec!["shop as of 3".to_owned()], 5)
    );
    assert_eq!(shape(&endpoints), ["cart: c1 c2", "till: t1"]);
    until(|| registry.told().frames.len() > 2).await;
    assert_eq!(applied(&registry), Some(0));
    endpoints.applied();
    let before = registry.told().frames.len();
    until(|| registry.told().frames.len() > before + 2).await;
    assert_eq!(applied(&registry), Some(0));
    documents.accepted();
    until(|| applied(&registry) == Some(5)).await;
    assert_eq!(
        (discovery.status().source, discovery.status().not_ready()),
        (Source::Registry, None)
    );
}

#[tokio::test]
async fn an_empty_registry_is_told_as_such() {
    let registry = FakeRegistry::start().await;
    registry.greet(&listing("a", 0, &[], &[]));
    let (discovery, mut changes) = start(settings(vec![registry.options()]));
    assert_eq!(changes.accept_both().await, (Vec::new(), Vec::new()));
    assert_eq!(discovery.status().not_ready(), None);
}

#[tokio::test]
async fn a_change_brings_the_service_it_touches_and_no_other() {
    let (registry, _discovery, mut changes) = followed().await;
    registry.send(&instances_changed(6, "cart", &["c3"], &["c1"]));
    let change = changes.next_endpoints().await;
    assert_eq!(
        (shape(&change), change.revision),
        (vec!["cart: c2 c3".to_owned()], 6)
    );
    change.applied();
    until(|| applied(&registry) == Some(6)).await;
}

#[tokio::test]
async fn endpoints_do_not_wait_for_documents_that_compile() {
    let (registry, _discovery, mut changes) = followed().await;
    until(|| applied(&registry) == Some(5)).await;
    registry.send(&documents_changed(6, document("shop", 6)));
    let compiling = changes.next_documents().await;
    registry.send(&instances_changed(7, "cart", &[], &["c1"]));
    registry.send(&instances_changed(8, "cart", &[], &["c2"]));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|shape| *shape != ["cart: "]) {
        let change = changes.next_endpoints().await;
        seen.push(shape(&change));
        change.applied();
    }
    assert_eq!(applied(&registry), Some(5));
    compiling.accepted();
    until(|| applied(&registry) == Some(8)).await;
}

#[tokio::test]
async fn what_comes_while_the_app_is_busy_becomes_one_change() {
    let (registry, discovery, mut changes) = followed().await;
    registry.send(&instances_changed(6, "cart", &["c3"], &[]));
    let busy = changes.next_endpoints().await;
    for revision in 7..=50 {
        registry.send(&instances_changed(
            revision,
            "cart",
            &["c4"],
            &[if revision % 2 == 0 { "c5" } else { "c6" }],
        ));
    }
    registry.send(&instances_changed(51, "till", &[], &["t1"]));
    until(|| discovery.status().revision == 51).await;
    busy.applied();
    let change = changes.next_endpoints().await;
    assert_eq!(
        (shape(&change), change.revision),
        (
            vec!["cart: c1 c2 c3 c4".to_owned(), "till: ".to_owned()],
            51
        )
    );
    change.applied();
    until(|| applied(&registry) == Some(51)).await;
}

#[tokio::test]
async fn refused_documents_are_reported_and_do_not_hold_up_endpoints() {
    let (registry, discovery, mut changes) = followed().await;
    registry.send(&documents_changed(6, document("shop", 6)));
    let problem = Problem {
        message: "no such service".into(),
        ..Problem::default()
    };
    changes
        .next_documents()
        .await
        .rejected(vec![problem.clone()]);
    until(|| {
        registry
            .last_frame()
            .is_some_and(|frame| frame.rejected.is_some())
    })
    .await;
    let frame = registry.last_frame().expect("a frame");
    let rejected = frame.rejected.expect("a rejection");
    assert_eq!(
        (frame.applied_revision, rejected.revision, rejected.problems),
        (5, 6, vec![problem])
    );

    registry.send(&instances_changed(7, "till", &[], &["t1"]));
    changes.next_endpoints().await.applied();
    let refused = |revision| {
        registry
            .last_frame()
            .and_then(|frame| frame.rejected)
            .is_some_and(|rejected| rejected.revision == revision)
    };
    until(|| refused(7)).await;
    assert_eq!(
        (applied(&registry), discovery.status().applied_revision),
        (Some(5), 5)
    );

    registry.send(&documents_changed(8, document("shop", 8)));
    let good = changes.next_documents().await;
    assert_eq!(texts(&good), ["shop as of 8"]);
    good.accepted();
    until(|| applied(&registry) == Some(8)).await;
    assert_eq!(registry.last_frame().expect("a frame").rejected, None);
}

#[tokio::test]
async fn a_change_dropped_unanswered_counts_as_refused() {
    let (registry, discovery, mut changes) = followed().await;
    registry.send(&documents_changed(6, document("shop", 6)));
    drop(changes.next_documents().await);
    until(|| discovery.status().rejected.is_some()).await;
}

#[tokio::test]
async fn a_killed_registry_changes_nothing_and_the_watch_goes_on_where_it_was() {
    let (mut registry, discovery, mut changes) = followed().await;
    until(|| applied(&registry) == Some(5)).await;
    registry.kill().await;
    until(|| discovery.status().connected.is_none()).await;
    assert!(changes.endpoints.try_recv().is_err() && changes.documents.try_recv().is_err());
    assert!(discovery.status().last_error.is_some() && discovery.status().not_ready().is_none());

    registry.greet(&[hello("a"), instances_changed(6, "till", &["t2"], &[])]);
    registry.open().await;
    let change = changes.next_endpoints().await;
    assert_eq!(shape(&change), ["till: t1 t2"]);
    let last = registry.told().watches.last().cloned().expect("a watch");
    assert!(
        last.contains("from=5") && last.contains("store=a"),
        "{last}"
    );
}

#[tokio::test]
async fn the_other_registry_is_used_when_one_is_down() {
    let (mut dead, alive) = (FakeRegistry::start().await, FakeRegistry::start().await);
    dead.kill().await;
    alive.greet(&listing("a", 5, &[], &[("cart", &["c1"])]));
    for _ in 0..4 {
        let (discovery, mut changes) = start(settings(vec![dead.options(), alive.options()]));
        assert_eq!(changes.accept_both().await.1, ["cart: c1"]);
        assert_eq!(
            discovery.status().connected,
            Some(format!("http://{}", alive.address))
        );
    }
}

#[tokio::test]
async fn a_registry_that_lost_its_data_takes_nothing_away() {
    let (mut registry, discovery, mut changes) = followed().await;
    registry.kill().await;
    registry.greet(&listing("b", 1, &[], &[("till", &[])]));
    registry.open().await;
    until(|| discovery.status().documents_kept == 1).await;
    let (texts, shape) = changes.accept_both().await;
    assert_eq!((texts, shape), (Vec::new(), vec!["till: ".to_owned()]));
    until(|| applied(&registry) == Some(1)).await;
}

#[tokio::test]
async fn a_listing_in_the_middle_of_a_watch_replaces_what_was() {
    let (registry, _discovery, mut changes) = followed().await;
    let frames = listing(
        "a",
        9,
        &[document("other", 8)],
        &[("cart", &["c9"]), ("till", &["t1"])],
    );
    frames[1..].iter().for_each(|frame| registry.send(frame));
    let documents = changes.next_documents().await;
    assert_eq!(
        (texts(&documents), documents.removed.len()),
        (vec!["other as of 8".to_owned()], 1)
    );
    assert_eq!(shape(&changes.next_endpoints().await), ["cart: c9"]);
}

#[tokio::test]
async fn frames_and_fields_of_a_newer_registry_are_skipped() {
    let (registry, discovery, mut changes) = followed().await;
    registry.send_line(r#"{"type":"teleport","to":[1,2,{"x":null}]}"#);
    registry.send_line(
        r#"{"type":"changes","revision":6,"mood":"good","instances":[{"namespace":"default","service":"cart","colour":1,
        "upserts":[{"id":"c3","namespace":"default","service":"cart","ports":[{"address":"10.0.0.9:80","lanes":4}],
        "state":"levitating","shape":{"round":true}}]}]}"#
            .replace('\n', " ")
            .as_str(),
    );
    let change = changes.next_endpoints().await;
    assert_eq!(shape(&change), ["cart: c1 c2 c3"]);
    assert_eq!(discovery.status().connects, 1);
}

#[tokio::test]
async fn a_garbled_stream_is_left_and_taken_up_again() {
    let (registry, discovery, mut changes) = followed().await;
    registry.greet(&[hello("a"), instances_changed(6, "till", &["t2"], &[])]);
    for garbage in [
        r#"{"type":"changes","revision":"#,
        r#"{"type":"synced","revision":7}"#,
        "\u{0}\u{1}",
    ] {
        let before = discovery.status().connects;
        until(|| discovery.status().connected.is_some()).await;
        registry.send_line(garbage);
        until(|| discovery.status().connects > before && discovery.status().connected.is_some())
            .await;
    }
    assert_eq!(shape(&changes.next_endpoints().await), ["till: t1 t2"]);
}

#[tokio::test]
async fn settings_without_a_registry_are_refused() {
    assert!(matches!(
        Discovery::start(settings(Vec::new())),
        Err(StartError::NoRegistry)
    ));
    assert!(matches!(
        Discovery::start(settings(vec![ClientOptions::new("nonsense")])),
        Err(StartError::Client(_))
    ));
}

#[tokio::test]
async fn an_app_that_is_gone_stops_nothing() {
    let (registry, discovery, changes) = followed().await;
    drop(changes);
    registry.send(&instances_changed(6, "cart", &["c3"], &[]));
    registry.send(&documents_changed(7, document("shop", 7)));
    until(|| discovery.status().revision == 7).await;
    // Frames follow one another by a clock of their own.
    until(|| applied(&registry) == Some(5)).await;
}

#[tokio::test]
async fn a_refusal_with_very_many_or_very_long_problems_is_cut() {
    let (registry, _discovery, mut changes) = followed().await;
    registry.send(&documents_changed(6, document("shop", 6)));
    changes
        .next_documents()
        .await
        .rejected(vec![Problem::default(); 1_000]);
    let rejected = || registry.last_frame().and_then(|frame| frame.rejected);
    until(|| rejected().is_some()).await;
    let problems = rejected().expect("a rejection").problems;
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100].message, "and 900 more problems");

    registry.send(&documents_changed(7, document("shop", 7)));
    let long = Problem {
        message: "x".repeat(20_000),
        ..Problem::default()
    };
    changes.next_documents().await.rejected(vec![long; 3]);
    until(|| rejected().is_some_and(|rejection| rejection.problems.len() == 2)).await;
}
