//! Hosts that disappear without a word: the cable is cut, and nothing that was sent is acknowledged any more.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::machine::ready;
use crate::namespace::{Host, Segment};
use crate::process::{HANG, Process, eventually, run};
use crate::sidecar::{FileServer, PAGE, Sidecar, curl};

const NEEDS: [&str; 7] = ["ip", "nft", "nsenter", "setpriv", "ss", "curl", "python3"];

/// The default is a minute.
const IMPATIENT: &str = "limits: {dead_peer_timeout: 1s}";

/// What an application says of one connection.
#[derive(PartialEq, Eq, Debug)]
enum Seen {
    Request,
    /// It cannot be written to any more.
    End,
}

/// An application that takes one request at a time, and then does this with the connection.
fn application(host: &Host, serve: fn(TcpStream) -> io::Result<()>) -> Receiver<Seen> {
    let (sender, seen) = mpsc::channel();
    host.inside(|| {
        let listener = TcpListener::bind(("::", 8080)).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let _ = one(connection, &sender, serve);
            }
        });
    });
    seen
}

fn one(
    connection: TcpStream,
    seen: &Sender<Seen>,
    serve: fn(TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let _ = seen.send(Seen::Request);
    let _ = serve(connection);
    let _ = seen.send(Seen::End);
    Ok(())
}

/// Never answers; ends when the connection does.
fn ponder(mut connection: TcpStream) -> io::Result<()> {
    io::copy(&mut connection, &mut io::sink()).map(drop)
}

/// Answers for ever.
fn pour(mut connection: TcpStream) -> io::Result<()> {
    connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    loop {
        connection.write_all(&[b'x'; 64 * 1024])?;
    }
}

fn vanish(host: &Host) {
    host.ip("link set eth0 down");
}

fn shops(addresses: &[IpAddr]) -> String {
    let endpoints = addresses.iter();
    let endpoints = endpoints.map(|address| format!("{{address: '{address}:8080'}}"));
    let endpoints = endpoints.collect::<Vec<_>>().join(", ");
    format!(
        "kind: Service\nname: shop\nports: [{{port: 8080, protocol: http}}]\nendpoints: [{endpoints}]\n"
    )
}

#[test]
fn an_answer_that_a_vanished_host_owes_comes_from_another() {
    if !ready(&NEEDS) {
        return;
    }
    let mut segment = Segment::new();
    let (caller_host, _) = segment.host("caller");
    let (silent, silent_address) = segment.host("silent");
    let (other, other_address) = segment.host("other");
    let seen = application(&silent, ponder);
    let _other = FileServer::start(&other, 8080);
    // Only what has nothing to offer is asked first.
    let documents = shops(&[silent_address]);
    let bootstrap = format!("service: caller\n{IMPATIENT}");
    let caller = Sidecar::start(&caller_host, &bootstrap, &documents);
    caller_host.apply_rules("");
    let asking = ask(&caller_host, silent_address);
    assert_eq!(seen.recv_timeout(HANG), Ok(Seen::Request));
    caller.rewrite_mesh(&shops(&[silent_address, other_address]));
    eventually("the other instance to be known", || {
        let clusters = run(curl(&caller_host).arg("http://127.0.0.1:15000/clusters"));
        clusters
            .stdout
            .contains(&other_address.to_string())
            .then_some(())
    });
    vanish(&silent);
    assert_eq!(asking.join().unwrap(), format!("{PAGE}\n200"));
    let line = caller.line_of("/page.txt");
    assert_eq!(line["attempts"], 2, "{line}");
    assert_eq!(line["endpoint"], format!("{other_address}:8080"), "{line}");
}

/// What `curl` gets for the shop's page, in the time that hanging takes.
fn ask(host: &Host, address: IpAddr) -> thread::JoinHandle<String> {
    let mut command = curl(host);
    command.args(["--max-time", "60", "--header", "Host: shop:8080"]);
    command.arg(format!("http://{address}:8080/page.txt"));
    thread::spawn(move || run(&mut command).stdout)
}

#[test]
fn a_request_whose_body_nobody_acknowledges_ends_with_an_answer_that_says_so() {
    if !ready(&NEEDS) {
        return;
    }
    let mut segment = Segment::new();
    let (caller_host, _) = segment.host("caller");
    let (silent, address) = segment.host("silent");
    let seen = application(&silent, ponder);
    let bootstrap = format!("service: caller\n{IMPATIENT}");
    let caller = Sidecar::start(&caller_host, &bootstrap, &shops(&[address]));
    caller_host.apply_rules("");
    let mut connection = caller_host.inside(|| TcpStream::connect((address, 8080)).unwrap());
    connection.set_read_timeout(Some(HANG)).unwrap();
    connection
        .write_all(b"POST /orders HTTP/1.1\r\nHost: shop:8080\r\nContent-Length: 1000000\r\n\r\n")
        .unwrap();
    assert_eq!(seen.recv_timeout(HANG), Ok(Seen::Request));
    vanish(&silent);
    connection.write_all(&[b'x'; 10_000]).unwrap();
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    let line = caller.line_of("/orders");
    assert_eq!(line["endpoint"], format!("{address}:8080"), "{line}");
}

#[test]
fn an_application_is_told_when_the_host_that_reads_its_answer_has_vanished() {
    if !ready(&NEEDS) {
        return;
    }
    let mut segment = Segment::new();
    let (client, _) = segment.host("client");
    let (host, address) = segment.host("shop");
    let seen = application(&host, pour);
    let bootstrap = format!("apps: [{{service: shop, port: 8080}}]\n{IMPATIENT}");
    let shop = Sidecar::start(&host, &bootstrap, &shops(&[address]));
    host.apply_rules("");
    let mut command = client.command("curl");
    command.args(["-sS", "--output", "/dev/null"]);
    let _reading = Process::spawn(command.arg(format!("http://{address}:8080/")));
    assert_eq!(seen.recv_timeout(HANG), Ok(Seen::Request));
    vanish(&client);
    assert_eq!(seen.recv_timeout(HANG), Ok(Seen::End));
    let line = shop.line_of("/");
    assert_eq!(line["flags"], "DC", "{line}");
}

/// More than all buffers on the way hold together.
const FLOOD: usize = 64 << 20;

#[test]
fn a_tunnel_waits_for_a_reader_that_lives_and_does_not_read() {
    if !ready(&NEEDS) {
        return;
    }
    let mut segment = Segment::new();
    let (client, _) = segment.host("client");
    let (host, address) = segment.host("shop");
    host.inside(|| {
        let listener = TcpListener::bind(("::", 2525)).unwrap();
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                thread::spawn(move || connection.write_all(&vec![b'x'; FLOOD]));
            }
        });
    });
    let bootstrap = format!("apps: [{{service: shop, port: 8080, health: none}}]\n{IMPATIENT}");
    let _shop = Sidecar::start(&host, &bootstrap, &shops(&[address]));
    host.apply_rules("");
    let mut reader = client.inside(|| TcpStream::connect((address, 2525)).unwrap());
    reader.set_read_timeout(Some(HANG)).unwrap();
    let client_address = reader.local_addr().unwrap();
    // The kernel asks for room after 0.2 s, and after twice as long each time: the fifth time, several limits are over.
    eventually("the reader to be asked for room five times", || {
        let sockets = run(host.command("ss").args(["-Htni", "state", "established"]));
        let (_, rest) = sockets.stdout.split_once(&client_address.to_string())?;
        let details = rest.lines().nth(1)?.split_whitespace();
        let mut asked = details.filter_map(|word| word.strip_prefix("backoff:"));
        (asked.next()?.parse::<u32>().ok()? >= 5).then_some(())
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), FLOOD);
}
