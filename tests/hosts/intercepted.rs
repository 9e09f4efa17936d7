//! Unmodified programs on two hosts, whose traffic goes through real sidecars without them knowing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::machine::ready;
use crate::namespace::{Host, Pair, SERVER};
use crate::process::{HANG, run, succeed};
use crate::sidecar::{FileServer, PAGE, Sidecar, curl};

const NEEDS: [&str; 7] = ["ip", "nft", "nsenter", "setpriv", "ss", "curl", "python3"];

/// The mesh that both sidecars know: a shop on the server, by its address of either family.
fn mesh() -> String {
    let [v4, v6] = SERVER;
    format!(
        "kind: Service\nname: shop\nports: [{{port: 8080, protocol: http}}]\nendpoints: [{{address: '{v4}:8080'}}]\n\
         ---\nkind: Service\nname: shop6\nports: [{{port: 8080, protocol: http}}]\nendpoints: [{{address: '[{v6}]:8080'}}]\n"
    )
}

const CALLER: &str = "service: caller";
const SHOP: &str = "apps: [{service: shop, port: 8080}]";

/// Curl's words for dialling a service of the mesh at an address, which is what a name service would give it.
fn resolved(service: &str, address: IpAddr) -> String {
    let address = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    format!("{service}:8080:{address}")
}

fn answered(host: &Host, words: &[&str]) -> String {
    succeed(curl(host).args(words))
}

#[test]
fn curl_and_a_plain_server_talk_through_the_sidecars_of_both_sides() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = FileServer::start(&pair.server, 8080);
    let shop = Sidecar::start(&pair.server, SHOP, &mesh());
    let caller = Sidecar::start(&pair.client, CALLER, &mesh());
    let before = [pair.client.ruleset(), pair.server.ruleset()];
    pair.client.apply_rules("");
    pair.server.apply_rules("");
    for (service, address) in ["shop", "shop6"].into_iter().zip(SERVER) {
        let path = format!("/page.txt?{service}");
        let url = format!("http://{service}:8080{path}");
        let body = answered(
            &pair.client,
            &["--resolve", &resolved(service, address), &url],
        );
        assert_eq!(body, format!("{PAGE}\n200"));
        let outbound = caller.line_of(&path);
        assert_eq!(
            outbound["service"],
            format!("default/{service}"),
            "{outbound}"
        );
        assert_eq!(outbound["status"], 200, "{outbound}");
        let inbound = shop.line_of(&path);
        assert_eq!(inbound["listener"], "inbound", "{inbound}");
        assert_eq!(inbound["status"], 200, "{inbound}");
        assert_eq!(inbound["authority"], format!("{service}:8080"), "{inbound}");
    }
    // A sidecar keeps connections to its peers for later, so the rules that lead to a peer can go once it has ended.
    for (host, before, sidecar) in [
        (&pair.client, &before[0], caller),
        (&pair.server, &before[1], shop),
    ] {
        assert!(
            sidecar.stop(),
            "a sidecar that is asked to end does so in peace"
        );
        let removed = host.intercept("remove");
        assert_eq!(removed.code, Some(0), "{}", removed.stderr);
        assert_eq!(&host.ruleset(), before);
    }
    let url = format!("http://{}/page.txt", SocketAddr::new(SERVER[0], 8080));
    assert_eq!(answered(&pair.client, &[&url]), format!("{PAGE}\n200"));
}

#[test]
fn what_the_mesh_does_not_know_is_passed_through_unchanged() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = FileServer::start(&pair.server, 9000);
    let caller = Sidecar::start(&pair.client, CALLER, &mesh());
    for (address, path) in SERVER.into_iter().zip(["/page.txt?4", "/page.txt?6"]) {
        let url = format!("http://{}{path}", SocketAddr::new(address, 9000));
        let without = exchange(&pair.client, &url);
        let redirected = caller.log();
        assert!(
            redirected.iter().all(|line| line["path"] != path),
            "{redirected:?}"
        );
        pair.client.apply_rules("");
        assert_eq!(exchange(&pair.client, &url), without);
        let line = caller.line_of(path);
        assert_eq!(line["authority"], "elsewhere.example", "{line}");
        assert_eq!(pair.client.intercept("remove --force").code, Some(0));
    }
}

/// The whole answer, with its head as it came, to a request with headers of its own.
fn exchange(host: &Host, url: &str) -> Vec<String> {
    let headers = [
        "--header",
        "X-Case: Kept",
        "--header",
        "Host: elsewhere.example",
    ];
    let answer = answered(host, &[&["--include", url], &headers[..]].concat());
    // The server's clock is no property of the way, and everybody on the way says the HTTP version that they speak.
    let lines = answer.lines().filter(|line| !line.starts_with("Date:"));
    lines
        .map(|line| line.replace("HTTP/1.0 ", "HTTP/1.1 "))
        .collect()
}

