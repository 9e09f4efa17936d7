//! Programs in the languages that services are written in, whose traffic goes through real sidecars without them knowing.
//!
//! Each talks to four destinations: a service of the mesh and a server that the mesh does not know, over IPv4 and IPv6; first
//! without redirect rules, then with them, then after them. What it prints is the same each time, and the sidecars' access logs
//! tell that they carried what the rules led to them, and nothing else.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::machine::{python, ready, ready_with_python, top};
use crate::namespace::{CLIENT, Pair, SERVER};
use crate::process::{Process, succeed};
use crate::sidecar::Sidecar;

const NEEDS: [&str; 8] = [
    "ip", "nft", "nsenter", "unshare", "setpriv", "ss", "bash", "python3",
];

#[test]
fn curl_works_unchanged() {
    if ready(&NEEDS) && ready(&["curl"]) {
        works_unchanged(&HTTP, &[client("curl.sh")]);
    }
}

#[test]
fn wget_works_unchanged() {
    if ready(&NEEDS) && ready(&["wget"]) {
        works_unchanged(&HTTP, &[client("wget.sh")]);
    }
}

#[test]
fn net_http_of_go_works_unchanged() {
    if ready(&NEEDS) && ready(&["go"]) {
        works_unchanged(&HTTP, &[built_by_go("fetch.go")]);
    }
}

#[test]
fn fetch_of_node_works_unchanged() {
    if ready(&NEEDS) && ready(&["node"]) {
        works_unchanged(&HTTP, &["node".into(), client("fetch.mjs")]);
    }
}

#[test]
fn requests_of_python_works_unchanged() {
    if ready(&NEEDS) && ready_with_python("requests") {
        works_unchanged(&HTTP, &[python().into(), client("requests_client.py")]);
    }
}

#[test]
fn httpx_of_python_works_unchanged() {
    if ready(&NEEDS) && ready_with_python("httpx") {
        works_unchanged(&HTTP, &[python().into(), client("httpx_client.py")]);
    }
}

#[test]
fn grpcio_of_python_works_unchanged() {
    if ready(&NEEDS) && ready_with_python("grpc") {
        works_unchanged(&GRPC, &[python().into(), client("grpc_client.py")]);
    }
}

#[test]
fn redis_cli_works_unchanged() {
    if ready(&NEEDS) && ready(&["redis-cli", "redis-server"]) {
        works_unchanged(&REDIS, &[client("redis.sh")]);
    }
}

#[test]
fn psql_works_unchanged() {
    if ready(&NEEDS) && ready(&["psql", "initdb", "postgres"]) {
        works_unchanged(&POSTGRES, &[client("psql.sh")]);
    }
}

/// What a client speaks, and who serves it.
struct Protocol {
    /// As the mesh's documents call it.
    name: &'static str,
    /// Where the mesh knows the server.
    mesh_port: u16,
    /// Where the same server is unknown to the mesh.
    other_port: u16,
    /// On this port, with a folder for what it keeps.
    server: fn(port: u16, folder: &Path) -> Command,
}

impl Protocol {
    /// Whether a request says which service it is for; plain bytes have an address alone.
    fn names_the_service(&self) -> bool {
        self.name != "tcp"
    }
}

const HTTP: Protocol = Protocol {
    name: "http",
    mesh_port: 8080,
    other_port: 9000,
    server: |port, _| python_server("http_server.py", port),
};

const GRPC: Protocol = Protocol {
    name: "grpc",
    mesh_port: 50051,
    other_port: 50052,
    server: |port, _| python_server("grpc_server.py", port),
};

const REDIS: Protocol = Protocol {
    name: "tcp",
    mesh_port: 6379,
    other_port: 6380,
    server: |port, _| {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--save", ""]);
        command.args(["--bind", "*", "-::*", "--protected-mode", "no"]);
        command
    },
};

const POSTGRES: Protocol = Protocol {
    name: "tcp",
    mesh_port: 5432,
    other_port: 5433,
    server: |port, folder| {
        let mut command = Command::new(client("postgres_server.sh"));
        command.arg(port.to_string()).arg(folder);
        command
    },
};

fn python_server(file: &str, port: u16) -> Command {
    let mut command = Command::new(python());
    command.arg(client(file)).arg(port.to_string());
    command
}

/// The whole scenario for one client.
fn works_unchanged(protocol: &'static Protocol, program: &[OsString]) {
    let world = World::start(protocol);
    let rules_before = world.rules();
    let [caller, shop] = world.sidecars();
    let direct = world.run(program);
    assert!(!direct.is_empty(), "{program:?} prints what it sees");
    assert_eq!(caller.log(), Vec::<Value>::new(), "without rules");

    world.apply_rules();
    assert_eq!(world.run(program), direct);
    world.expect_carried_out(&caller);
    world.expect_carried_in(&shop);

    world.stop_and_remove_rules(caller, shop);
    assert_eq!(world.rules(), rules_before);
    assert_eq!(world.run(program), direct);
}

