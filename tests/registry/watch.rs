//! What a watching sidecar is told, and how its acknowledgements count.

use std::time::Duration;

use pillion::api::{Frame, FrameInstance, InstanceState, Rejection, WatchFrame, WatchQuery};

use crate::{HANG, Harness, instance, listing, next, service};

fn query(sidecar: &str) -> WatchQuery {
    WatchQuery {
        sidecar: sidecar.into(),
        ..WatchQuery::default()
    }
}

async fn hello(watch: &mut pillion::api::WatchStream) -> String {
    match next(watch).await {
        WatchFrame::Hello { store, .. } => store,
        frame => panic!("{frame:?}"),
    }
}

#[tokio::test]
async fn a_watch_lists_then_follows_and_resumes_where_it_was() {
    let harness = Harness::start().await;
    harness.apply(&service("cart")).await;
    harness
        .client
        .register("cart-1", &instance("cart", "127.0.0.1:1"))
        .await
        .unwrap();
    let mut watch = harness.client.watch(&query("a")).await.unwrap();
    let store = hello(&mut watch).await;
    let (frames, synced) = listing(&mut watch).await;
    assert!(matches!(frames[0], WatchFrame::Reset { .. }));
    assert_eq!((frames.len(), synced), (3, 2), "{frames:?}");
    let changed = harness
        .client
        .register("cart-2", &instance("cart", "127.0.0.1:2"))
        .await
        .unwrap()
        .revision;
    assert!(
        matches!(next(&mut watch).await, WatchFrame::Changes { revision, .. } if revision == changed)
    );
    drop(watch);
    let later = harness.client.deregister("cart-1").await.unwrap().revision;
    let resumed = WatchQuery {
        from: changed,
        store: Some(store),
        ..query("a")
    };
    let mut watch = harness.client.watch(&resumed).await.unwrap();
    hello(&mut watch).await;
    let WatchFrame::Changes {
        revision,
        instances,
        ..
    } = next(&mut watch).await
    else {
        panic!("not a change")
    };
    assert_eq!(
        (revision, instances[0].removals.as_slice()),
        (later, &["cart-1".to_owned()][..])
    );
}

#[tokio::test]
async fn what_cannot_be_resumed_is_listed_again() {
    let harness = Harness::start().await;
    for n in 0..3 {
        harness.apply(&service(&format!("s{n}"))).await;
    }
    let store = harness.registry.store_id().to_owned();
    let harness = Harness::start_in(harness.stop().await, "").await;
    let cases = [
        (1, Some(store.clone())),
        (3, Some("another".to_owned())),
        (99, Some(store.clone())),
    ];
    for (from, store) in cases {
        let mut watch = harness
            .client
            .watch(&WatchQuery {
                from,
                store,
                ..query("a")
            })
            .await
            .unwrap();
        hello(&mut watch).await;
        assert!(
            matches!(next(&mut watch).await, WatchFrame::Reset { .. }),
            "from {from}"
        );
    }
    let current = WatchQuery {
        from: 3,
        store: Some(store),
        ..query("a")
    };
    let mut watch = harness.client.watch(&current).await.unwrap();
    hello(&mut watch).await;
    harness.apply(&service("s4")).await;
    assert!(
        matches!(
            next(&mut watch).await,
            WatchFrame::Changes { revision: 4, .. }
        ),
        "a restart alone costs no listing"
    );
}

#[tokio::test]
async fn a_watch_that_reads_too_slowly_lists_again_and_ends_up_right() {
    let harness = Harness::start().await;
    let selector = pillion::registry::view::Selector::All;
    let mut slow = harness
        .registry
        .watch(Some("slow"), selector, 0, None)
        .unwrap();
    slow.next().await.unwrap();
    // More than the shared window of changes holds, while nobody reads.
    let text = |n: usize| service("big") + &format!("# {n} {}\n", "x".repeat(180 << 10));
    for n in 0..60 {
        harness.apply(&text(n)).await;
    }
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"synced\"") {
        seen.extend_from_slice(
            &tokio::time::timeout(HANG, slow.next())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("faster than they were read") && seen.contains("# 59 "));
    assert!(seen.len() < 4 << 20, "it got the state, not the backlog");
}

