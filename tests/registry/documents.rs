//! Mesh documents by revision.

use pillion::api::{Action, DocumentKey};
use pillion::registry::documents::{Changing, DocumentQuery, HistoryQuery};

use crate::{Harness, service};

fn key(kind: &str, name: &str) -> DocumentKey {
    DocumentKey {
        kind: kind.into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

fn route(name: &str, to: &str) -> String {
    format!(
        "kind: HTTPRoute\nname: {name}\nhostnames: [{name}]\nrules:\n- backendRefs: [{{name: {to}, port: 80}}]\n"
    )
}

#[tokio::test]
async fn a_request_is_applied_as_a_whole_or_not_at_all() {
    let harness = Harness::start().await;
    let both = format!("{}---\n{}", service("cart"), route("shop", "nobody"));
    let refused = harness
        .registry
        .apply(&both, &Changing::default())
        .await
        .unwrap_err();
    assert_eq!(refused.status.as_u16(), 422);
    assert_eq!(refused.detail.problems[0].line, Some(9));
    let none = harness
        .registry
        .documents(&DocumentQuery::default())
        .await
        .unwrap();
    assert_eq!((none.documents.len(), none.revision), (0, 0));
    let both = format!("{}---\n{}", service("cart"), route("shop", "cart"));
    let dry = Changing {
        dry_run: true,
        ..Changing::default()
    };
    assert_eq!(
        harness.registry.apply(&both, &dry).await.unwrap().revision,
        0
    );
    assert_eq!(harness.apply(&both).await, 1);
    let again = harness
        .registry
        .apply(&both, &Changing::default())
        .await
        .unwrap();
    assert_eq!(
        again.revision, 1,
        "nothing changed, so there is no new revision"
    );
    assert!(
        again
            .changes
            .iter()
            .all(|change| change.action == Action::Unchanged)
    );
}

#[tokio::test]
async fn what_others_refer_to_cannot_be_deleted() {
    let harness = Harness::start().await;
    harness
        .apply(&format!(
            "{}---\n{}",
            service("cart"),
            route("shop", "cart")
        ))
        .await;
    let changing = Changing::default();
    let refused = harness
        .registry
        .delete(&key("Service", "cart"), &changing)
        .await
        .unwrap_err();
    assert_eq!(refused.status.as_u16(), 422);
    harness
        .registry
        .delete(&key("HTTPRoute", "shop"), &changing)
        .await
        .unwrap();
    harness
        .registry
        .delete(&key("Service", "cart"), &changing)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_on_top_of_an_older_reading_is_refused() {
    let harness = Harness::start().await;
    let first = harness.apply(&service("cart")).await;
    let other = Changing {
        author: "bob".into(),
        ..Changing::default()
    };
    let newer = service("cart") + "balance: {policy: round_robin}\n";
    harness.registry.apply(&newer, &other).await.unwrap();
    let mine = Changing {
        unchanged_since: Some(first),
        ..Changing::default()
    };
    let third = service("cart") + "balance: {policy: least_request}\n";
    let refused = harness.registry.apply(&third, &mine).await.unwrap_err();
    assert_eq!(refused.status.as_u16(), 412);
    assert!(
        refused.detail.message.contains("bob"),
        "{}",
        refused.detail.message
    );
}

#[tokio::test]
async fn history_diff_and_rollback_reach_back() {
    let harness = Harness::start().await;
    let first = harness.apply(&service("cart")).await;
    let second = harness
        .apply(&(service("cart") + "balance: {policy: round_robin}\n---\n" + &service("shop")))
        .await;
    let diff = harness
        .registry
        .diff(first, Some(second))
        .await
        .unwrap()
        .diff;
    assert!(
        diff.contains("+balance: {policy: round_robin}") && diff.contains("--- /dev/null"),
        "{diff}"
    );
    let back = harness
        .registry
        .rollback(first, &Changing::default())
        .await
        .unwrap();
    assert!(back.revision > second);
    let now = harness
        .registry
        .documents(&DocumentQuery::default())
        .await
        .unwrap();
    assert_eq!(now.documents.len(), 1);
    assert_eq!(now.documents[0].text, service("cart"));
    let then = DocumentQuery {
        revision: Some(second),
        ..DocumentQuery::default()
    };
    assert_eq!(
        harness
            .registry
            .documents(&then)
            .await
            .unwrap()
            .documents
            .len(),
        2
    );
    let history = harness
        .registry
        .history(&HistoryQuery::default())
        .await
        .unwrap()
        .revisions;
    assert_eq!(history.len(), 3);
    assert_eq!(
        history[0].reason.as_deref(),
        Some(&*format!("rollback to {first}"))
    );
}

#[tokio::test]
async fn only_so_many_revisions_are_kept_and_the_rest_is_gone() {
    let harness = Harness::start_in(tempfile::tempdir().unwrap(), "history: 3\n").await;
    for n in 1..=6 {
        harness
            .apply(&(service("cart") + &format!("# {n}\n")))
            .await;
    }
    let history = harness
        .registry
        .history(&HistoryQuery::default())
        .await
        .unwrap()
        .revisions;
    assert_eq!(
        history
            .iter()
            .map(|entry| entry.revision)
            .collect::<Vec<_>>(),
        [6, 5, 4]
    );
    let at = |revision| DocumentQuery {
        revision: Some(revision),
        ..DocumentQuery::default()
    };
    let third = harness.registry.documents(&at(3)).await.unwrap();
    assert!(third.documents[0].text.contains("# 3"), "{third:?}");
    assert_eq!(
        harness
            .registry
            .documents(&at(2))
            .await
            .unwrap_err()
            .status
            .as_u16(),
        410
    );
}

#[tokio::test]
async fn concurrent_changes_lose_none() {
    let harness = Harness::start().await;
    let applies = (0..20).map(|n| {
        let registry = harness.registry.clone();
        async move {
            registry
                .apply(&service(&format!("s{n}")), &Changing::default())
                .await
                .unwrap()
                .revision
        }
    });
    let mut revisions = futures_util::future::join_all(applies).await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn conditions_tell_what_became_of_gateways_and_routes() {
    let harness = Harness::start().await;
    let gateway = "kind: Gateway\nname: edge\nlisteners: [{name: web, port: 80, protocol: HTTP}]\n";
    let text = format!(
        "{}---\n{}---\n{gateway}",
        service("cart"),
        route("shop", "cart")
    );
    let revision = harness.apply(&text).await;
    let told = harness.registry.conditions(None, None);
    assert_eq!(told["revision"], revision);
    let kinds: Vec<_> = told["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert_eq!(kinds, ["Gateway", "HTTPRoute"]);
    assert_eq!(
        told["documents"][0]["status"]["listeners"][0]["attachedRoutes"],
        1
    );
    let told = harness
        .registry
        .conditions(Some("HTTPRoute"), Some("default"));
    let parents = told["documents"][0]["status"]["parents"]
        .as_array()
        .unwrap();
    // The gateway of its namespace, and every sidecar.
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0]["conditions"][0]["status"], "True");
    let elsewhere = harness.registry.conditions(None, Some("elsewhere"));
    assert_eq!(elsewhere["documents"].as_array().unwrap().len(), 0);
}
