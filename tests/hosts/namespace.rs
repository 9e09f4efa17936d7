//! Hosts of a test: network namespaces joined by a cable, gone when the test ends.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::machine::pillion;
use crate::process::{Finished, eventually, run, succeed};

/// A network namespace as a host of its own; dropping it removes it, with its interfaces and rules.
pub struct Host {
    name: String,
}

impl Host {
    pub fn new(role: &str) -> Host {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pillion-{}-{number}-{role}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let host = Host { name };
        host.ip("link set lo up");
        host
    }

    fn path(&self) -> PathBuf {
        Path::new("/var/run/netns").join(&self.name)
    }

    /// Runs `ip` for this host.
    pub fn ip(&self, arguments: &str) -> String {
        let words = arguments.split_whitespace();
        succeed(Command::new("ip").args(["-n", &self.name]).args(words))
    }

    /// A command that runs in this host, as root.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.arg("--").arg(program.as_ref());
        command
    }

    /// A command that runs in this host as another user, who is no member of root's groups.
    pub fn command_as(&self, uid: u32, program: impl AsRef<Path>) -> Command {
        self.command_with(&[], uid, program)
    }

    /// The same with these capabilities, such as `net_raw`.
    pub fn command_with(
        &self,
        capabilities: &[&str],
        uid: u32,
        program: impl AsRef<Path>,
    ) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.arg("--").arg("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.args(["--clear-groups", "--pdeathsig=TERM"]);
        for capability in capabilities {
            command.arg(format!("--inh-caps=+{capability}"));
            command.arg(format!("--ambient-caps=+{capability}"));
        }
        command.arg(program.as_ref());
        command
    }

    /// The same command, in this host and as root.
    pub fn command_of(&self, command: &Command) -> Command {
        let mut inside = self.command(command.get_program());
        inside.args(command.get_args());
        inside
    }

    /// A command that runs in this host, as root, and finds these names instead of the machine's `/etc/hosts`.
    pub fn command_with_names(&self, hosts: &Path, program: impl AsRef<Path>) -> Command {
        let mut command = self.command("unshare");
        command.args(["--mount", "--", "bash", "-c"]);
        command.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"");
        command.arg(hosts).arg(program.as_ref());
        command
    }

    /// Waits until something accepts TCP connections on this port.
    pub fn wait_for_listener(&self, port: u16) {
        let source = format!("sport = :{port}");
        eventually(&format!("a listener on port {port}"), || {
            let sockets = run(self.command("ss").args(["-Hltn", &source]));
            (!sockets.stdout.trim().is_empty()).then_some(())
        });
    }

    /// `pillion intercept` with these words.
    pub fn intercept(&self, arguments: &str) -> Finished {
        let words = arguments.split_whitespace();
        run(self.command(pillion()).arg("intercept").args(words))
    }

    pub fn apply_rules(&self, arguments: &str) {
        let words = arguments.split_whitespace();
        succeed(
            self.command(pillion())
                .args(["intercept", "apply"])
                .args(words),
        );
    }

    /// Everything nftables knows in this host, without counters' values, which traffic moves.
    pub fn ruleset(&self) -> String {
        succeed(self.command("nft").args(["-s", "list", "ruleset"]))
    }

    /// Everything that redirect rules could leave behind: what either packet filter holds, and the policy routes.
    pub fn traces(&self) -> String {
        let said = |program: &str, arguments: &str| {
            let words = arguments.split_whitespace();
            // A routing table that is not there is an error of the program and no trace.
            run(self.command(program).args(words)).stdout
        };
        let saved = [said("iptables-save", ""), said("ip6tables-save", "")].join("");
        // What was saved when, and how many packets a built-in chain has seen.
        let saved = saved.lines().filter(|line| !line.starts_with(['#', ':']));
        let mut traces: Vec<String> = saved.map(str::to_owned).collect();
        traces.push(self.ruleset());
        for family in ["-4", "-6"] {
            traces.push(said("ip", &format!("{family} rule show")));
            traces.push(said("ip", &format!("{family} route show table 133")));
        }
        traces.join("\n")
    }

    /// Runs a piece of the test inside this host: sockets that it opens belong to the host wherever they go.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).expect("a host's namespace has a file");
        let entered = || {
            // SAFETY: the descriptor is open, and only this thread, which ends below, changes its namespace.
            let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
            work()
        };
        thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Two hosts and the cable between them.
pub struct Pair {
    pub client: Host,
    pub server: Host,
}

/// The addresses of [`Pair`]'s hosts.
pub const CLIENT: [IpAddr; 2] = [v4(1), v6(1)];
pub const SERVER: [IpAddr; 2] = [v4(2), v6(2)];

const fn v4(host: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, host))
}

const fn v6(host: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host))
}

impl Pair {
    pub fn new() -> Pair {
        let pair = Pair {
            client: Host::new("client"),
            server: Host::new("server"),
        };
        succeed(
            Command::new("ip")
                .args(["link", "add", "eth0", "netns", &pair.client.name])
                .args(["type", "veth", "peer", "name", "eth0", "netns"])
                .arg(&pair.server.name),
        );
        pair.client.connect(CLIENT);
        pair.server.connect(SERVER);
        pair
    }
}

/// Hosts of one Ethernet, each with an address of its own in 10.78.0.0/24.
pub struct Segment {
    switch: Host,
    hosts: u8,
}

impl Segment {
    pub fn new() -> Segment {
        let switch = Host::new("switch");
        switch.ip("link add bridge0 type bridge");
        switch.ip("link set bridge0 up");
        Segment { switch, hosts: 0 }
    }

    /// A further host, and its address.
    pub fn host(&mut self, role: &str) -> (Host, IpAddr) {
        self.hosts += 1;
        let host = Host::new(role);
        let port = format!("port{}", self.hosts);
        succeed(
            Command::new("ip")
                .args(["link", "add", "eth0", "netns", &host.name])
                .args(["type", "veth", "peer", "name", &port, "netns"])
                .arg(&self.switch.name),
        );
        self.switch
            .ip(&format!("link set {port} master bridge0 up"));
        let address = IpAddr::from([10, 78, 0, self.hosts]);
        host.ip("link set eth0 up");
        host.ip(&format!("addr add {address}/24 dev eth0"));
        (host, address)
    }
}

impl Host {
    fn connect(&self, [v4, v6]: [IpAddr; 2]) {
        self.ip("link set eth0 up");
        self.ip(&format!("addr add {v4}/24 dev eth0"));
        // Without duplicate address detection, which would keep the address from being used for a second.
        self.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
    }
}
