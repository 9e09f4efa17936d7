//! The redirect rules on real hosts, with a stand-in for the proxy that says where a connection was going.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use pillion::intercept::{OriginalDst, original_dst};

use crate::machine::{pillion, ready};
use crate::namespace::{CLIENT, Host, Pair, SERVER};
use crate::process::{HANG, eventually, run, succeed};

const NEEDS: [&str; 4] = ["ip", "nft", "nsenter", "setpriv"];
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;

/// Where the stand-in listens: everywhere, IPv4 through a dual-stack socket, as an inbound listener does.
const WILDCARD: &str = "[::]";

/// Serves on its own threads until the test process ends: one line that names it and the original destination, then an echo.
fn stand_in(host: &Host, name: &'static str, address: &str, port: u16) {
    host.inside(|| {
        let listener = TcpListener::bind(format!("{address}:{port}")).unwrap();
        // A thread stays in the host of the thread that starts it.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || greet_and_echo(name, connection));
            }
        });
    });
}

fn greet_and_echo(name: &str, mut connection: TcpStream) -> io::Result<()> {
    let destination = match original_dst(&connection)? {
        Some(destination) => format!(
            "{destination}{}",
            if is_loop(destination) { " loop" } else { "" }
        ),
        None => "dialled".to_owned(),
    };
    writeln!(connection, "{name} {destination}")?;
    let mut reader = connection.try_clone()?;
    io::copy(&mut reader, &mut connection).map(drop)
}

fn is_loop(destination: OriginalDst) -> bool {
    let listeners = [OUTBOUND, INBOUND].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    destination.is_own(&listeners)
}

/// A connection that an application opens, and the line it is greeted with.
struct Greeted {
    connection: TcpStream,
    line: String,
}

fn dial(host: &Host, address: IpAddr, port: u16) -> io::Result<Greeted> {
    host.inside(|| {
        let connection = TcpStream::connect_timeout(&(address, port).into(), HANG)?;
        connection.set_read_timeout(Some(HANG))?;
        let mut line = String::new();
        BufReader::with_capacity(1, connection.try_clone()?).read_line(&mut line)?;
        let line = line.trim_end().to_owned();
        Ok(Greeted { connection, line })
    })
}

fn greeting(host: &Host, address: IpAddr, port: u16) -> String {
    let greeted = dial(host, address, port);
    greeted.map_or_else(|error| error.kind().to_string(), |greeted| greeted.line)
}

fn still_echoes(greeted: &mut Greeted) -> io::Result<()> {
    greeted.connection.write_all(b"x")?;
    greeted.connection.read_exact(&mut [0])
}

#[test]
fn what_an_application_dials_reaches_the_outbound_listener_with_its_destination() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.client, "outbound", "127.0.0.1", OUTBOUND);
    stand_in(&pair.client, "outbound", "[::1]", OUTBOUND);
    pair.client.apply_rules("");
    for address in SERVER {
        let destination = SocketAddr::new(address, 8080);
        assert_eq!(
            greeting(&pair.client, address, 8080),
            format!("outbound {destination}")
        );
    }
}

#[test]
fn what_arrives_for_a_host_reaches_the_inbound_listener_with_its_destination() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.server, "inbound", WILDCARD, INBOUND);
    stand_in(&pair.server, "application", WILDCARD, 22);
    pair.server.apply_rules("");
    for address in SERVER {
        let destination = SocketAddr::new(address, 8080);
        assert_eq!(
            greeting(&pair.client, address, 8080),
            format!("inbound {destination}")
        );
        assert_eq!(greeting(&pair.client, address, INBOUND), "inbound dialled");
        assert_eq!(greeting(&pair.client, address, 22), "application dialled");
    }
}

#[test]
fn a_peer_that_dials_a_listener_of_the_proxy_is_known_as_a_loop() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.server, "inbound", WILDCARD, INBOUND);
    pair.server.apply_rules("");
    for address in SERVER {
        let destination = SocketAddr::new(address, OUTBOUND);
        assert_eq!(
            greeting(&pair.client, address, OUTBOUND),
            format!("inbound {destination} loop")
        );
    }
}

#[test]
fn what_stays_on_the_host_is_not_redirected() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.client, "application", WILDCARD, 8080);
    pair.client.apply_rules("");
    let loopback = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
    for address in loopback.into_iter().chain(CLIENT) {
        assert_eq!(greeting(&pair.client, address, 8080), "application dialled");
    }
}

#[test]
fn inbound_rules_alone_leave_the_proxys_way_to_its_application_free() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.server, "application", WILDCARD, 8080);
    stand_in(&pair.server, "inbound", WILDCARD, INBOUND);
    pair.server.apply_rules("--direction inbound");
    for address in SERVER {
        assert_eq!(greeting(&pair.server, address, 8080), "application dialled");
        let destination = SocketAddr::new(address, 8080);
        assert_eq!(
            greeting(&pair.client, address, 8080),
            format!("inbound {destination}")
        );
    }
}

