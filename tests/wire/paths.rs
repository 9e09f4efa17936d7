//! Paths that servers read differently: what is matched is what is forwarded, or nothing is.

use super::harness::{Extra, Mesh, Peer, Then, status};

fn mesh(extra: &Extra) -> Mesh {
    Mesh::start_with(extra, |upstream, _| {
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Then::Keep
    })
}

/// The status of the answer to a GET of this target for the service `app`.
fn get(mut client: Peer, target: &str) -> u16 {
    client.send(
        format!("GET {target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    status(&client.read_to_end())
}

/// The targets that have reached the upstream.
fn targets(mesh: &Mesh) -> Vec<String> {
    let heads = mesh.heads();
    let target = |head: &String| head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.iter().map(target).collect()
}

/// Data to one server, slashes to another.
const AMBIGUOUS: &str = r"/a%2Fb%5Cc\d//e?q=%2F//\..%2f";

#[test]
fn by_default_they_are_data_even_where_a_rule_looks_at_the_path() {
    let looks = Extra {
        rule: ", matches: [{path: {type: RegularExpression, value: '/a%2F.*//e'}}]",
        ..Extra::default()
    };
    for extra in [Extra::default(), looks] {
        let mesh = mesh(&extra);
        for client in [
            mesh.connect(),
            mesh.connect_outbound(),
            mesh.connect_inbound(),
        ] {
            assert_eq!(get(client, AMBIGUOUS), 200);
        }
        assert_eq!(targets(&mesh), [AMBIGUOUS; 3]);
    }
}

#[test]
fn what_comes_past_a_rule_that_looks_at_the_path_is_forwarded_as_it_was_matched() {
    let only_all = mesh(&Extra::default());
    assert_eq!(get(only_all.connect(), "/admin/../x"), 200);
    assert_eq!(targets(&only_all), ["/admin/../x"]);

    let guarded = mesh(&Extra {
        rule: "}, {matches: [{path: {value: /admin}}]",
        ..Extra::default()
    });
    assert_eq!(get(guarded.connect(), "/x/../admin"), 500);
    assert_eq!(get(guarded.connect(), "/admin/../x"), 200);
    assert_eq!(targets(&guarded), ["/x"]);
}

#[test]
fn what_a_listener_rejects_does_not_pass_it() {
    let table = [
        (
            ", path: {encoded_slash: reject}",
            ["/a%2Fb", "/%2f"],
            r"/a\b%5C//?q=%2F",
        ),
        (
            ", path: {backslash: reject}",
            [r"/a\b", "/a%5cb"],
            r"/a%2Fb//?q=\",
        ),
    ];
    for (listener, refused, passes) in table {
        let mesh = mesh(&Extra {
            listener,
            ..Extra::default()
        });
        for target in refused {
            assert_eq!(get(mesh.connect(), target), 400, "{target}");
        }
        assert_eq!(get(mesh.connect(), passes), 200);
        assert_eq!(targets(&mesh), [passes]);
    }
}

#[test]
fn what_a_listener_rewrites_is_matched_and_forwarded_as_one() {
    const MATCHES: &str = ", matches: [{path: {type: PathPrefix, value: /public}}]";
    let table = [
        ("", "/private%2F..%2Fpublic/x", None),
        ("", "/private/../public/x?q=//", Some("/public/x?q=//")),
        (
            ", path: {encoded_slash: decode}",
            "/private%2F..%2Fpublic/x?q=%2F",
            Some("/public/x?q=%2F"),
        ),
        (
            ", path: {encoded_slash: decode}",
            "http://app/public%2fx",
            Some("/public/x"),
        ),
        (
            ", path: {encoded_slash: decode}",
            "/public%2F..%2Fprivate",
            None,
        ),
        (
            ", path: {encoded_slash: decode}",
            "/public%252F..%252Fprivate",
            None,
        ),
        (
            ", path: {backslash: decode}",
            r"/private\..%5Cpublic\x?q=\",
            Some(r"/public/x?q=\"),
        ),
        (", path: {backslash: decode}", r"/public\..\private", None),
        (
            ", path: {merge_slashes: true}",
            "//public///x//?q=//",
            Some("/public/x/?q=//"),
        ),
        (", path: {merge_slashes: true}", "/public//../private", None),
    ];
    for (listener, target, forwarded) in table {
        let mesh = mesh(&Extra {
            listener,
            rule: MATCHES,
            ..Extra::default()
        });
        let expected = if forwarded.is_some() { 200 } else { 404 };
        assert_eq!(get(mesh.connect(), target), expected, "{listener} {target}");
        assert_eq!(
            targets(&mesh),
            Vec::from_iter(forwarded),
            "{listener} {target}"
        );
    }
}

#[test]
fn a_listener_rewrites_where_no_rule_looks_at_the_path_too() {
    let mesh = mesh(&Extra {
        listener: ", path: {encoded_slash: decode, backslash: decode, merge_slashes: true}",
        ..Extra::default()
    });
    assert_eq!(get(mesh.connect(), AMBIGUOUS), 200);
    assert_eq!(targets(&mesh), [r"/a/b/c/d/e?q=%2F//\..%2f"]);
}

#[test]
fn a_service_has_its_say_at_both_sidecars_and_not_at_the_gateway() {
    let mesh = mesh(&Extra {
        service: "path: {encoded_slash: decode, backslash: reject}",
        ..Extra::default()
    });
    for client in [mesh.connect_outbound(), mesh.connect_inbound()] {
        assert_eq!(get(client, "/a%2F..%2Fb//c?q=%2F"), 200);
    }
    for client in [mesh.connect_outbound(), mesh.connect_inbound()] {
        assert_eq!(get(client, r"/a\b"), 400);
    }
    assert_eq!(get(mesh.connect(), AMBIGUOUS), 200);
    assert_eq!(targets(&mesh), ["/b//c?q=%2F", "/b//c?q=%2F", AMBIGUOUS]);
}
