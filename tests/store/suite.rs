//! What every engine must do. A second engine joins with one line: `suite!(open)`, where `open` gives a fresh store and a guard.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use pillion::store::{
    Compare, EventGroup, EventStream, KeyRange, Operation, OperationResult, PAGE_KEYS_MAX, Range,
    Store, StoreError, Txn, TxnOutcome,
};

#[macro_export]
macro_rules! suite {
    ($open:path) => {
        $crate::suite_tests!($open:
            a_put_is_read_back_with_its_revisions,
            only_changes_count_as_revisions,
            compares_choose_the_branch,
            operations_see_those_before_them,
            concurrent_increments_by_compare_and_swap_lose_none,
            pages_continue_at_the_revision_they_began,
            a_range_at_an_older_revision_shows_what_was,
            a_watch_gets_each_transaction_as_one_group,
            a_watch_resumes_from_a_revision,
            a_watch_of_the_future_is_refused,
            every_limit_refuses_and_changes_nothing,
            keys_go_with_their_lease,
            a_renewed_lease_stays_and_a_forgotten_one_ends,
        );
    };
}

#[macro_export]
macro_rules! suite_tests {
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (store, _guard) = $open().await;
                $crate::suite::$name(store).await;
            }
        )+
    };
}

type Engine = Arc<dyn Store>;

fn put(key: &str, value: &str) -> Operation {
    Operation::put(key.to_owned(), value.to_owned())
}

fn delete(key: &str) -> Operation {
    Operation::Delete(key.to_owned().into())
}

async fn write(store: &Engine, operations: Vec<Operation>) -> TxnOutcome {
    store.txn(Txn::of(operations)).await.unwrap()
}

async fn read(store: &Engine, range: Range) -> Vec<(String, String)> {
    let page = store.range(range).await.unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    page.entries
        .iter()
        .map(|entry| (text(&entry.key), text(&entry.value)))
        .collect()
}

async fn next(watch: &mut EventStream) -> EventGroup {
    let group = tokio::time::timeout(Duration::from_secs(30), watch.next());
    group
        .await
        .expect("an event")
        .expect("an open watch")
        .expect("a group")
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

pub async fn a_put_is_read_back_with_its_revisions(store: Engine) {
    let first = write(&store, vec![put("a", "1")]).await;
    let second = write(&store, vec![put("a", "2"), put("b", "3")]).await;
    assert_eq!(second.revision, first.revision + 1);
    let page = store.range(Range::of(KeyRange::all())).await.unwrap();
    assert_eq!(page.revision, second.revision);
    let a = &page.entries[0];
    assert_eq!(
        (&a.value[..], a.created, a.modified),
        (&b"2"[..], first.revision, second.revision)
    );
    assert_eq!(page.entries[1].created, second.revision);
}

pub async fn only_changes_count_as_revisions(store: Engine) {
    let before = write(&store, vec![put("a", "1")]).await.revision;
    let outcome = write(&store, vec![delete("nothing"), Operation::Get("a".into())]).await;
    assert_eq!(outcome.revision, before);
    assert_eq!(outcome.results[0], OperationResult::Deleted(0));
    assert_eq!(store.revision().await.unwrap(), before);
    assert_eq!(write(&store, vec![delete("a")]).await.revision, before + 1);
}

pub async fn compares_choose_the_branch(store: Engine) {
    let revision = write(&store, vec![put("a", "1")]).await.revision;
    let key = || Bytes::from("a");
    let cases = [
        (Compare::Modified(key(), Ordering::Equal, revision), true),
        (Compare::Modified(key(), Ordering::Less, revision), false),
        (
            Compare::Modified(key(), Ordering::Greater, revision - 1),
            true,
        ),
        (Compare::Modified("absent".into(), Ordering::Equal, 0), true),
        (Compare::Exists(key(), true), true),
        (Compare::Exists(key(), false), false),
        (Compare::Exists("absent".into(), false), true),
        (Compare::Value(key(), "1".into()), true),
        (Compare::Value(key(), "2".into()), false),
        (Compare::Value("absent".into(), "".into()), false),
    ];
    for (compare, holds) in cases {
        let txn = Txn {
            compares: vec![Compare::Exists(key(), true), compare.clone()],
            then: vec![Operation::Get(key())],
            otherwise: vec![],
        };
        let outcome = store.txn(txn).await.unwrap();
        assert_eq!(
            (outcome.succeeded, outcome.results.len()),
            (holds, usize::from(holds)),
            "{compare:?}"
        );
    }
}

pub async fn operations_see_those_before_them(store: Engine) {
    let outcome = write(
        &store,
        vec![put("a", "1"), Operation::Get("a".into()), put("b", "2")],
    )
    .await;
    let OperationResult::Got(Some(entry)) = &outcome.results[1] else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (&entry.value[..], entry.modified),
        (&b"1"[..], outcome.revision)
    );
    let range = Operation::DeleteRange(KeyRange::all());
    let outcome = write(&store, vec![range, Operation::Get("a".into())]).await;
    assert_eq!(
        outcome.results,
        [OperationResult::Deleted(2), OperationResult::Got(None)]
    );
}

