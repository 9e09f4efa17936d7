//! The pages over real sockets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{ClusterView, EndpointView, ProbeError, probe};
use super::*;

const GUARD: Duration = Duration::from_secs(20);

async fn start(state: State) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a loopback port");
    let address = listener.local_addr().expect("a bound listener");
    tokio::spawn(async move { serve(listener, Arc::new(state)).await });
    address
}

async fn fetch(request: http::request::Builder, body: &str) -> (http::response::Parts, String) {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let request = request
        .body(Full::from(body.to_owned()))
        .expect("a request");
    let response = tokio::time::timeout(GUARD, client.request(request))
        .await
        .expect("no hang")
        .expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (parts, String::from_utf8(body.into()).expect("text"))
}

fn get(address: SocketAddr, path: &str) -> http::request::Builder {
    Request::get(format!("http://{address}{path}"))
}

fn post(address: SocketAddr, path: &str) -> http::request::Builder {
    Request::post(format!("http://{address}{path}"))
}

#[tokio::test]
async fn the_front_page_names_every_page_and_an_unknown_path_shows_it() {
    let address = start(State::empty()).await;
    let (front, list) = fetch(get(address, "/"), "").await;
    assert_eq!(front.status, StatusCode::OK);
    for path in [
        "/ready",
        "/live",
        "/metrics",
        "/config/problems",
        "/clusters",
        "/lanes",
        "/log",
        "/leave",
        "/drain",
    ] {
        assert!(list.contains(path), "{path} is missing in\n{list}");
        let (parts, _) = fetch(Request::head(format!("http://{address}{path}")), "").await;
        assert_ne!(parts.status, StatusCode::NOT_FOUND, "{path}");
    }
    let (unknown, text) = fetch(get(address, "/nothing"), "").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(text.contains("no page /nothing") && text.contains("/metrics"));
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let address = start(State::empty()).await;
    let (drain, _) = fetch(get(address, "/drain"), "").await;
    assert_eq!(drain.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(drain.headers["allow"], "POST");
    let (config, _) = fetch(post(address, "/config"), "").await;
    assert_eq!(config.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(config.headers["allow"], "GET, HEAD");
}

#[tokio::test]
async fn ready_gives_every_reason_and_the_probe_passes_them_on() {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = ready.clone();
    let address = start(State {
        ready: Box::new(move || match asked.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(vec![
                "no snapshot yet".into(),
                "worker 1 does not listen".into(),
            ]),
        }),
        ..State::empty()
    })
    .await;
    let refusal = probe(address, "/ready", GUARD)
        .await
        .expect_err("not ready yet")
        .to_string();
    assert!(
        refusal.contains("503")
            && refusal.contains("no snapshot yet")
            && refusal.contains("worker 1"),
        "{refusal}"
    );
    ready.store(true, Ordering::Relaxed);
    probe(address, "/ready", GUARD).await.expect("ready now");
    let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
    probe(everywhere, "/ready", GUARD)
        .await
        .expect("ready on loopback");
}

#[tokio::test]
async fn the_probe_of_a_closed_port_says_what_to_check() {
    let unused = {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port");
        listener.local_addr().expect("a bound listener")
    };
    let error = probe(unused, "/ready", GUARD)
        .await
        .expect_err("nobody listens");
    assert!(matches!(error, ProbeError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn metrics_come_in_the_format_that_accept_names() {
    let address = start(State {
        metrics: Box::new(|open| format!("openmetrics {open}\n")),
        ..State::empty()
    })
    .await;
    let (plain, text) = fetch(get(address, "/metrics").header("accept", "*/*"), "").await;
    assert_eq!(
        plain.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert_eq!(text, "openmetrics false\n");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
    let (open, text) = fetch(get(address, "/metrics").header("accept", accept), "").await;
    assert!(
        open.headers["content-type"]
            .to_str()
            .expect("text")
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert_eq!(text, "openmetrics true\n");
}

#[tokio::test]
async fn clusters_are_a_table_for_people_and_json_for_machines() {
    let cluster = |name: &str| ClusterView {
        name: name.into(),
        policy: "peak_ewma".into(),
        endpoints: vec![EndpointView {
            address: "10.0.0.7:8080".into(),
            state: "ejected".into(),
            why: "5 resets in a row".into(),
            ..EndpointView::default()
        }],
        ..ClusterView::default()
    };
    let views = vec![cluster("default/cart"), cluster("default/shop")];
    let address = start(State {
        clusters: Box::new(move || views.clone()),
        ..State::empty()
    })
    .await;
    let (_, table) = fetch(get(address, "/clusters"), "").await;
    assert!(
        table.contains("default/cart") && table.contains("5 resets in a row"),
        "{table}"
    );
    let (_, text) = fetch(get(address, "/clusters?service=shop&format=json"), "").await;
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value.as_array().map(Vec::len), Some(1));
    assert_eq!(value[0]["endpoints"][0]["state"], json!("ejected"));
}

#[tokio::test]
async fn the_log_level_changes_at_run_time_and_a_bad_one_changes_nothing() {
    let level = Arc::new(Mutex::new(String::from("info")));
    let (shown, changed) = (level.clone(), level.clone());
    let address = start(State {
        log_level: Box::new(move || shown.lock().expect("no panic holds it").clone()),
        set_log_level: Box::new(move |new| match new {
            "loud" => Err("loud is no level".into()),
            _ => {
                *changed.lock().expect("no panic holds it") = new.into();
                Ok(())
            }
        }),
        ..State::empty()
    })
    .await;
    assert_eq!(
        fetch(post(address, "/log?level=info%2Cpillion=debug"), "")
            .await
            .1,
        "info,pillion=debug\n"
    );
    assert_eq!(fetch(post(address, "/log"), "trace\n").await.1, "trace\n");
    let (parts, problem) = fetch(post(address, "/log"), "loud").await;
    assert_eq!(
        (parts.status, problem.as_str()),
        (StatusCode::BAD_REQUEST, "loud is no level\n")
    );
    assert_eq!(fetch(get(address, "/log"), "").await.1, "trace\n");
}

#[tokio::test]
async fn a_rebound_name_can_neither_read_nor_drain() {
    let drained = Arc::new(AtomicBool::new(false));
    let drain = drained.clone();
    let address = start(State {
        drain: Box::new(move || drain.store(true, Ordering::Relaxed)),
        ..State::empty()
    })
    .await;
    for request in [
        post(address, "/leave"),
        post(address, "/drain"),
        get(address, "/config"),
    ] {
        let (parts, _) = fetch(request.header("host", "evil.example:15000"), "").await;
        assert_eq!(parts.status, StatusCode::FORBIDDEN);
    }
    assert!(!drained.load(Ordering::Relaxed));
    let (parts, _) = fetch(post(address, "/drain"), "").await;
    assert_eq!(parts.status, StatusCode::ACCEPTED);
    assert!(drained.load(Ordering::Relaxed));
}

#[tokio::test]
async fn requests_are_small_or_refused() {
    let address = start(State::empty()).await;
    let (parts, _) = fetch(post(address, "/log"), &"x".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!(parts.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the admin listener");
    let head = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "x".repeat(2 * HEAD_BYTES_MAX)
    );
    // The server may close before it has read all of it.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(GUARD, stream.read_to_end(&mut answer))
        .await
        .expect("no hang");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_page_that_panics_fails_alone() {
    let address = start(State {
        config: Box::new(|| panic!("a bug")),
        ..State::empty()
    })
    .await;
    assert_eq!(
        fetch(get(address, "/config"), "").await.0.status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert_eq!(
        fetch(get(address, "/live"), "").await.0.status,
        StatusCode::OK
    );
}
