//! Inbound connections that keep their addresses: an unmodified server sees its clients' although a sidecar stands between.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::machine::ready;
use crate::namespace::{CLIENT, Host, Pair, SERVER};
use crate::process::{HANG, Process, eventually, run, succeed};
use crate::sidecar::{Sidecar, curl};

const NEEDS: [&str; 7] = [
    "ip",
    "nft",
    "iptables-restore",
    "nsenter",
    "setpriv",
    "curl",
    "python3",
];

/// What it keeps for later requests it keeps shortly, since the rules stay for as long.
const SHOP: &str = "apps: [{service: shop, port: 8080}]\ninbound: {mode: tproxy}\nlimits: {upstream_idle_timeout: 3s}";
const MESH: &str = "kind: Service\nname: shop\nports: [{port: 8080, protocol: http}]\n";

const WAYS: [&str; 2] = [
    "--inbound-mode tproxy --backend nft",
    "--inbound-mode tproxy --backend iptables",
];

/// An HTTP/1.1 server of Python's that answers with its peer's address and port, on this port of both families.
fn who_is_it(host: &Host, port: u16) -> Process {
    let program = "\
import http.server, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = '{} {}'.format(*self.client_address).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(('::', int(sys.argv[1])), Answer).serve_forever()
";
    let mut command = host.command("python3");
    let process = Process::spawn(command.args(["-c", program, &port.to_string()]));
    eventually("the server to listen", || {
        host.inside(|| TcpStream::connect(("127.0.0.1", port))).ok()
    });
    process
}

/// Whom the server at this address has seen: its address and its port.
fn seen(host: &Host, address: IpAddr, words: &[&str]) -> (IpAddr, u16) {
    let url = format!("http://{}/", SocketAddr::new(address, 8080));
    let answer = succeed(curl(host).arg(&url).args(words));
    let (seen, status) = answer.split_once('\n').unwrap();
    assert_eq!(status, "200", "{answer}");
    let (address, port) = seen.split_once(' ').unwrap();
    let address: IpAddr = address.parse().unwrap();
    (address.to_canonical(), port.parse().unwrap())
}

#[test]
fn an_application_sees_its_clients_through_the_sidecar() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = who_is_it(&pair.server, 8080);
    let shop = Sidecar::start_with(&pair.server, &["net_raw"], SHOP, MESH);
    for way in WAYS {
        let before = pair.server.traces();
        pair.server.apply_rules(way);
        for (client, server) in CLIENT.into_iter().zip(SERVER) {
            let lines = shop.log().len();
            assert_eq!(seen(&pair.client, server, &[]).0, client);
            // It was the sidecar that carried it.
            eventually("a line in the access log", || {
                (shop.log().len() > lines).then_some(())
            });
        }
        // What is kept for later requests needs the rules as long as it is kept.
        let removed = pair.server.intercept("remove --drain 60");
        assert_eq!(removed.code, Some(0), "{}", removed.stderr);
        // A built-in chain that a program of iptables has made stays, and is no rule.
        if way.contains("nft") {
            assert_eq!(pair.server.traces(), before);
        }
    }
    assert_eq!(seen(&pair.client, SERVER[0], &[]).0, CLIENT[0]);
    assert!(shop.stop());
}

#[test]
fn clients_never_share_a_connection_to_the_application() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = who_is_it(&pair.server, 8080);
    let _shop = Sidecar::start_with(
        &pair.server,
        &["net_raw"],
        &format!("{SHOP}\nworkers: 1"),
        MESH,
    );
    pair.server.apply_rules(WAYS[0]);
    let other = "10.77.0.9";
    pair.client.ip(&format!("addr add {other}/24 dev eth0"));
    let [client, _] = CLIENT.map(|client| client.to_string());
    let from = |client: &str| seen(&pair.client, SERVER[0], &["--interface", client]);
    let (first, port) = from(&client);
    let (second, _) = from(other);
    assert_eq!(
        (first.to_string(), second.to_string()),
        (client.clone(), other.to_owned())
    );
    // The first one's connection is still there, and only it gets it.
    assert_eq!(from(&client), (first, port));
}