pub async fn concurrent_increments_by_compare_and_swap_lose_none(store: Engine) {
    write(&store, vec![put("n", "0")]).await;
    let increment = async |store: Engine| {
        loop {
            let page = store.range(Range::of(KeyRange::key("n"))).await.unwrap();
            let entry = &page.entries[0];
            let number: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            let txn = Txn {
                compares: vec![Compare::Modified(
                    "n".into(),
                    Ordering::Equal,
                    entry.modified,
                )],
                then: vec![put("n", &(number + 1).to_string())],
                otherwise: vec![],
            };
            if store.txn(txn).await.unwrap().succeeded {
                return;
            }
        }
    };
    let increments = (0..20).map(|_| increment(store.clone()));
    futures_util::future::join_all(increments).await;
    assert_eq!(
        read(&store, Range::of(KeyRange::key("n"))).await,
        pairs(&[("n", "20")])
    );
}

pub async fn pages_continue_at_the_revision_they_began(store: Engine) {
    let all = ["a", "b", "c", "d", "e"];
    write(&store, all.iter().map(|key| put(key, "old")).collect()).await;
    let mut keys = KeyRange::all();
    let mut at = None;
    let mut seen = Vec::new();
    loop {
        let page = store
            .range(Range {
                keys: keys.clone(),
                limit: 2,
                at,
            })
            .await
            .unwrap();
        assert!(page.entries.len() <= 2);
        at = Some(page.revision);
        let last = page.entries.last().unwrap().key.clone();
        seen.extend(
            page.entries
                .into_iter()
                .map(|entry| (entry.key, entry.value)),
        );
        if !page.more {
            break;
        }
        keys.start = [&last[..], &[0]].concat().into();
        // Changes between the pages do not show in them.
        write(
            &store,
            vec![
                put("bb", "new"),
                put("d", "new"),
                delete("e"),
                put("f", "new"),
            ],
        )
        .await;
    }
    let expected: Vec<_> = all
        .iter()
        .map(|key| (Bytes::from(*key), Bytes::from("old")))
        .collect();
    assert_eq!(seen, expected);
}

pub async fn a_range_at_an_older_revision_shows_what_was(store: Engine) {
    let first = write(&store, vec![put("a", "1"), put("b", "1")])
        .await
        .revision;
    let second = write(&store, vec![put("a", "2"), delete("b"), put("c", "2")])
        .await
        .revision;
    write(&store, vec![put("a", "3"), put("b", "3")]).await;
    let at = |revision| Range {
        keys: KeyRange::all(),
        limit: PAGE_KEYS_MAX,
        at: Some(revision),
    };
    assert_eq!(
        read(&store, at(first)).await,
        pairs(&[("a", "1"), ("b", "1")])
    );
    assert_eq!(
        read(&store, at(second)).await,
        pairs(&[("a", "2"), ("c", "2")])
    );
    let newest = pairs(&[("a", "3"), ("b", "3"), ("c", "2")]);
    assert_eq!(read(&store, Range::of(KeyRange::all())).await, newest);
    assert!(matches!(
        store.range(at(99)).await,
        Err(StoreError::Future { asked: 99, .. })
    ));
    let upside_down = KeyRange {
        start: "z".into(),
        end: Some("a".into()),
    };
    assert_eq!(read(&store, Range::of(upside_down)).await, []);
}