/// Two hosts, with the servers on one of them, and the names by which a client on the other knows them.
struct World {
    protocol: &'static Protocol,
    pair: Pair,
    _servers: [Process; 2],
    folder: TempDir,
}

/// The services of the mesh: one server, by its address of either family.
const SERVICES: [&str; 2] = ["shop", "shop6"];

impl World {
    fn start(protocol: &'static Protocol) -> World {
        let pair = Pair::new();
        let folder = tempfile::tempdir().unwrap();
        let servers = [protocol.mesh_port, protocol.other_port].map(|port| {
            let server = (protocol.server)(port, folder.path());
            let mut command = pair.server.command_of(&server);
            let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
            pair.server.wait_for_listener(port);
            process
        });
        let hosts = SERVICES.iter().zip(SERVER);
        let hosts = hosts.map(|(service, address)| format!("{address} {service}\n"));
        fs::write(folder.path().join("hosts"), hosts.collect::<String>()).unwrap();
        World {
            protocol,
            pair,
            _servers: servers,
            folder,
        }
    }

    fn sidecars(&self) -> [Sidecar; 2] {
        let Protocol {
            name, mesh_port, ..
        } = self.protocol;
        let documents = SERVICES.iter().zip(SERVER).map(|(service, address)| {
            let endpoint = SocketAddr::new(address, *mesh_port);
            format!(
                "kind: Service\nname: {service}\nports: [{{port: {mesh_port}, protocol: {name}}}]\n\
                 endpoints: [{{address: '{endpoint}'}}]\n"
            )
        });
        let mesh = documents.collect::<Vec<_>>().join("---\n");
        let shop = format!("apps: [{{service: shop, port: {mesh_port}}}]");
        [
            Sidecar::start(&self.pair.client, "service: caller", &mesh),
            Sidecar::start(&self.pair.server, &shop, &mesh),
        ]
    }

    /// What the client prints about every destination.
    fn run(&self, program: &[OsString]) -> String {
        let names = self.folder.path().join("hosts");
        let mut command = self.pair.client.command_with_names(&names, &program[0]);
        let services = SERVICES.map(|service| format!("{service}:{}", self.protocol.mesh_port));
        let elsewhere = self.elsewhere().map(|address| address.to_string());
        succeed(command.args(&program[1..]).args(services).args(elsewhere))
    }

    fn elsewhere(&self) -> [SocketAddr; 2] {
        SERVER.map(|address| SocketAddr::new(address, self.protocol.other_port))
    }

    /// Nothing of the mesh stands before the server that it does not know.
    fn apply_rules(&self) {
        let port = self.protocol.mesh_port;
        self.pair.client.apply_rules("");
        self.pair
            .server
            .apply_rules(&format!("--include-inbound-ports {port}"));
    }

    fn expect_carried_out(&self, caller: &Sidecar) {
        for (service, address) in SERVICES.iter().zip(SERVER) {
            let endpoint = SocketAddr::new(address, self.protocol.mesh_port).to_string();
            let line = caller.line_with("endpoint", |text| text == endpoint);
            assert_eq!(line["listener"], "outbound", "{line}");
            if self.protocol.names_the_service() {
                assert_eq!(line["service"], format!("default/{service}"), "{line}");
            }
        }
        for address in self.elsewhere() {
            let endpoint = address.to_string();
            let line = caller.line_with("endpoint", |text| text == endpoint);
            assert_eq!(line["listener"], "outbound", "{line}");
        }
    }

    fn expect_carried_in(&self, shop: &Sidecar) {
        for address in CLIENT {
            // With a port of the client's choice behind it.
            let from = SocketAddr::new(address, 0).to_string();
            let from = from.trim_end_matches('0');
            let line = shop.line_with("downstream", |text| text.starts_with(from));
            assert_eq!(line["listener"], "inbound", "{line}");
        }
    }

    /// A sidecar keeps connections to its peers for later, so the rules that lead to a peer can go once it has ended.
    fn stop_and_remove_rules(&self, caller: Sidecar, shop: Sidecar) {
        for (host, sidecar) in [(&self.pair.client, caller), (&self.pair.server, shop)] {
            assert!(
                sidecar.stop(),
                "a sidecar that is asked to end does so in peace"
            );
            let removed = host.intercept("remove");
            assert_eq!(removed.code, Some(0), "{}", removed.stderr);
        }
    }

    fn rules(&self) -> [String; 2] {
        [self.pair.client.ruleset(), self.pair.server.ruleset()]
    }
}

fn client(file: &str) -> OsString {
    top().join("tests/hosts/clients").join(file).into()
}

/// The program that Go makes of one file; what it builds of its own library is kept for the next run.
fn built_by_go(file: &str) -> OsString {
    let folder: PathBuf = top().join("target/hosts/go");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("fetch");
    let mut command = Command::new("go");
    command
        .arg("build")
        .arg("-o")
        .arg(&program)
        .arg(client(file));
    command.env("CGO_ENABLED", "0");
    succeed(command.env("GOCACHE", folder.join("cache")));
    program.into()
}
