//! What changes the machine's rules: nftables, or iptables where that is missing. What it means to apply and to remove is here,
//! once for both; how it is written is each backend's own.

use std::fmt;
use std::io;
use std::time::Duration;

use super::connections::redirected_connections;
use super::error::InterceptError;
use super::host::{expect_interfaces, expect_proxys_user};
use super::note::{Facts, Listed};
use super::rules::Rules;
use super::{iptables, nft, routes, virtual_route};

/// How often a drain looks at what is left.
const DRAIN_POLL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Nft,
    Iptables,
}

/// What this network namespace holds of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// No rules of ours.
    Absent,
    /// Connections are redirected, by rules with this fingerprint (see [`Rules::fingerprint`]).
    Applied {
        backend: Backend,
        fingerprint: String,
    },
    /// New connections go where they want; this many redirected ones still live.
    Draining {
        backend: Backend,
        connections: usize,
    },
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

/// Puts exactly these rules in place; live connections go on, and doing it twice is doing it once. Without a wish it is done where
/// our rules are already, else by nftables where that works, else by iptables.
pub fn apply(rules: &Rules, wish: Option<Backend>) -> Result<(), InterceptError> {
    expect_interfaces(&rules.interfaces_excluded)?;
    expect_proxys_user(rules)?;
    let backend = choose(rules, wish)?;
    // A packet is marked only once there is a route for it.
    let are_routes_new = rules.is_tproxy() && routes::add()?;
    let is_route_new = rules.dns().is_some() && virtual_route::add().map_err(of_route)?;
    let applied = backend.apply(rules);
    if applied.is_err() {
        // As well as it goes: what is told is why the rules failed.
        if are_routes_new {
            let _ = routes::remove();
        }
        if is_route_new {
            let _ = virtual_route::remove();
        }
    } else if rules.dns().is_none() {
        virtual_route::remove().map_err(of_route)?;
    }
    applied
}

/// The route for virtual addresses could not be added or removed.
fn of_route(error: io::Error) -> InterceptError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => InterceptError::NotPermitted,
        _ => InterceptError::Io {
            doing: "changing the route for virtual addresses".to_owned(),
            error,
        },
    }
}

/// Every route of ours; false where there were none.
fn remove_routes() -> Result<bool, InterceptError> {
    let had_route = virtual_route::remove().map_err(of_route)?;
    Ok(routes::remove()? || had_route)
}

/// Whether `apply` would succeed, found out without changing anything.
pub fn rehearse(rules: &Rules, wish: Option<Backend>) -> Result<(), InterceptError> {
    expect_interfaces(&rules.interfaces_excluded)?;
    expect_proxys_user(rules)?;
    let backend = choose(rules, wish)?;
    if rules.is_tproxy() {
        routes::rehearse()?;
    }
    backend.rehearse(rules)
}

/// What these rules need of routes and is not there, as the commands that would add it: somebody took it away, since `apply` leaves
/// either all or nothing.
pub fn missing_routes(rules: &Rules) -> Result<Vec<String>, InterceptError> {
    let mut missing = match rules.is_tproxy() {
        true => routes::missing()?,
        false => Vec::new(),
    };
    if rules.dns().is_some() && !virtual_route::is_there().map_err(of_route)? {
        missing.push(virtual_route::command());
    }
    Ok(missing)
}

/// What is in place now.
pub fn state(wish: Option<Backend>) -> Result<State, InterceptError> {
    Ok(match found(wish)? {
        None | Some((_, Listed::Empty)) => State::Absent,
        Some((backend, Listed::Foreign)) => return Err(backend.foreign()),
        Some((backend, Listed::Applied { fingerprint, .. })) => State::Applied {
            backend,
            fingerprint,
        },
        Some((backend, Listed::Draining(facts))) => State::Draining {
            backend,
            connections: count(&facts)?,
        },
    })
}

/// Stops redirecting at once, waits up to `drain` for the redirected connections to end, and then takes the rules away without a
/// trace. With connections left they stay, redirecting nothing, and a later call finishes; a `drain` of None cuts them.
pub fn remove(wish: Option<Backend>, drain: Option<Duration>) -> Result<Removal, InterceptError> {
    let Some((backend, listed)) = found(wish)? else {
        // A removal that was cut short may have left them.
        return Ok(match remove_routes()? {
            true => Removal::Removed,
            false => Removal::NothingThere,
        });
    };
    if listed == Listed::Foreign {
        return Err(backend.foreign());
    }
    let facts = listed.facts().cloned().unwrap_or_default();
    if let Some(drain) = drain.filter(|_| !facts.proxy_ports.is_empty()) {
        backend.drain(&facts)?;
        let connections = wait_for_end(&facts, drain)?;
        if connections > 0 {
            return Ok(Removal::StillLive { connections });
        }
    }
    backend.clear()?;
    remove_routes()?;
    Ok(Removal::Removed)
}

