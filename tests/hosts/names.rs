//! Programs that call services by name alone, on a host whose name queries and connections its sidecar takes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

use crate::intercepted::{greeter, talk};
use crate::machine::ready;
use crate::namespace::{CLIENT, Host, Pair, SERVER};
use crate::process::{HANG, eventually, run, succeed};
use crate::sidecar::{FileServer, PAGE, Registry, Sidecar, curl};
use crate::upstream::{ELSEWHERE, Upstream};

const NEEDS: [&str; 8] = [
    "ip", "nft", "nsenter", "setpriv", "ss", "curl", "dig", "python3",
];

/// The sidecar's own name server.
const OWN: &str = "127.0.0.1:15053";

fn caller() -> String {
    format!("service: caller\ndns: {{upstreams: [{}]}}", SERVER[0])
}

/// A shop that speaks HTTP and a post office where the server speaks first, both on the server.
fn mesh() -> String {
    let address = SERVER[0];
    format!(
        "kind: Service\nname: shop\nports: [{{port: 8080, protocol: http}}]\nendpoints: [{{address: '{address}:8080'}}]\n\
         ---\nkind: Service\nname: mail\nports: [{{port: 2525, protocol: tcp}}]\nendpoints: [{{address: '{address}:2525'}}]\n"
    )
}

/// Two hosts, of which the client has a way to anywhere, as its resolver asks whatever server this machine is set to.
fn pair() -> Pair {
    let pair = Pair::new();
    pair.client
        .ip(&format!("route add default via {}", SERVER[0]));
    pair
}

/// What `dig` says, without everything around it.
fn dig(host: &Host, words: &str) -> String {
    let mut command = host.command("dig");
    command.args(["+short", "+time=10", "+tries=1"]);
    let said = succeed(command.args(words.split_whitespace()));
    // A try that was not answered is a comment before the answer to the next one.
    let answers: Vec<&str> = said.lines().filter(|line| !line.starts_with(';')).collect();
    answers.join("\n")
}

/// The status and the flags that `dig` shows.
fn dig_head(host: &Host, words: &str) -> String {
    let mut command = host.command("dig");
    command.args(["+nocmd", "+noall", "+comments", "+time=10", "+tries=1"]);
    succeed(command.args(words.split_whitespace()))
}

fn metric(host: &Host, sample: &str) -> Option<f64> {
    let metrics = succeed(
        host.command("curl")
            .args(["-sS", "http://127.0.0.1:15000/metrics"]),
    );
    let line = metrics.lines().find(|line| line.starts_with(sample))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_program_reaches_a_service_by_its_name_with_no_other_name_service() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let _server = FileServer::start(&pair.server, 8080);
    let _upstream = Upstream::start(&pair.server, SERVER[0]);
    let caller = Sidecar::start(&pair.client, &caller(), &mesh());
    let routes = pair.client.ip("route show");
    let rules = pair.client.ruleset();
    pair.client.apply_rules("--dns");
    for url in [
        "http://shop:8080/page.txt?port",
        "http://shop/page.txt?bare",
        "http://shop.default/page.txt?namespace",
        "http://shop.default.mesh/page.txt?full",
    ] {
        let answer = succeed(curl(&pair.client).arg(url));
        assert_eq!(answer, format!("{PAGE}\n200"), "{url}");
        let path = url
            .split_once("/page")
            .map(|(_, rest)| format!("/page{rest}"));
        let line = caller.line_of(&path.unwrap());
        assert_eq!(line["service"], "default/shop", "{line}");
    }
    // The service whose address was dialled is meant, where the host names nobody.
    let url = [
        "--header",
        "Host: nobody.example",
        "http://shop:8080/page.txt?dialled",
    ];
    assert_eq!(
        succeed(curl(&pair.client).args(url)),
        format!("{PAGE}\n200")
    );
    let line = caller.line_of("/page.txt?dialled");
    assert_eq!(line["service"], "default/shop", "{line}");

    let script = "import socket; print(socket.getaddrinfo('shop', 80, type=socket.SOCK_STREAM))";
    let found = succeed(pair.client.command("python3").args(["-c", script]));
    assert!(
        found.matches("240.").count() == 1 && !found.contains("AF_INET6"),
        "{found}"
    );

    assert!(caller.stop());
    assert_eq!(pair.client.intercept("remove").code, Some(0));
    assert_eq!(pair.client.ip("route show"), routes);
    assert_eq!(pair.client.ruleset(), rules);
}

