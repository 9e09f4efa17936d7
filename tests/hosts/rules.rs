//! The redirect rules on real hosts, with a stand-in for the proxy that says where a connection was going.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use pillion::intercept::{OriginalDst, original_dst};
use socket2::{Domain, Socket, Type};

use crate::machine::{pillion, ready};
use crate::namespace::{CLIENT, Host, Pair, SERVER};
use crate::process::{Finished, HANG, eventually, run, succeed};
use crate::sidecar::UID;

const NEEDS: [&str; 6] = [
    "ip",
    "nft",
    "iptables-restore",
    "ip6tables-restore",
    "nsenter",
    "setpriv",
];

/// Whatever keeps the rules, they mean the same.
const BACKENDS: [&str; 2] = ["--backend nft", "--backend iptables"];

const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;

/// Where the stand-in listens: everywhere, IPv4 through a dual-stack socket, as an inbound listener does.
const WILDCARD: &str = "[::]";

/// Serves on its own threads until the test process ends: one line that names it and the original destination, then an echo.
fn stand_in(host: &Host, name: &'static str, address: &str, port: u16) {
    host.inside(|| {
        // The proxy's user, as the kernel tells it of this thread, which ends below.
        // SAFETY: a plain system call with a plain number.
        unsafe { libc::setfsuid(UID) };
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
    for backend in BACKENDS {
        pair.client.apply_rules(backend);
        for address in SERVER {
            let destination = SocketAddr::new(address, 8080);
            assert_eq!(
                greeting(&pair.client, address, 8080),
                format!("outbound {destination}")
            );
        }
        removed(&pair.client);
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
    for backend in BACKENDS {
        pair.server.apply_rules(backend);
        for address in SERVER {
            let destination = SocketAddr::new(address, 8080);
            assert_eq!(
                greeting(&pair.client, address, 8080),
                format!("inbound {destination}")
            );
            assert_eq!(greeting(&pair.client, address, INBOUND), "inbound dialled");
            assert_eq!(greeting(&pair.client, address, 22), "application dialled");
        }
        removed(&pair.server);
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
fn while_no_proxy_listens_what_an_application_dials_and_asks_waits_or_is_refused_as_was_chosen() {
    if !ready(&NEEDS) {
        return;
    }
    for backend in BACKENDS {
        let pair = Pair::new();
        let apply = |choice: &str| {
            pair.client
                .apply_rules(&format!("--dns {choice} {backend}"));
        };
        let refused = |address, kind: io::ErrorKind| {
            assert_eq!(greeting(&pair.client, address, 8080), kind.to_string());
            assert_eq!(asked(&pair.client, address), kind, "{backend}");
        };
        apply("--while-away refuse");
        for address in SERVER {
            refused(address, io::ErrorKind::ConnectionRefused);
        }
        apply("");
        for address in SERVER {
            assert_eq!(asked(&pair.client, address), io::ErrorKind::WouldBlock);
        }
        let waiting = SERVER.map(|address| {
            let begun = pair.client.inside(|| begin_to_dial(address, 8080));
            (address, begun.unwrap())
        });
        stand_in(&pair.client, "outbound", "127.0.0.1", OUTBOUND);
        stand_in(&pair.client, "outbound", "[::1]", OUTBOUND);
        for (address, mut connection) in waiting {
            let mut line = String::new();
            BufReader::new(&mut connection)
                .read_line(&mut line)
                .unwrap();
            let destination = SocketAddr::new(address, 8080);
            assert_eq!(line.trim_end(), format!("outbound {destination}"));
        }
    }
}

/// What becomes of a query by UDP that nobody answers.
fn asked(host: &Host, server: IpAddr) -> io::ErrorKind {
    host.inside(|| {
        let any = match server {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect((server, 53)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        socket.send(b"query").unwrap();
        socket.recv(&mut [0]).unwrap_err().kind()
    })
}

/// A connection whose first packet has been sent, and that may take long.
fn begin_to_dial(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let begun = socket.connect(&address.into());
    assert_eq!(
        begun.err().and_then(|error| error.raw_os_error()),
        Some(libc::EINPROGRESS)
    );
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(HANG))?;
    Ok(socket.into())
}

#[test]
fn what_stays_on_the_host_is_not_redirected() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.client, "application", WILDCARD, 8080);
    let loopback = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
    for backend in BACKENDS {
        pair.client.apply_rules(backend);
        for address in loopback.into_iter().chain(CLIENT) {
            assert_eq!(greeting(&pair.client, address, 8080), "application dialled");
        }
        removed(&pair.client);
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
    for backend in BACKENDS {
        pair.server
            .apply_rules(&format!("--direction inbound {backend}"));
        for address in SERVER {
            assert_eq!(greeting(&pair.server, address, 8080), "application dialled");
            let destination = SocketAddr::new(address, 8080);
            assert_eq!(
                greeting(&pair.client, address, 8080),
                format!("inbound {destination}")
            );
        }
        removed(&pair.server);
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
    for backend in BACKENDS {
        chosen_ones_go_direct(&pair, backend);
        removed(&pair.client);
    }
}

fn chosen_ones_go_direct(pair: &Pair, backend: &str) {
    let [v4, v6] = SERVER;
    let apply = |choices: &str| pair.client.apply_rules(&format!("{choices} {backend}"));
    apply("--exclude-outbound-ports 80-81 --exclude-outbound-cidrs 10.77.0.0/24");
    assert_eq!(greeting(&pair.client, v4, 82), "server dialled");
    assert_eq!(greeting(&pair.client, v6, 80), "server dialled");
    assert!(greeting(&pair.client, v6, 82).starts_with("outbound"));

    apply("--include-outbound-ports 82");
    assert_eq!(greeting(&pair.client, v4, 81), "server dialled");
    assert!(greeting(&pair.client, v4, 82).starts_with("outbound"));

    apply("--include-outbound-cidrs fd77::/64");
    assert_eq!(greeting(&pair.client, v4, 80), "server dialled");
    assert!(greeting(&pair.client, v6, 80).starts_with("outbound"));

    apply("--exclude-interfaces eth*");
    assert_eq!(greeting(&pair.client, v4, 80), "server dialled");

    apply("--exclude-gids 1000");
    let through = |uid| {
        let mut shell = pair.client.command_as(uid, "bash");
        succeed(shell.args([
            "-c",
            &format!("read -r line < /dev/tcp/{v4}/80; echo $line"),
        ]))
    };
    assert_eq!(through(1337).trim(), "server dialled");
    assert_eq!(through(1000).trim(), "server dialled");
    assert!(through(1001).starts_with("outbound"));
}

/// Rules of somebody else in every place that ours go to, which also has either program set its tables up.
fn others(host: &Host) {
    let nft = "table ip others { chain output { type nat hook output priority -100; tcp dport 9 redirect to :10; }; }";
    succeed(host.command("nft").arg(nft));
    for restore in ["iptables-restore", "ip6tables-restore"] {
        for (table, target, chains) in [
            (
                "nat",
                "REDIRECT --to-ports 10",
                &["OUTPUT", "PREROUTING"][..],
            ),
            (
                "mangle",
                "MARK --set-mark 7",
                &["OUTPUT", "PREROUTING", "INPUT"],
            ),
        ] {
            for chain in chains {
                let rule = format!("*{table}\n-A {chain} -p tcp --dport 9 -j {target}\nCOMMIT\n");
                let line = format!("printf %s '{rule}' | {restore} --noflush");
                succeed(host.command("bash").args(["-c", &line]));
            }
        }
    }
}

fn removed(host: &Host) {
    let removed = host.intercept("remove --drain 5");
    assert_eq!(
        (removed.code, removed.stdout.trim()),
        (Some(0), "removed"),
        "{}",
        removed.stderr
    );
}

/// Choices whose rules live in different places.
const WAYS: [&str; 4] = [
    "--backend nft",
    "--backend nft --inbound-mode tproxy",
    "--backend iptables",
    "--backend iptables --inbound-mode tproxy",
];

/// Rounds of applying and removing; PILLION_TEST_RULE_ROUNDS makes it more.
fn rounds() -> usize {
    std::env::var("PILLION_TEST_RULE_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(100)
}

#[test]
fn applying_and_removing_leaves_the_rules_of_others_and_no_trace() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    others(host);
    let before = host.traces();
    for way in WAYS {
        host.apply_rules(way);
        let once = host.traces();
        assert_ne!(once, before);
        host.apply_rules(way);
        assert_eq!(host.traces(), once, "{way}");
        assert_eq!(host.intercept(&format!("check {way}")).code, Some(0));
        assert_eq!(
            host.intercept(&format!("check {way} --uid 7")).code,
            Some(1)
        );
        removed(host);
        assert_eq!(host.traces(), before, "{way}");
    }
    let again = host.intercept("remove");
    assert_eq!(
        (again.code, again.stdout.trim()),
        (Some(0), "nothing to remove")
    );
}

#[test]
fn a_route_that_somebody_takes_away_is_missed_and_applying_again_brings_it_back() {
    if !ready(&NEEDS) {
        return;
    }
    let lost = [
        ("-4 rule del fwmark 0x539", "ip -4 rule add fwmark 0x539"),
        ("-6 rule del fwmark 0x539", "ip -6 rule add fwmark 0x539"),
        ("-4 route flush table 133", "ip -4 route add local default"),
        ("-6 route flush table 133", "ip -6 route add local default"),
        ("route del 240.0.0.0/8", "ip route add 240.0.0.0/8"),
    ];
    for backend in BACKENDS {
        let pair = Pair::new();
        let host = &pair.client;
        let words = format!("--dns --inbound-mode tproxy {backend}");
        host.apply_rules(&words);
        let check = || host.intercept(&format!("check {words}"));
        assert_eq!(check().code, Some(0), "{}", check().stdout);
        for (removal, remedy) in lost {
            host.ip(removal);
            let checked = check();
            assert_eq!(checked.code, Some(1), "{removal}");
            assert!(checked.stdout.contains(remedy), "{}", checked.stdout);
            host.apply_rules(&words);
            assert_eq!(check().code, Some(0), "{removal}: {}", check().stdout);
        }
    }
}

#[test]
fn many_rounds_of_applying_and_removing_leave_nothing_behind() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    others(host);
    let before = host.traces();
    for way in WAYS.into_iter().cycle().take(rounds()) {
        host.apply_rules(way);
        removed(host);
    }
    assert_eq!(host.traces(), before);
}

#[test]
fn removing_lets_redirected_connections_live_and_finishes_when_they_have_ended() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    stand_in(&pair.client, "outbound", "127.0.0.1", OUTBOUND);
    stand_in(&pair.server, "server", WILDCARD, 80);
    others(&pair.client);
    for backend in BACKENDS {
        live_connections_survive(&pair, backend);
    }
}

fn live_connections_survive(pair: &Pair, backend: &str) {
    let before = pair.client.traces();
    pair.client.apply_rules(backend);
    let mut live = dial(&pair.client, SERVER[0], 80).unwrap();
    assert!(live.line.starts_with("outbound"));

    // Replacing the rules does not cut it either.
    let others = format!("--exclude-outbound-ports 9 {backend}");
    pair.client.apply_rules(&others);
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
    removed(&pair.client);
    assert_eq!(pair.client.traces(), before);
}

#[test]
fn connections_that_are_there_before_the_rules_go_on_as_they_were() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    for backend in BACKENDS {
        for address in SERVER {
            for host in [&pair.client, &pair.server] {
                let [client, server] = connected(&pair, address);
                host.apply_rules(backend);
                // Whichever side sends what the kernel sees first.
                passes(&server, &client);
                passes(&client, &server);
                host.intercept("remove --force");
                let [client, server] = connected(&pair, address);
                host.apply_rules(backend);
                passes(&client, &server);
                passes(&server, &client);
                host.intercept("remove --force");
            }
        }
    }
}

/// Both ends of a connection from one host to the other.
fn connected(pair: &Pair, address: IpAddr) -> [TcpStream; 2] {
    let listener = pair.server.inside(|| TcpListener::bind((address, 80)));
    let listener = listener.unwrap();
    let connect = || TcpStream::connect_timeout(&(address, 80).into(), HANG);
    let ends = [
        pair.client.inside(connect).unwrap(),
        listener.accept().unwrap().0,
    ];
    for end in &ends {
        end.set_read_timeout(Some(HANG)).unwrap();
    }
    ends
}

fn passes(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"x").unwrap();
    to.read_exact(&mut [0]).unwrap();
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
    let theirs = [
        "nft 'table inet pillion { chain theirs { accept; }; }'",
        "iptables -t nat -N PILLION_OUTBOUND && iptables -t nat -A PILLION_OUTBOUND -j RETURN",
    ];
    for theirs in theirs {
        let pair = Pair::new();
        let host = &pair.client;
        succeed(host.command("bash").args(["-c", theirs]));
        let before = host.traces();
        for action in ["apply", "remove", "remove --force", "check"] {
            refused(host, action, "pillion did not write");
        }
        assert_eq!(host.traces(), before);
    }
}

fn refused(host: &Host, words: &str, because: &str) {
    let refused = host.intercept(words);
    assert_eq!(refused.code, Some(1), "{words}");
    assert!(
        refused.stderr.contains(because),
        "{words}: {}",
        refused.stderr
    );
}

#[test]
fn routes_of_somebody_else_in_our_table_are_left_and_nothing_is_applied() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    // The second family, so that the first has to be put back.
    host.ip("-6 route add fd99::/64 dev eth0 table 133");
    let before = host.traces();
    refused(host, "apply --inbound-mode tproxy", "route show table 133");
    assert_eq!(host.traces(), before);
}

#[test]
fn an_interface_that_is_not_there_is_refused_and_a_beginning_is_not() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    let before = host.traces();
    refused(
        host,
        "apply --exclude-interfaces eth0,eth1",
        "no interface `eth1` here; those there are: lo, eth0",
    );
    assert_eq!(host.traces(), before);
    host.apply_rules("--exclude-interfaces eth0,docker*");
}

