//! What the API answers to right and wrong requests, as a stranger's HTTP client sees it.

use http::{Method, StatusCode};
use pillion::api::{Client, ClientError, ClientOptions, VERSION_HEADER};
use serde_json::Value;

use crate::{Harness, instance, service};

async fn ask(client: &Client, method: &str, path: &str, body: &str) -> Result<Value, ClientError> {
    let method: Method = method.parse().unwrap();
    client.send(method, path, body.to_owned().into()).await
}

#[tokio::test]
async fn wrong_requests_are_refused_with_what_is_wrong() {
    let harness = Harness::start().await;
    let registration = r#"{"service":"a","ports":[{"address":"127.0.0.1:1"}],"wieght":2}"#;
    let big = "x".repeat(2 << 20);
    let cases = [
        ("GET", "/v1/nothing", "", 404, "no_such_path", "/v1/nothing"),
        (
            "PATCH",
            "/v1/documents",
            "",
            405,
            "method_not_allowed",
            "PATCH",
        ),
        (
            "GET",
            "/v1/services?namspace=a",
            "",
            400,
            "invalid_request",
            "namspace",
        ),
        (
            "GET",
            "/v1/services/default/a?index=x",
            "",
            400,
            "invalid_request",
            "index",
        ),
        (
            "GET",
            "/v1/services/default/none",
            "",
            404,
            "not_found",
            "default/none",
        ),
        (
            "GET",
            "/v1/services/default/a?wait=5m",
            "",
            400,
            "invalid_request",
            "index",
        ),
        (
            "PUT",
            "/v1/instances/a",
            registration,
            400,
            "invalid_request",
            "wieght",
        ),
        (
            "PUT",
            "/v1/instances/a",
            "{",
            400,
            "invalid_request",
            "body",
        ),
        (
            "PUT",
            "/v1/instances/a",
            r#"{"service":"a","ports":[]}"#,
            400,
            "invalid_request",
            "ports",
        ),
        (
            "PUT",
            "/v1/instances/none/state",
            r#"{"state":"passing"}"#,
            404,
            "not_found",
            "none",
        ),
        (
            "PUT",
            "/v1/instances/a/state",
            r#"{"state":"pasing"}"#,
            400,
            "invalid_request",
            "pasing",
        ),
        (
            "POST",
            "/v1/instances/none/heartbeat",
            "",
            404,
            "not_found",
            "none",
        ),
        ("DELETE", "/v1/instances/none", "", 404, "not_found", "none"),
        (
            "POST",
            "/v1/documents",
            "",
            400,
            "invalid_request",
            "no document",
        ),
        (
            "POST",
            "/v1/documents",
            "kind: Servis\nname: a\n",
            422,
            "invalid_documents",
            "nothing was changed",
        ),
        (
            "POST",
            "/v1/documents?dry_run=maybe",
            "kind: Service\nname: a\n",
            400,
            "invalid_request",
            "dry_run",
        ),
        (
            "POST",
            "/v1/documents",
            &big,
            413,
            "too_large",
            "larger than",
        ),
        (
            "DELETE",
            "/v1/documents/Service/default/none",
            "",
            404,
            "not_found",
            "default/none",
        ),
        ("GET", "/v1/diff", "", 400, "invalid_request", "from"),
        (
            "GET",
            "/v1/revisions/999/acknowledged",
            "",
            400,
            "invalid_request",
            "future",
        ),
    ];
    for (method, path, body, status, code, word) in cases {
        let refused = ask(&harness.client, method, path, body).await;
        let Err(ClientError::Refused {
            status: found,
            error,
        }) = refused
        else {
            panic!("{method} {path}: {refused:?}");
        };
        assert_eq!(
            (found.as_u16(), error.code.as_str()),
            (status, code),
            "{method} {path}"
        );
        assert!(
            error.message.contains(word),
            "{method} {path}: {}",
            error.message
        );
    }
}

#[tokio::test]
async fn every_path_of_the_description_is_served_and_every_operation_answers() {
    let harness = Harness::start().await;
    let description = ask(&harness.client, "GET", "/v1/openapi.json", "")
        .await
        .unwrap();
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() >= 15);
    for (path, methods) in paths {
        let concrete = path.replace(['{', '}'], "");
        for method in methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|_| concrete != "/v1/watch")
        {
            let answer = ask(&harness.client, &method.to_uppercase(), &concrete, "").await;
            if let Err(ClientError::Refused { error, .. }) = answer {
                assert!(
                    !["no_such_path", "method_not_allowed"].contains(&error.code.as_str()),
                    "{method} {path}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_newer_sender_may_say_more_and_what_it_said_is_passed_on() {
    let harness = Harness::start().await;
    let body = r#"{"service":"a","ports":[{"address":"127.0.0.1:1"}],"mood":"good"}"#;
    let mut request = harness
        .client
        .request(Method::PUT, "/v1/instances/a-1", body.into())
        .unwrap();
    request
        .headers_mut()
        .insert(VERSION_HEADER, "99".parse().unwrap());
    harness.client.exchange(request, crate::HANG).await.unwrap();
    let found = ask(&harness.client, "GET", "/v1/instances/a-1", "")
        .await
        .unwrap();
    assert_eq!(found["mood"], "good");
}

#[tokio::test]
async fn only_who_shows_the_token_is_let_in_and_health_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "ci: 0123456789abcdef\n").unwrap();
    let harness = Harness::start_in(folder, "token_file: token\n").await;
    let refused = ask(&harness.client, "GET", "/v1/status", "")
        .await
        .unwrap_err();
    assert_eq!(refused.status(), Some(StatusCode::UNAUTHORIZED));
    let request = harness
        .client
        .request(Method::GET, "/health", Default::default())
        .unwrap();
    assert!(harness.client.exchange(request, crate::HANG).await.is_ok());
    let mut options = ClientOptions::new(&harness.url);
    options.token = Some("0123456789abcdef".to_owned());
    let client = Client::new(&options).unwrap();
    let applied = ask(&client, "POST", "/v1/documents", &service("a"))
        .await
        .unwrap();
    assert_eq!(applied["revision"], 1);
    let history = ask(&client, "GET", "/v1/history", "").await.unwrap();
    assert_eq!(history["revisions"][0]["author"], "ci");
}

#[tokio::test]
async fn a_registry_with_tls_is_reached_with_its_ca() {
    let folder = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), issued.cert.pem()).unwrap();
    std::fs::write(
        folder.path().join("key.pem"),
        issued.signing_key.serialize_pem(),
    )
    .unwrap();
    let harness = Harness::start_in(folder, "tls: {cert: cert.pem, key: key.pem}\n").await;
    let mut options = ClientOptions::new(&harness.url.replace("http:", "https:"));
    options.ca = Some(issued.cert.pem().into_bytes());
    let client = Client::new(&options).unwrap();
    client
        .register("a-1", &instance("a", "127.0.0.1:1"))
        .await
        .unwrap();
    options.ca = None;
    if let Ok(stranger) = Client::new(&options) {
        assert!(
            stranger
                .register("a-2", &instance("a", "127.0.0.1:1"))
                .await
                .is_err()
        );
    }
}