#[test]
fn bytes_go_to_the_service_that_was_dialled_by_name_and_to_nobody_at_other_ports() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    greeter(&pair.server, 2525);
    let _upstream = Upstream::start(&pair.server, SERVER[0]);
    let caller = Sidecar::start(&pair.client, &caller(), &mesh());
    pair.client.apply_rules("--dns");
    let mail = pair.client.inside(|| address_of("mail"));
    let (banner, ending) = pair.client.inside(|| talk(mail, 2525)).unwrap();
    assert_eq!(banner, "220 shop.example ready\n");
    assert_eq!(ending, "250 heard 100000 bytes\n");
    let sent = eventually("a line about the mail", || {
        let mut log = caller.log().into_iter();
        log.find(|line| line["service"] == "default/mail")
    });
    assert_eq!(sent["protocol"], "TCP", "{sent}");

    // Of a service at a port that it has not, and of no service: closed at once, and no way round.
    let nobody = IpAddr::from([240, 1, 2, 3]);
    for (address, port) in [(mail, 2526), (nobody, 2525), (nobody, 15001)] {
        let heard = pair
            .client
            .inside(|| hear(address, port, b"\x16\x03\x01\x00\x00\x00"));
        assert!(
            matches!(&heard, Ok(heard) if heard.is_empty()) || heard.is_err(),
            "{heard:?}"
        );
        assert_ne!(
            heard.map_err(|error| error.kind()),
            Err(io::ErrorKind::WouldBlock)
        );
    }
    // A service's line has no such port, and an address of nobody no service.
    eventually("a line for each that was refused", || {
        let lines = caller.log().into_iter();
        let refused = lines.filter(|line| line["protocol"] == "TCP" && line["flags"] == "NR");
        (refused.count() == 3).then_some(())
    });
    let refused = run(curl(&pair.client).arg("http://240.1.2.3/"));
    assert!(refused.stdout.ends_with("\n502"), "{}", refused.stdout);
}

fn address_of(name: &str) -> IpAddr {
    let mut found = (name, 0).to_socket_addrs().unwrap();
    found.next().unwrap().ip()
}

/// Says something, and hears all that comes back.
fn hear(address: IpAddr, port: u16, said: &[u8]) -> io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect_timeout(&(address, port).into(), HANG)?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    connection.write_all(said)?;
    let mut heard = Vec::new();
    connection.read_to_end(&mut heard)?;
    Ok(heard)
}

#[test]
fn instances_that_register_are_called_by_name_and_have_one_address_everywhere() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let _server = FileServer::start(&pair.server, 8080);
    let _upstream = Upstream::start(&pair.server, SERVER[0]);
    let _registry = Registry::start(&pair.server);
    let registry = format!("registry: {{addresses: [http://{}:15010]}}", SERVER[0]);
    let shop = format!(
        "apps: [{{service: shop, port: 8080}}]\ndns: {{}}\nadvertise: {}\n{registry}",
        SERVER[0]
    );
    let _shop = Sidecar::start(&pair.server, &shop, "");
    let caller = Sidecar::start(&pair.client, &format!("{}\n{registry}", caller()), "");
    pair.client.apply_rules("--dns");
    let address = eventually("the shop to have a name", || {
        let address = dig(&pair.client, "shop");
        address.starts_with("240.").then_some(address)
    });
    let answer = succeed(curl(&pair.client).arg("http://shop:8080/page.txt?registered"));
    assert_eq!(answer, format!("{PAGE}\n200"));
    let line = caller.line_of("/page.txt?registered");
    assert_eq!(line["service"], "default/shop", "{line}");
    assert_eq!(dig(&pair.server, "@127.0.0.1 -p 15053 shop"), address);
}