#[tokio::test]
async fn waiting_for_a_revision_names_who_is_missing_and_who_refused() {
    let harness = Harness::start().await;
    let mut watches = Vec::new();
    for sidecar in ["good", "bad", "mute"] {
        let mut watch = harness.client.watch(&query(sidecar)).await.unwrap();
        listing(&mut watch).await;
        watches.push(watch);
    }
    let revision = harness.apply(&service("cart")).await;
    for watch in &mut watches {
        assert!(matches!(next(watch).await, WatchFrame::Changes { .. }));
    }
    let good = Frame {
        applied_revision: revision,
        ..Frame::default()
    };
    harness.client.send_frame("good", &good).await.unwrap();
    let rejected = Some(Rejection {
        revision,
        problems: Vec::new(),
    });
    harness
        .client
        .send_frame(
            "bad",
            &Frame {
                rejected,
                ..Frame::default()
            },
        )
        .await
        .unwrap();
    let found = harness
        .client
        .acknowledged(revision, None, Duration::from_millis(1))
        .await
        .unwrap();
    assert_eq!(
        (found.complete, found.acknowledged, found.missing),
        (false, 1, vec!["mute".to_owned()])
    );
    assert_eq!(found.rejected[0].sidecar, "bad");
    // Both come round while someone waits.
    let client = harness.client.clone();
    let waiting =
        tokio::spawn(async move { client.acknowledged(revision, None, HANG).await.unwrap() });
    harness.client.send_frame("bad", &good).await.unwrap();
    harness.client.send_frame("mute", &good).await.unwrap();
    assert!(waiting.await.unwrap().complete);
}

#[tokio::test]
async fn a_selector_leaves_others_out_and_they_need_no_acknowledgement() {
    let harness = Harness::start().await;
    let selected = WatchQuery {
        services: Some(vec!["default/cart".into()]),
        ..query("a")
    };
    let mut watch = harness.client.watch(&selected).await.unwrap();
    let (_, synced) = listing(&mut watch).await;
    harness
        .client
        .send_frame(
            "a",
            &Frame {
                applied_revision: synced,
                ..Frame::default()
            },
        )
        .await
        .unwrap();
    let other = harness
        .client
        .register("shop-1", &instance("shop", "127.0.0.1:1"))
        .await
        .unwrap()
        .revision;
    assert!(
        harness
            .client
            .acknowledged(other, None, HANG)
            .await
            .unwrap()
            .complete
    );
    let mine = harness
        .client
        .register("cart-1", &instance("cart", "127.0.0.1:1"))
        .await
        .unwrap()
        .revision;
    assert!(
        matches!(next(&mut watch).await, WatchFrame::Changes { revision, .. } if revision == mine)
    );
    let except = harness
        .client
        .acknowledged(mine, Some("a"), Duration::ZERO)
        .await
        .unwrap();
    assert!(
        except.complete,
        "who asks for itself does not wait for itself"
    );
}

#[tokio::test]
async fn a_frame_renews_sets_states_and_names_unknown_instances() {
    let harness = Harness::start().await;
    harness
        .client
        .register("cart-1", &instance("cart", "127.0.0.1:1"))
        .await
        .unwrap();
    let before = harness.registry.revision();
    let told = |id: &str, state| FrameInstance {
        id: id.into(),
        state,
        load: None,
    };
    let frame = |state| Frame {
        instances: vec![told("cart-1", state), told("gone", state)],
        ..Frame::default()
    };
    let answer = harness
        .client
        .send_frame("a", &frame(InstanceState::Passing))
        .await
        .unwrap();
    assert_eq!(
        (answer.unknown, answer.revision),
        (vec!["gone".to_owned()], before),
        "no write for what is as it was"
    );
    let answer = harness
        .client
        .send_frame("a", &frame(InstanceState::Draining))
        .await
        .unwrap();
    assert_eq!(answer.revision, before + 1);
    assert_eq!(
        harness.registry.instance("cart-1").unwrap().state,
        InstanceState::Draining
    );
}