#[test]
fn a_destination_that_refuses_is_an_answer_and_one_of_the_proxys_ports_is_no_loop() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = FileServer::start(&pair.server, 8080);
    let shop = Sidecar::start(&pair.server, SHOP, &mesh());
    pair.server.apply_rules("");
    for address in SERVER {
        // Redirected to the inbound listener, with the outbound listener as its destination: refused without an answer.
        let url = format!("http://{}/", SocketAddr::new(address, 15001));
        let refused = run(curl(&pair.client).arg(&url));
        assert_ne!(refused.code, Some(0), "{}", refused.stdout);
        assert_ne!(refused.code, Some(28), "it hung: {}", refused.stderr);
    }
    // Dialled directly, the listeners have no destination but the one in the request, which is themselves.
    for own in ["127.0.0.1:15001", "127.0.0.1:15006"] {
        let answer = run(curl(&pair.server).arg(format!("http://{own}/loop")));
        assert_ne!(answer.code, Some(28), "it hung: {}", answer.stderr);
    }
    let loops = shop
        .log()
        .iter()
        .filter(|line| line["path"] == "/loop")
        .count();
    assert!(loops <= 4, "a request went round: {:?}", shop.log());
    // And it serves on.
    let url = format!("http://{}/page.txt", SocketAddr::new(SERVER[0], 8080));
    assert_eq!(answered(&pair.client, &[&url]), format!("{PAGE}\n200"));
}

/// A server that greets first, says what it was told, and ends after its client has.
pub fn greeter(host: &Host, port: u16) {
    host.inside(|| {
        let listener = TcpListener::bind(("::", port)).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || greet(connection));
            }
        });
    });
}

fn greet(mut connection: TcpStream) -> io::Result<()> {
    writeln!(connection, "220 shop.example ready")?;
    let mut told = Vec::new();
    connection.read_to_end(&mut told)?;
    writeln!(connection, "250 heard {} bytes", told.len())
}

#[test]
fn a_protocol_in_which_the_server_speaks_first_passes_both_sidecars_with_its_half_close() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    greeter(&pair.server, 2525);
    // Only the greeter listens, at a port of no service.
    let shop = "apps: [{service: shop, port: 8080, health: none}]";
    let shop = Sidecar::start(&pair.server, shop, &mesh());
    let caller = Sidecar::start(&pair.client, CALLER, &mesh());
    pair.server.apply_rules("");
    pair.client.apply_rules("");
    for address in SERVER {
        let (banner, ending) = pair.client.inside(|| talk(address, 2525)).unwrap();
        assert_eq!(banner, "220 shop.example ready\n");
        assert_eq!(ending, "250 heard 100000 bytes\n");
        let endpoint = SocketAddr::new(address, 2525).to_string();
        for (sidecar, listener) in [(&caller, "outbound"), (&shop, "inbound")] {
            let line = sidecar.line_with("endpoint", |text| text == endpoint);
            assert_eq!(line["protocol"], "TCP", "{line}");
            assert_eq!(line["listener"], listener, "{line}");
            assert_eq!(line["service"], "passthrough", "{line}");
            assert_eq!(line["bytes_in"], 100_000, "{line}");
            assert_eq!(line["bytes_out"], banner.len() + ending.len(), "{line}");
            assert_eq!(line["flags"], Value::Null, "{line}");
        }
    }
    for sidecar in [caller, shop] {
        assert_eq!(sidecar.log().len(), SERVER.len(), "one line a connection");
    }
}

#[test]
fn a_port_of_a_service_that_its_application_serves_at_another_is_known_by_either() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = FileServer::start(&pair.server, 8080);
    let shop = "apps: [{service: shop, port: 80, app: 8080}]";
    let shop = Sidecar::start(&pair.server, shop, &mesh());
    pair.server.apply_rules("");
    for port in [8080, 80] {
        let path = format!("/page.txt?{port}");
        let url = format!("http://{}{path}", SocketAddr::new(SERVER[0], port));
        assert_eq!(answered(&pair.client, &[&url]), format!("{PAGE}\n200"));
        let line = shop.line_of(&path);
        assert_eq!(line["service"], "default/shop", "{line}");
        assert_eq!(line["endpoint"], "127.0.0.1:8080", "{line}");
    }
}

/// Waits for the server's words, tells it something, closes that side, and hears the rest.
pub fn talk(address: IpAddr, port: u16) -> io::Result<(String, String)> {
    let mut connection = TcpStream::connect_timeout(&(address, port).into(), HANG)?;
    connection.set_read_timeout(Some(HANG))?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let (mut banner, mut ending) = (String::new(), String::new());
    reader.read_line(&mut banner)?;
    connection.write_all(&[b'x'; 100_000])?;
    connection.shutdown(Shutdown::Write)?;
    reader.read_to_string(&mut ending)?;
    Ok((banner, ending))
}

#[test]
fn an_application_that_listens_on_loopback_alone_is_reached_and_sees_its_own_host_name() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    pair.server.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || mirror(connection));
            }
        });
    });
    let _shop = Sidecar::start(&pair.server, SHOP, &mesh());
    pair.server.apply_rules("");
    let url = format!("http://{}/Path%2f?Query", SocketAddr::new(SERVER[0], 8080));
    let seen = answered(&pair.client, &["--header", "X-Case: Kept", &url]);
    assert!(seen.contains("GET /Path%2f?Query HTTP/1.1"), "{seen}");
    assert!(
        seen.contains(&format!("Host: {}:8080", SERVER[0])),
        "{seen}"
    );
    assert!(seen.contains("X-Case: Kept"), "{seen}");
}

/// Answers with the request's head as it came.
fn mirror(mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = String::new();
    let mut reader = BufReader::new(connection.try_clone()?);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{head}",
        head.len()
    )
}