#[test]
fn an_instance_that_is_dialled_by_its_own_address_is_the_one_that_answers_for_its_service() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let _server = FileServer::start(&pair.server, 8080);
    let _other = FileServer::start(&pair.server, 9000);
    greeter(&pair.server, 2525);
    let bootstrap = format!("{}\noutbound: {{passthrough: registered-only}}", caller());
    let caller = Sidecar::start(&pair.client, &bootstrap, &mesh());
    pair.client.apply_rules("--dns");
    let url = |port, path| format!("http://{}{path}", SocketAddr::new(SERVER[0], port));
    let answer = succeed(curl(&pair.client).arg(url(8080, "/page.txt?instance")));
    assert_eq!(answer, format!("{PAGE}\n200"));
    let line = caller.line_of("/page.txt?instance");
    assert_eq!(line["service"], "default/shop", "{line}");
    let (banner, _) = pair.client.inside(|| talk(SERVER[0], 2525)).unwrap();
    assert_eq!(banner, "220 shop.example ready\n");
    // What nobody has registered is refused.
    let refused = run(curl(&pair.client).arg(url(9000, "/page.txt")));
    assert!(refused.stdout.ends_with("\n502"), "{}", refused.stdout);
}

#[test]
fn everything_else_is_answered_by_the_upstream_as_it_is() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let upstream = Upstream::start(&pair.server, SERVER[0]);
    let _caller = Sidecar::start(&pair.client, &caller(), &mesh());
    pair.client.apply_rules("--dns");
    let client = &pair.client;
    assert_eq!(dig(client, "www.example"), ELSEWHERE);
    assert_eq!(dig(client, "+tcp www.example"), ELSEWHERE);
    // Whatever server a program asks, on this host or another, over either family.
    for server in ["127.0.0.53", "::1", "203.0.113.7", &CLIENT[0].to_string()] {
        assert_eq!(
            dig(client, &format!("@{server} www.example")),
            ELSEWHERE,
            "{server}"
        );
        assert!(
            dig(client, &format!("@{server} shop")).starts_with("240."),
            "{server}"
        );
    }
    // Too long for UDP: the client comes by TCP, and gets all of it.
    let long = dig(client, "long.example TXT");
    assert!(long.len() > 4000, "{} bytes", long.len());
    assert!(dig_head(client, "+ignore long.example TXT").contains(" tc "));

    for (words, status) in [
        ("nothing.mesh", "NXDOMAIN"),
        ("shop.default.mesh AAAA", "NOERROR"),
        ("elsewhere.test", "NXDOMAIN"),
        ("refused.example", "REFUSED"),
    ] {
        let head = dig_head(client, words);
        assert!(
            head.contains(&format!("status: {status}")),
            "{words}: {head}"
        );
    }
    let asked = upstream.asked();
    assert!(
        asked
            .iter()
            .all(|name| !name.contains("mesh") && !name.contains("shop")),
        "{asked:?}"
    );
    // The upstream is gone: the mesh is not.
    drop(upstream);
    assert!(dig_head(client, "www.example").contains("SERVFAIL"));
    assert!(dig(client, "shop").starts_with("240."));
}

/// A query as a client sends it, with an id to know its answer by.
fn query(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_bytes().unwrap()
}

#[test]
fn a_thousand_queries_at_once_are_all_answered() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let upstream = Upstream::start(&pair.server, SERVER[0]);
    let _caller = Sidecar::start(&pair.client, &caller(), &mesh());
    for name in ["shop.", "www.example."] {
        let answers = pair.client.inside(|| ask_at_once(name, 1000));
        assert_eq!(answers, 1000, "{name}");
    }
    assert!(upstream.asked().len() >= 1000);
    assert_eq!(
        metric(&pair.client, "pillion_dns_queries_total{outcome=\"mesh\"}"),
        Some(1000.0)
    );
    assert_eq!(
        metric(
            &pair.client,
            "pillion_dns_queries_total{outcome=\"forwarded\"}"
        ),
        Some(1000.0)
    );
    assert_eq!(metric(&pair.client, "pillion_dns_forwarding"), Some(0.0));
}

/// How many of so many queries, each from a socket of its own and sent once, have got an address.
fn ask_at_once(name: &str, count: u16) -> usize {
    let sockets: Vec<UdpSocket> = (0..count)
        .map(|id| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            socket.send_to(&query(name, id), OWN).unwrap();
            socket
        })
        .collect();
    let answered = |(id, socket): &(u16, UdpSocket)| {
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap_or_default();
        let message = Message::from_bytes(&answer[..length]);
        message.is_ok_and(|message| message.metadata.id == *id && message.answers.len() == 1)
    };
    (0..count).zip(sockets).filter(answered).count()
}