#[test]
fn rules_are_kept_in_one_place_and_one_mode() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    host.apply_rules("--backend iptables");
    refused(host, "apply --backend nft", "--backend iptables");
    refused(host, "apply --inbound-mode tproxy", "intercept remove");
    // Without a wish they are changed where they are.
    host.apply_rules("--uid 7");
    let state = host.intercept("check --uid 7 --output json");
    assert_eq!(state.code, Some(0));
    assert!(
        state.stdout.contains(r#""backend":"iptables""#),
        "{}",
        state.stdout
    );
    removed(host);
}

#[test]
fn a_proxy_of_a_user_who_is_not_left_alone_is_not_redirected_to_itself() {
    if !ready(&NEEDS) {
        return;
    }
    let host = Host::new("host");
    let _listener = host.inside(|| TcpListener::bind(("127.0.0.1", OUTBOUND)).unwrap());
    let before = host.traces();
    for way in BACKENDS {
        refused(&host, &format!("apply {way}"), "runs as user 0");
        assert_eq!(host.traces(), before, "{way}");
        host.apply_rules(&format!("{way} --uid 0"));
        removed(&host);
    }
}

#[test]
fn without_the_capability_nothing_changes_and_the_message_says_what_to_do() {
    if !ready(&NEEDS) {
        return;
    }
    let pair = Pair::new();
    let host = &pair.client;
    let before = host.traces();
    for backend in ["--backend auto"].into_iter().chain(BACKENDS) {
        let mut bounded = host.command("setpriv");
        bounded.arg("--bounding-set=-net_admin").arg(pillion());
        bounded.args(["intercept", "apply"]);
        let refused = run(bounded.args(backend.split_whitespace()));
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("NET_ADMIN"), "{}", refused.stderr);
    }
    assert_eq!(host.traces(), before);
}