#[test]
fn the_proxys_own_user_and_chosen_ports_and_networks_go_direct() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    for port in [80, 81, 82] {
        stand_in(&pair.server, "server", WILDCARD, port);
    }
    stand_in(&pair.client, "outbound", "127.0.0.1", OUTBOUND);
    stand_in(&pair.client, "outbound", "[::1]", OUTBOUND);
    pair.client
        .apply_rules("--exclude-outbound-ports 80-81 --exclude-outbound-cidrs 10.77.0.0/24");
    let [v4, v6] = SERVER;
    assert_eq!(greeting(&pair.client, v4, 82), "server dialled");
    assert_eq!(greeting(&pair.client, v6, 80), "server dialled");
    assert!(greeting(&pair.client, v6, 82).starts_with("outbound"));

    pair.client.apply_rules("--include-outbound-ports 82");
    assert_eq!(greeting(&pair.client, v4, 81), "server dialled");
    assert!(greeting(&pair.client, v4, 82).starts_with("outbound"));

    pair.client
        .apply_rules("--include-outbound-cidrs fd77::/64");
    assert_eq!(greeting(&pair.client, v4, 80), "server dialled");
    assert!(greeting(&pair.client, v6, 80).starts_with("outbound"));

    pair.client.apply_rules("");
    let through = |uid| {
        let mut shell = pair.client.command_as(uid, "bash");
        succeed(shell.args([
            "-c",
            &format!("read -r line < /dev/tcp/{v4}/80; echo $line"),
        ]))
    };
    assert_eq!(through(1337).trim(), "server dialled");
    assert!(through(1000).starts_with("outbound"));
}

#[test]
fn applying_and_removing_leaves_the_rules_of_others_and_no_trace() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    let theirs = "table ip others { chain output { type nat hook output priority -100; tcp dport 9 redirect to :10; }; }";
    succeed(host.command("nft").arg(theirs));
    let before = host.ruleset();
    for _ in 0..3 {
        host.apply_rules("");
        host.apply_rules("");
        assert_eq!(host.intercept("check").code, Some(0));
        assert_eq!(host.intercept("check --uid 7").code, Some(1));
        let removed = host.intercept("remove");
        assert_eq!((removed.code, removed.stdout.trim()), (Some(0), "removed"));
        assert_eq!(host.ruleset(), before);
    }
    let again = host.intercept("remove");
    assert_eq!(
        (again.code, again.stdout.trim()),
        (Some(0), "nothing to remove")
    );
}

#[test]
fn removing_lets_redirected_connections_live_and_finishes_when_they_have_ended() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.client, "outbound", "127.0.0.1", OUTBOUND);
    stand_in(&pair.server, "server", WILDCARD, 80);
    let before = pair.client.ruleset();
    pair.client.apply_rules("");
    let mut live = dial(&pair.client, SERVER[0], 80).unwrap();
    assert!(live.line.starts_with("outbound"));

    // Replacing the rules does not cut it either.
    pair.client.apply_rules("--exclude-outbound-ports 9");
    still_echoes(&mut live).unwrap();

    let unfinished = pair.client.intercept("remove --drain 0");
    assert_eq!(unfinished.code, Some(1));
    assert!(
        unfinished.stderr.contains("1 redirected ones still live"),
        "{}",
        unfinished.stderr
    );
    still_echoes(&mut live).unwrap();
    assert_eq!(greeting(&pair.client, SERVER[0], 80), "server dialled");
    let state = pair.client.intercept("check --output json").stdout;
    assert!(state.contains(r#""state":"draining""#), "{state}");

    drop(live);
    assert_eq!(pair.client.intercept("remove").code, Some(0));
    assert_eq!(pair.client.ruleset(), before);
}

#[test]
fn removing_by_force_cuts_at_once() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.client, "outbound", "127.0.0.1", OUTBOUND);
    pair.client.apply_rules("");
    let mut live = dial(&pair.client, SERVER[0], 80).unwrap();
    still_echoes(&mut live).unwrap();
    assert_eq!(pair.client.intercept("remove --force").code, Some(0));
    live.connection
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    eventually("the connection to be cut", || still_echoes(&mut live).err());
}

#[test]
fn a_table_of_somebody_else_is_neither_replaced_nor_removed() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    succeed(
        host.command("nft")
            .arg("table inet pillion { chain theirs { accept; }; }"),
    );
    let before = host.ruleset();
    for action in ["apply", "remove", "remove --force", "check"] {
        let refused = host.intercept(action);
        assert_eq!(refused.code, Some(1), "{action}");
        assert!(
            refused.stderr.contains("pillion did not write"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(host.ruleset(), before);
}

#[test]
fn without_the_capability_nothing_changes_and_the_message_says_what_to_do() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    let before = host.ruleset();
    let mut bounded = host.command("setpriv");
    bounded.arg("--bounding-set=-net_admin").arg(pillion());
    let refused = run(bounded.args(["intercept", "apply"]));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("NET_ADMIN"), "{}", refused.stderr);
    assert_eq!(host.ruleset(), before);
}

#[test]
fn without_nft_the_message_says_what_to_install() {
    if !ready(&["unshare"]) {
        return;
    }
    // In a mount namespace of its own, where the directories of nft are empty.
    let hide = "mount -t tmpfs none /usr/sbin && exec \"$0\" intercept apply";
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--net", "bash", "-c", hide])
        .arg(pillion());
    let refused = run(shell.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("install nftables"),
        "{}",
        refused.stderr
    );
}
