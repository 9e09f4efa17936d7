//! The machine's rules: asked for and changed by running `nft`. What it cannot do is said in words an operator can act on.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use thiserror::Error;

use super::connections::redirected_connections;
use super::route;
use super::rules::Rules;
use super::table::{self, Listed, TABLE};

/// Where `nft` is when an unprivileged PATH leaves it out.
const NFT_PATHS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// How often a drain looks at what is left.
const DRAIN_POLL: Duration = Duration::from_millis(100);

/// Why the machine's rules could not be read or changed.
#[derive(Debug, Error)]
pub enum InterceptError {
    #[error(
        "the program `nft` was not found: install nftables (Debian and Ubuntu: apt-get install nftables; Fedora: dnf install nftables; \
         Alpine: apk add nftables), or use the image target `init` of docker/Dockerfile, which carries it"
    )]
    NftMissing,
    #[error(
        "not permitted to change the redirect rules: run as root, or with the capability NET_ADMIN \
         (docker run --user 0 --cap-add NET_ADMIN; in Kubernetes securityContext.capabilities.add: [NET_ADMIN])"
    )]
    NotPermitted,
    #[error(
        "the kernel refused the rules: it needs nf_tables with NAT for this family (modules nf_tables, nft_chain_nat, nft_redir, nft_fib_inet); nft said: {0}"
    )]
    Kernel(String),
    #[error(
        "there is a table `inet {TABLE}` that pillion did not write; it is left as it is. Look at it with `nft list table inet {TABLE}` and rename or delete it"
    )]
    ForeignTable,
    #[error("nft failed: {0}")]
    Nft(String),
    #[error("{doing}: {error}")]
    Io {
        doing: &'static str,
        error: io::Error,
    },
}

/// What this network namespace holds of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// No table of ours.
    Absent,
    /// Connections are redirected, by rules with this fingerprint (see [`Rules::fingerprint`]).
    Applied { fingerprint: String },
    /// New connections go where they want; this many redirected ones still live.
    Draining { connections: usize },
}

/// How a removal ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removal {
    NothingThere,
    Removed,
    /// Nothing new is redirected, but so many connections still need the rules; they were left to live.
    StillLive {
        connections: usize,
    },
}

/// Puts exactly these rules in place in one transaction; live connections go on, and doing it twice is doing it once.
pub fn apply(rules: &Rules) -> Result<(), InterceptError> {
    if listed()? == Some(Listed::Foreign) {
        return Err(InterceptError::ForeignTable);
    }
    let wants_route = rules.dns().is_some();
    let added = wants_route && route::add().map_err(of_route)?;
    let applied = run(&["-f", "-"], &rules.nft()).map(drop);
    let superfluous = match &applied {
        Ok(()) => !wants_route,
        Err(_) => added,
    };
    if superfluous {
        route::remove().map_err(of_route)?;
    }
    applied
}

/// The route for virtual addresses could not be added or removed.
fn of_route(error: io::Error) -> InterceptError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => InterceptError::NotPermitted,
        _ => InterceptError::Io {
            doing: "changing the route for virtual addresses",
            error,
        },
    }
}

/// Whether `apply` would succeed, asked of the kernel without changing anything.
pub fn rehearse(rules: &Rules) -> Result<(), InterceptError> {
    run(&["-c", "-f", "-"], &rules.nft()).map(drop)
}

/// What is in place now.
pub fn state() -> Result<State, InterceptError> {
    Ok(match listed()? {
        None | Some(Listed::Empty) => State::Absent,
        Some(Listed::Foreign) => return Err(InterceptError::ForeignTable),
        Some(Listed::Applied { fingerprint, .. }) => State::Applied { fingerprint },
        Some(Listed::Draining { proxy_ports }) => State::Draining {
            connections: count(&proxy_ports)?,
        },
    })
}

/// Stops redirecting at once, waits up to `drain` for the redirected connections to end, and then takes the table away
/// without a trace. With connections left it stays, redirecting nothing, and a later call finishes; a `drain` of None cuts them.
pub fn remove(drain: Option<Duration>) -> Result<Removal, InterceptError> {
    let proxy_ports = match listed()? {
        None => return route_alone(),
        Some(Listed::Foreign) => return Err(InterceptError::ForeignTable),
        Some(Listed::Empty) => Vec::new(),
        Some(Listed::Draining { proxy_ports } | Listed::Applied { proxy_ports, .. }) => proxy_ports,
    };
    if let Some(drain) = drain.filter(|_| !proxy_ports.is_empty()) {
        run(&["-f", "-"], &table::draining(&proxy_ports))?;
        let connections = wait_for_end(&proxy_ports, drain)?;
        if connections > 0 {
            return Ok(Removal::StillLive { connections });
        }
    }
    run(&["-f", "-"], &table::removing())?;
    route::remove().map_err(of_route)?;
    Ok(Removal::Removed)
}

/// Where somebody has flushed all rules, the route may still be there.
fn route_alone() -> Result<Removal, InterceptError> {
    match route::remove() {
        Ok(true) => Ok(Removal::Removed),
        Ok(false) => Ok(Removal::NothingThere),
        Err(error) => Err(of_route(error)),
    }
}

/// How many redirected connections are left after waiting at most so long for none.
fn wait_for_end(proxy_ports: &[u16], drain: Duration) -> Result<usize, InterceptError> {
    let mut left = drain;
    loop {
        let connections = count(proxy_ports)?;
        if connections == 0 || left.is_zero() {
            return Ok(connections);
        }
        let pause = left.min(DRAIN_POLL);
        std::thread::sleep(pause);
        left -= pause;
    }
}

fn count(proxy_ports: &[u16]) -> Result<usize, InterceptError> {
    redirected_connections(proxy_ports).map_err(|error| InterceptError::Io {
        doing: "reading the socket table of /proc",
        error,
    })
}

/// Our table as it is; None when there is none.
fn listed() -> Result<Option<Listed>, InterceptError> {
    match run(&["list", "table", "inet", TABLE], "") {
        Ok(listing) => Ok(Some(Listed::parse(&listing))),
        Err(InterceptError::Kernel(said)) if said.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs `nft` with this on its standard input and returns what it printed.
fn run(arguments: &[&str], input: &str) -> Result<String, InterceptError> {
    let output = spawn(arguments, input).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => InterceptError::NftMissing,
        _ => InterceptError::Io {
            doing: "running nft",
            error,
        },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failure(said.trim()))
}

fn spawn(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = first_found(arguments)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe means that nft gave up before reading; its own message says why.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}

fn first_found(arguments: &[&str]) -> io::Result<std::process::Child> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for path in NFT_PATHS {
        result = Command::new(path)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result
}

/// What nft's words mean for the operator.
fn failure(said: &str) -> InterceptError {
    const KERNEL: [&str; 4] = [
        "No such file or directory",
        "not supported",
        "Invalid argument",
        "cache initialization failed",
    ];
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        InterceptError::NotPermitted
    } else if KERNEL.iter().any(|words| said.contains(words)) {
        InterceptError::Kernel(said.to_owned())
    } else {
        InterceptError::Nft(said.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_says_becomes_what_the_operator_can_do() {
        let refused = "Error: Could not process rule: Operation not permitted";
        assert!(matches!(failure(refused), InterceptError::NotPermitted));
        let kernel = "Error: Could not process rule: Protocol not supported";
        assert!(matches!(failure(kernel), InterceptError::Kernel(_)));
        let other = "Error: syntax error, unexpected newline";
        assert!(matches!(failure(other), InterceptError::Nft(_)));
    }
}
