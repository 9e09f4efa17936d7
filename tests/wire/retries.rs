//! What a retry says of itself, and when there is none.

use super::harness::{Extra, Mesh, Then, field, status};

const RETRIED: Extra = Extra {
    listener: "",
    rule: ", retry: {attempts: 2, codes: [503], backoff: 1ms}",
    limits: "",
    service: "",
    bootstrap: "",
};
const TRUSTING: Extra = Extra {
    bootstrap: "trusted_networks: [127.0.0.0/8]",
    ..RETRIED
};

/// An upstream that answers whatever comes with 503 and these fields.
fn failing(extra: &Extra, fields: &'static str) -> Mesh {
    Mesh::start_with(extra, move |upstream, _| {
        let answer = format!("HTTP/1.1 503 No\r\nContent-Length: 0\r\n{fields}\r\n");
        upstream.send(answer.as_bytes());
        Then::Keep
    })
}

/// The marks of the attempts that a request with these fields makes; it fails in the end.
fn marks(mesh: &Mesh, fields: &str) -> Vec<Option<String>> {
    let mut client = mesh.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    assert_eq!(status(&client.read_head()), 503);
    let heads = mesh.heads();
    let marks = heads.iter().map(|head| field(head, "x-mesh-attempt"));
    marks.map(|mark| mark.map(str::to_owned)).collect()
}

fn some(marks: &[&str]) -> Vec<Option<String>> {
    marks.iter().map(|mark| Some((*mark).to_owned())).collect()
}

#[test]
fn a_retry_says_which_attempt_it_is_and_a_first_attempt_says_nothing() {
    let marks = marks(&failing(&RETRIED, ""), "");
    assert_eq!(marks[0], None);
    assert_eq!(marks[1..], some(&["2", "3"]));
}

#[test]
fn what_somebody_else_repeats_is_not_retried_again() {
    let mesh = failing(&TRUSTING, "");
    assert_eq!(marks(&mesh, "x-mesh-attempt: 2\r\n"), some(&["2"]));
}

#[test]
fn a_stranger_cannot_switch_retries_off() {
    let marks = marks(&failing(&RETRIED, ""), "x-mesh-attempt: 2\r\n");
    assert_eq!(marks[0], None);
    assert_eq!(marks.len(), 3);
}

#[test]
fn a_server_that_asks_not_to_be_tried_again_soon_is_not() {
    for (fields, attempts) in [
        ("grpc-retry-pushback-ms: -1\r\n", 1),
        ("grpc-retry-pushback-ms: 60000\r\n", 1),
        ("Retry-After: 60\r\n", 1),
        ("grpc-retry-pushback-ms: 5\r\n", 3),
        ("Retry-After: 0\r\n", 3),
    ] {
        let marks = marks(&failing(&RETRIED, fields), "");
        assert_eq!(marks.len(), attempts, "{fields}");
    }
}

#[test]
fn a_pause_that_the_deadline_leaves_no_time_for_ends_the_tries_at_once() {
    let extra = Extra {
        rule: ", timeouts: {request: 5s}, retry: {attempts: 2, codes: [503]}",
        ..RETRIED
    };
    assert_eq!(marks(&failing(&extra, "Retry-After: 6\r\n"), "").len(), 1);
}