#[test]
fn packets_that_are_no_queries_and_clients_that_stall_disturb_nobody() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let _upstream = Upstream::start(&pair.server, SERVER[0]);
    let _caller = Sidecar::start(&pair.client, &caller(), &mesh());
    let stalling = pair.client.inside(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for number in 0..5000 {
            let mut bytes = query("shop.default.mesh.", number);
            bytes.resize(rng.usize(..600), 0);
            let place = rng.usize(..=bytes.len());
            bytes
                .iter_mut()
                .skip(place)
                .for_each(|byte| *byte = rng.u8(..));
            socket.send_to(&bytes, OWN).unwrap();
        }
        let stalls: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(OWN).unwrap()).collect();
        for mut stall in &stalls {
            stall.write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
        }
        stalls
    });
    // The socket's queue may still be full of the packets before, and the kernel drops what comes then.
    let answer = dig(&pair.client, "@127.0.0.1 -p 15053 +time=2 +tries=10 shop");
    assert!(answer.starts_with("240."), "{answer}");
    assert_eq!(
        dig(&pair.client, "@127.0.0.1 -p 15053 +tcp www.example"),
        ELSEWHERE
    );
    assert!(
        metric(
            &pair.client,
            "pillion_dns_queries_total{outcome=\"malformed\"}"
        ) > Some(0.0)
    );
    drop(stalling);
}

#[test]
fn own_queries_that_come_back_are_refused_and_go_round_no_further() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let _upstream = Upstream::start(&pair.server, SERVER[0]);
    // Rules that were made for a sidecar of another user, while there is none to be asked.
    pair.client.apply_rules("--dns --uid 4711");
    let _caller = Sidecar::start(&pair.client, &caller(), &mesh());
    for words in ["www.example", "+tcp www.example"] {
        let head = dig_head(&pair.client, words);
        assert!(head.contains("status: REFUSED"), "{head}");
    }
    let loops = metric(&pair.client, "pillion_dns_queries_total{outcome=\"loop\"}");
    assert!(loops >= Some(2.0) && loops <= Some(8.0), "{loops:?}");
    assert!(dig(&pair.client, "shop").starts_with("240."));
}

#[test]
fn a_service_whose_endpoints_lead_back_to_its_caller_has_none() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let endpoints = "[{address: '127.0.0.1:15001'}, {address: '240.1.2.3:80'}]";
    let mesh =
        format!("kind: Service\nname: round\nports: [{{port: 80}}]\nendpoints: {endpoints}\n");
    let caller = Sidecar::start(&pair.client, &caller(), &mesh);
    pair.client.apply_rules("--dns");
    let answer = run(curl(&pair.client).arg("http://round/"));
    assert!(answer.stdout.ends_with("\n503"), "{}", answer.stdout);
    caller.line_of("/");
    assert_eq!(caller.log().len(), 1, "{:?}", caller.log());
    let said = caller.said();
    assert!(said.contains("would come back to this proxy"), "{said}");
}

#[test]
fn the_route_comes_and_goes_with_the_rules_and_that_of_somebody_else_stays() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    let virtual_routes = || {
        let routes = host.ip("route show");
        routes
            .lines()
            .filter(|line| line.starts_with("240."))
            .count()
    };
    host.apply_rules("--dns");
    host.apply_rules("--dns");
    assert_eq!(host.intercept("check --dns").code, Some(0));
    assert_eq!(host.intercept("check").code, Some(1));
    assert_eq!(virtual_routes(), 1);
    host.apply_rules("");
    assert_eq!(virtual_routes(), 0);
    host.ip("route add 240.0.0.0/8 dev lo");
    host.apply_rules("--dns");
    assert_eq!(virtual_routes(), 2);
    // Somebody has flushed all rules.
    succeed(host.command("nft").args(["flush", "ruleset"]));
    assert_eq!(host.intercept("remove").stdout.trim(), "removed");
    assert_eq!(host.intercept("remove").stdout.trim(), "nothing to remove");
    assert_eq!(virtual_routes(), 1);
    let wrong = host.intercept("apply --dns --direction inbound");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("outbound"), "{}", wrong.stderr);
}

#[test]
fn a_name_server_that_cannot_have_its_port_says_so_and_nothing_starts() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = pair();
    let taken: SocketAddr = (Ipv4Addr::LOCALHOST, 15053).into();
    let _other = pair.client.inside(|| UdpSocket::bind(taken).unwrap());
    let said = Sidecar::refused(&pair.client, &caller(), &mesh());
    assert!(said.contains("dns.address"), "{said}");
}