/// Greets each client with the address that it has, and echoes.
fn greeter(host: &Host, port: u16) {
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
    let peer = connection.peer_addr()?.ip().to_canonical();
    writeln!(connection, "hello {peer}")?;
    let mut reader = connection.try_clone()?;
    io::copy(&mut reader, &mut connection).map(drop)
}

fn greeted(host: &Host, address: IpAddr, port: u16) -> io::Result<(TcpStream, String)> {
    host.inside(|| {
        let connection = TcpStream::connect_timeout(&(address, port).into(), HANG)?;
        connection.set_read_timeout(Some(HANG))?;
        let mut line = String::new();
        BufReader::with_capacity(1, connection.try_clone()?).read_line(&mut line)?;
        Ok((connection, line.trim_end().to_owned()))
    })
}

fn still_echoes(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(b"x")?;
    connection.read_exact(&mut [0])
}

#[test]
fn live_connections_outlast_applying_replacing_and_removing() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    greeter(&pair.server, 2525);
    // Only the greeter listens, at a port of no service.
    let shop = SHOP.replace("port: 8080}", "port: 8080, health: none}");
    for way in WAYS {
        let _shop = Sidecar::start_with(&pair.server, &["net_raw"], &shop, MESH);
        for (client, server) in CLIENT.into_iter().zip(SERVER) {
            let hello = format!("hello {client}");
            let (mut direct, _) = greeted(&pair.client, server, 2525).unwrap();
            pair.server.apply_rules(way);
            still_echoes(&mut direct).unwrap();

            let (mut live, line) = greeted(&pair.client, server, 2525).unwrap();
            assert_eq!(line, hello, "{way}");
            pair.server
                .apply_rules(&format!("{way} --exclude-inbound-ports 9"));
            still_echoes(&mut live).unwrap();

            let unfinished = pair.server.intercept("remove --drain 0");
            assert_eq!(unfinished.code, Some(1), "{}", unfinished.stdout);
            assert!(
                unfinished.stderr.contains("1 redirected ones still live"),
                "{way}: {}",
                unfinished.stderr
            );
            still_echoes(&mut live).unwrap();
            still_echoes(&mut direct).unwrap();
            drop(live);
            let removed = pair.server.intercept("remove --drain 30");
            assert_eq!(removed.code, Some(0), "{}", removed.stderr);
            still_echoes(&mut direct).unwrap();
        }
    }
}

#[test]
fn one_of_the_proxys_ports_is_no_loop_and_a_dialled_listener_answers() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = who_is_it(&pair.server, 8080);
    let shop = Sidecar::start_with(&pair.server, &["net_raw"], SHOP, MESH);
    pair.server.apply_rules(WAYS[0]);
    for port in [15000, 15001, 15006] {
        let url = format!("http://{}/loop", SocketAddr::new(SERVER[0], port));
        let answer = run(curl(&pair.client).arg(&url));
        assert_ne!(answer.code, Some(28), "it hung: {}", answer.stderr);
    }
    let loops = shop
        .log()
        .iter()
        .filter(|line| line["path"] == "/loop")
        .count();
    assert!(loops <= 1, "a request went round: {:?}", shop.log());
    assert_eq!(seen(&pair.client, SERVER[0], &[]).0, CLIENT[0]);
}

#[test]
fn while_the_sidecar_is_away_nothing_reaches_the_application_past_it() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let _server = who_is_it(&pair.server, 8080);
    for way in WAYS {
        pair.server.apply_rules(way);
        for address in SERVER {
            let url = format!("http://{}/", SocketAddr::new(address, 8080));
            let dropped = run(curl(&pair.client).args(["--max-time", "1", &url]));
            assert_eq!(dropped.code, Some(28), "{way}: {}", dropped.stdout);
        }
        let removed = pair.server.intercept("remove --drain 5");
        assert_eq!(removed.code, Some(0), "{}", removed.stderr);
        assert_eq!(seen(&pair.client, SERVER[0], &[]).0, CLIENT[0]);
    }
}

#[test]
fn without_the_capability_the_sidecar_says_what_it_needs() {
    if !ready(&NEEDS) {
        return;
    }
    let host = Host::new("server");
    let said = Sidecar::spawn(&host, &[], SHOP, MESH).ended();
    assert!(said.contains("needs the capability NET_RAW"), "{said}");
}
