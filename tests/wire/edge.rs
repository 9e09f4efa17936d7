//! What is particular to the edge of the mesh: whom a Gateway listener believes.

use super::harness::{Extra, Mesh, Then, field, status};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn plain(extra: &Extra) -> Mesh {
    Mesh::start_with(extra, |upstream, _| {
        upstream.send(OK);
        Then::Keep
    })
}

/// The fields with these names that the upstream gets of a client that says all of them.
fn told(mesh: &Mesh) -> Vec<String> {
    let mut client = mesh.connect();
    client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
          X-Forwarded-Host: shop.example.com\r\nX-Forwarded-Port: 8443\r\nX-Forwarded-Prefix: /shop\r\n\
          Forwarded: for=192.0.2.1\r\nX-Other: kept\r\n\r\n",
    );
    assert_eq!(status(&client.read_head()), 200);
    let head = mesh.only_head();
    assert_eq!(field(&head, "x-other"), Some("kept"), "{head:?}");
    let fields = head.lines().filter(|line| line.contains("orwarded"));
    fields.map(str::to_owned).collect()
}

#[test]
fn what_a_client_says_of_whom_it_forwards_for_is_dropped() {
    let others = Extra {
        bootstrap: "trusted_networks: [10.0.0.0/8, '::1']",
        ..Extra::default()
    };
    for extra in [Extra::default(), others] {
        assert_eq!(
            told(&plain(&extra)),
            ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http"]
        );
    }
}

#[test]
fn a_peer_of_a_trusted_network_is_believed() {
    let extra = Extra {
        bootstrap: "trusted_networks: [10.0.0.0/8, 127.0.0.0/8]",
        ..Extra::default()
    };
    assert_eq!(
        told(&plain(&extra)),
        [
            "X-Forwarded-For: 192.0.2.1, 127.0.0.1",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: shop.example.com",
            "X-Forwarded-Port: 8443",
            "X-Forwarded-Prefix: /shop",
            "Forwarded: for=192.0.2.1",
        ]
    );
}