/// Runs `pillion intercept` in namespaces of its own, in which the folder of these programs holds nothing but links to what
/// `programs` say.
fn with_programs(programs: &[(&str, &str)], words: &str) -> Finished {
    let mut script = "cp -a /usr/sbin /run/all && mount -t tmpfs none /usr/sbin".to_owned();
    for (name, target) in programs {
        script += &format!(" && ln -s /run/all/{target} /usr/sbin/{name}");
    }
    script = format!(
        "mount -t tmpfs none /run && ip link set lo up && {script} && \"$0\" intercept {words}"
    );
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--net", "bash", "-c", &script]);
    run(shell
        .arg(pillion())
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"))
}

#[test]
fn without_nft_iptables_does_it_and_without_both_the_message_says_what_to_install() {
    if !ready(&["unshare", "xtables-legacy-multi"]) {
        return;
    }
    let none = with_programs(&[], "apply");
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("install nftables"), "{}", none.stderr);
    let none = with_programs(&[], "apply --backend iptables");
    assert!(none.stderr.contains("install iptables"), "{}", none.stderr);
    for variant in ["xtables-nft-multi", "xtables-legacy-multi"] {
        let programs = ["iptables", "ip6tables"]
            .into_iter()
            .flat_map(|name| ["save", "restore"].map(|action| format!("{name}-{action}")));
        let programs: Vec<String> = programs.collect();
        let links: Vec<(&str, &str)> = programs.iter().map(|name| (&**name, variant)).collect();
        let words = "apply && \"$0\" intercept check --output json && \"$0\" intercept remove && iptables-save";
        let applied = with_programs(&links, words);
        assert_eq!(applied.code, Some(0), "{variant}: {}", applied.stderr);
        assert!(
            applied.stdout.contains(r#""backend":"iptables""#),
            "{}",
            applied.stdout
        );
        assert!(!applied.stdout.contains("PILLION"), "{}", applied.stdout);
    }
}