pub async fn a_watch_gets_each_transaction_as_one_group(store: Engine) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(KeyRange::prefix("w/"), start).await.unwrap();
    write(
        &store,
        vec![put("w/a", "1"), put("w/b", "1"), put("other", "1")],
    )
    .await;
    write(&store, vec![put("other", "2")]).await;
    let third = write(&store, vec![delete("w/a"), put("w/b", "2")])
        .await
        .revision;
    let first = next(&mut watch).await;
    assert_eq!(first.events.len(), 2);
    assert!(
        first
            .events
            .iter()
            .all(|event| event.before.is_none() && event.now.is_some())
    );
    let second = next(&mut watch).await;
    assert_eq!(second.revision, third);
    let deleted = second
        .events
        .iter()
        .find(|event| event.key == "w/a")
        .unwrap();
    assert_eq!(deleted.now, None);
    assert_eq!(deleted.before.as_ref().unwrap().value, "1");
}

pub async fn a_watch_resumes_from_a_revision(store: Engine) {
    let first = write(&store, vec![put("a", "1")]).await.revision;
    for value in ["2", "3"] {
        write(&store, vec![put("a", value)]).await;
    }
    let mut watch = store.watch(KeyRange::all(), first).await.unwrap();
    assert_eq!(next(&mut watch).await.revision, first + 1);
    assert_eq!(next(&mut watch).await.revision, first + 2);
    write(&store, vec![put("a", "4")]).await;
    assert_eq!(next(&mut watch).await.revision, first + 3);
}

pub async fn a_watch_of_the_future_is_refused(store: Engine) {
    let refused = store.watch(KeyRange::all(), 1_000_000).await;
    assert!(matches!(
        refused,
        Err(StoreError::Future {
            asked: 1_000_000,
            ..
        })
    ));
}

pub async fn every_limit_refuses_and_changes_nothing(store: Engine) {
    let before = store.revision().await.unwrap();
    let many = (0..129).map(|n| put(&format!("k{n}"), "")).collect();
    let big = "x".repeat((256 << 10) + 1);
    let heavy = (0..5)
        .map(|n| put(&format!("k{n}"), &big[..250 << 10]))
        .collect();
    let cases: [Vec<Operation>; 6] = [
        many,
        vec![put("a", &big)],
        heavy,
        vec![put("", "empty key")],
        vec![put("a", "1"), put("a", "2")],
        vec![put("a", "1"), Operation::DeleteRange(KeyRange::all())],
    ];
    for operations in cases {
        let refused = store.txn(Txn::of(operations)).await;
        assert!(matches!(refused, Err(StoreError::Limit(_))), "{refused:?}");
    }
    assert_eq!(store.revision().await.unwrap(), before);
    write(
        &store,
        (0..128).map(|n| put(&format!("k{n}"), "")).collect(),
    )
    .await;
}

pub async fn keys_go_with_their_lease(store: Engine) {
    let lease = store.lease(Duration::from_secs(60)).await.unwrap();
    let leased = |key: &str| Operation::Put {
        key: key.to_owned().into(),
        value: "".into(),
        lease: Some(lease),
    };
    write(
        &store,
        vec![leased("a"), leased("b"), leased("c"), put("d", "")],
    )
    .await;
    // A put without the lease frees the key from it.
    write(&store, vec![put("b", "mine"), delete("c")]).await;
    let before = store.revision().await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(
        read(&store, Range::of(KeyRange::all())).await,
        pairs(&[("b", "mine"), ("d", "")])
    );
    assert_eq!(store.revision().await.unwrap(), before + 1);
    assert_eq!(store.renew(lease).await, Err(StoreError::NoLease(lease)));
    assert_eq!(
        store.txn(Txn::of(vec![leased("e")])).await,
        Err(StoreError::NoLease(lease))
    );
}

pub async fn a_renewed_lease_stays_and_a_forgotten_one_ends(store: Engine) {
    let kept = store.lease(Duration::from_secs(60)).await.unwrap();
    let forgotten = store.lease(Duration::from_secs(1)).await.unwrap();
    let leased = |key: &str, lease| Operation::Put {
        key: key.to_owned().into(),
        value: "".into(),
        lease: Some(lease),
    };
    let put = write(
        &store,
        vec![leased("kept", kept), leased("forgotten", forgotten)],
    )
    .await;
    let mut watch = store.watch(KeyRange::all(), put.revision).await.unwrap();
    let ended = next(&mut watch).await;
    assert_eq!(ended.events[0].key, "forgotten");
    store.renew(kept).await.unwrap();
    assert_eq!(
        read(&store, Range::of(KeyRange::all())).await,
        pairs(&[("kept", "")])
    );
}