/// The text that puts these rules in place, for the programs of this backend.
pub fn render(rules: &Rules, backend: Backend) -> String {
    match backend {
        Backend::Nft => nft::applying(rules),
        Backend::Iptables => iptables::applying(rules),
    }
}

/// Whom to ask for these rules, after a look at what is in place.
fn choose(rules: &Rules, wish: Option<Backend>) -> Result<Backend, InterceptError> {
    let in_place = match wish {
        // Its own state has to be known; that of the other one counts only if it can be had.
        Some(wish) => match found(Some(wish))? {
            None => found(None).unwrap_or_default(),
            here => here,
        },
        None => found(None)?,
    };
    match in_place {
        Some((backend, Listed::Foreign)) if wish.is_none_or(|wish| wish == backend) => {
            Err(backend.foreign())
        }
        Some((backend, listed)) if listed.facts().is_some() => {
            if wish.is_some_and(|wish| wish != backend) {
                return Err(InterceptError::OtherBackend(backend));
            }
            refuse_other_mode(&listed, rules)?;
            Ok(backend)
        }
        _ => wish.map_or_else(|| first_that_works(rules), Ok),
    }
}

/// Connections that came the one way do not survive rules for the other.
fn refuse_other_mode(listed: &Listed, rules: &Rules) -> Result<(), InterceptError> {
    match listed.facts() {
        Some(facts) if facts.tproxy != rules.is_tproxy() => Err(InterceptError::OtherMode),
        _ => Ok(()),
    }
}

fn first_that_works(rules: &Rules) -> Result<Backend, InterceptError> {
    match nft::rehearse(rules) {
        Ok(()) => Ok(Backend::Nft),
        Err(error) if error.means_no_backend() => match iptables::rehearse(rules) {
            Ok(()) => Ok(Backend::Iptables),
            // With neither here, nftables is what there should be.
            Err(InterceptError::Missing { .. }) => Err(error),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// What is there under our name, of the wished backend or of the first that has something.
fn found(wish: Option<Backend>) -> Result<Option<(Backend, Listed)>, InterceptError> {
    if let Some(backend) = wish {
        return Ok(backend.listed()?.map(|listed| (backend, listed)));
    }
    let mut missing = Vec::new();
    for backend in BACKENDS {
        match backend.listed() {
            Ok(None) => {}
            Ok(Some(listed)) => return Ok(Some((backend, listed))),
            // What is not there has not been told anything either.
            Err(error) if error.means_no_backend() => missing.push(error),
            Err(error) => return Err(error),
        }
    }
    match missing.len() == BACKENDS.len() {
        true => Err(missing.swap_remove(0)),
        false => Ok(None),
    }
}

/// How many redirected connections are left after waiting at most so long for none.
fn wait_for_end(facts: &Facts, drain: Duration) -> Result<usize, InterceptError> {
    let mut left = drain;
    loop {
        let connections = count(facts)?;
        if connections == 0 || left.is_zero() {
            return Ok(connections);
        }
        let pause = left.min(DRAIN_POLL);
        std::thread::sleep(pause);
        left -= pause;
    }
}

fn count(facts: &Facts) -> Result<usize, InterceptError> {
    redirected_connections(facts).map_err(|error| InterceptError::Io {
        doing: "reading the socket table of /proc".to_owned(),
        error,
    })
}

const BACKENDS: [Backend; 2] = [Backend::Nft, Backend::Iptables];

impl Backend {
    fn listed(self) -> Result<Option<Listed>, InterceptError> {
        match self {
            Backend::Nft => nft::listed(),
            Backend::Iptables => iptables::listed(),
        }
    }

    fn apply(self, rules: &Rules) -> Result<(), InterceptError> {
        match self {
            Backend::Nft => nft::apply(rules),
            Backend::Iptables => iptables::apply(rules),
        }
    }

    fn rehearse(self, rules: &Rules) -> Result<(), InterceptError> {
        match self {
            Backend::Nft => nft::rehearse(rules),
            Backend::Iptables => iptables::rehearse(rules),
        }
    }

    fn drain(self, facts: &Facts) -> Result<(), InterceptError> {
        match self {
            Backend::Nft => nft::drain(facts),
            Backend::Iptables => iptables::drain(facts),
        }
    }

    fn clear(self) -> Result<(), InterceptError> {
        match self {
            Backend::Nft => nft::clear(),
            Backend::Iptables => iptables::clear(),
        }
    }

    fn foreign(self) -> InterceptError {
        match self {
            Backend::Nft => InterceptError::ForeignTable,
            Backend::Iptables => InterceptError::ForeignChain,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Backend::Nft => "nft",
            Backend::Iptables => "iptables",
        })
    }
}
