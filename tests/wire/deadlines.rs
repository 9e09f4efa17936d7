//! How long callers wait, and what the next hop hears of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::harness::{Extra, Mesh, Peer, Then, field, status};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn plain() -> Mesh {
    Mesh::start(|upstream, _| {
        upstream.send(OK);
        Then::Keep
    })
}

/// An upstream that never says more than `beginning`.
fn silent(beginning: &'static [u8]) -> Mesh {
    Mesh::start(move |upstream, _| {
        upstream.send(beginning);
        upstream.read_to_end();
        Then::Close
    })
}

fn get(host: &str, fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").into_bytes()
}

/// What is left according to a field in milliseconds.
fn milliseconds(head: &str, name: &str) -> u64 {
    let value = field(head, name).unwrap_or_else(|| panic!("{name} in {head:?}"));
    value.parse().expect("a number")
}

#[test]
fn a_request_ends_when_its_caller_does_not_wait_any_longer() {
    for name in ["x-mesh-timeout-ms", "x-envoy-expected-rq-timeout-ms"] {
        for connect in [Mesh::connect_outbound, Mesh::connect_inbound] {
            let mesh = silent(b"");
            let mut client = connect(&mesh);
            client.send(&get("app", &format!("{name}: 1000\r\n")));
            let head = client.read_head();
            assert_eq!(status(&head), 504, "{head:?}");
            let reason = field(&head, "proxy-status").unwrap_or_default();
            assert!(reason.contains(&format!("the caller's {name}")), "{head:?}");
            assert!(milliseconds(&mesh.only_head(), name) <= 1_000);
            assert!(mesh.access_log(1)[0].contains("\"DT\""));
        }
    }
}

#[test]
fn a_grpc_call_ends_with_deadline_exceeded_and_tells_the_server_what_is_left() {
    let mesh = silent(b"");
    let mut client = mesh.connect();
    client.send(&get(
        "a",
        "Content-Type: application/grpc\r\ngrpc-timeout: 1S\r\n",
    ));
    let head = client.read_head();
    assert_eq!(
        (status(&head), field(&head, "grpc-status")),
        (200, Some("4")),
        "{head:?}"
    );
    let told = mesh.only_head();
    let left = field(&told, "grpc-timeout").expect("it is told");
    assert!(left.ends_with(['n', 'u']), "{left}");
    assert_eq!(field(&told, "x-mesh-timeout-ms"), None);
}

#[test]
fn an_answer_under_way_is_cut_when_the_time_is_over() {
    let mesh = silent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun");
    let mut client = mesh.connect_outbound();
    client.send(&get("app", "x-mesh-timeout-ms: 1000\r\n"));
    let answer = client.read_to_end_or_reset().0;
    assert!(answer.ends_with("begun"), "{answer:?}");
    assert!(mesh.access_log(1)[0].contains("\"DT\""));
}

#[test]
fn a_request_whose_time_is_over_goes_nowhere() {
    let mesh = plain();
    let mut client = mesh.connect_outbound();
    client.send(&get("app", "x-mesh-timeout-ms: 0\r\n"));
    assert_eq!(status(&client.read_head()), 504);
    let mut client = mesh.connect();
    client.send(&get(
        "a",
        "grpc-timeout: 0S\r\nContent-Type: application/grpc\r\n",
    ));
    assert_eq!(field(&client.read_head(), "grpc-status"), Some("4"));
    assert_eq!(mesh.heads(), Vec::<String>::new());
}

#[test]
fn a_request_does_not_wait_in_a_lane_for_longer_than_its_caller_for_it() {
    let extra = Extra {
        service: "lane: {limit: 1, queue: {timeout: 60s}}",
        ..Extra::default()
    };
    let (tell, told) = mpsc::channel();
    let mesh = Mesh::start_with(&extra, move |upstream, _| {
        let _ = tell.send(());
        upstream.read_to_end();
        Then::Close
    });
    let mut first = mesh.connect_inbound();
    first.send(&get("app", ""));
    assert_eq!(told.recv(), Ok(()), "the only slot is taken");
    let mut client = mesh.connect_inbound();
    client.send(&get("app", "x-mesh-timeout-ms: 500\r\n"));
    let head = client.read_head();
    assert_eq!(
        (status(&head), field(&head, "x-mesh-shed")),
        (504, Some("deadline")),
        "{head:?}"
    );
}

#[test]
fn a_gateway_believes_no_stranger_but_for_its_own_grpc_timeout() {
    let mesh = plain();
    let mut client = mesh.connect();
    client.send(&get(
        "a",
        "x-mesh-timeout-ms: 0\r\nx-envoy-expected-rq-timeout-ms: 1\r\ngrpc-timeout: 1H\r\n",
    ));
    assert_eq!(status(&client.read_head()), 200);
    let head = mesh.only_head();
    assert_eq!(field(&head, "x-mesh-timeout-ms"), None, "{head:?}");
    assert_eq!(
        field(&head, "x-envoy-expected-rq-timeout-ms"),
        None,
        "{head:?}"
    );
    assert!(
        field(&head, "grpc-timeout").is_some_and(|left| left != "1H"),
        "{head:?}"
    );
}

#[test]
fn without_any_limit_nothing_is_said_of_one() {
    let mesh = plain();
    for mut client in [
        mesh.connect(),
        mesh.connect_outbound(),
        mesh.connect_inbound(),
    ] {
        client.send(&get("app", ""));
        assert_eq!(status(&client.read_head()), 200);
    }
    for head in mesh.heads() {
        assert!(!head.contains("timeout"), "{head:?}");
    }
}

#[test]
fn each_attempt_is_told_what_is_left_of_the_routes_limit() {
    let extra = Extra {
        rule: ", timeouts: {request: 60s}, retry: {attempts: 1, codes: [503], backoff: 50ms}",
        ..Extra::default()
    };
    let requests = AtomicUsize::new(0);
    let mesh = Mesh::start_with(&extra, move |upstream: &mut Peer, _| {
        let first = requests.fetch_add(1, Ordering::Relaxed) == 0;
        upstream.send(match first {
            true => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            false => OK,
        });
        Then::Keep
    });
    let mut client = mesh.connect();
    client.send(&get("a", ""));
    assert_eq!(status(&client.read_head()), 200);
    let left: Vec<_> = mesh
        .heads()
        .iter()
        .map(|head| milliseconds(head, "x-mesh-timeout-ms"))
        .collect();
    assert!(left[0] <= 60_000 && left[1] <= left[0] - 50, "{left:?}");
}
