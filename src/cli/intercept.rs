//! `pillion intercept`: the redirect rules that bring an application's traffic to its sidecar without it knowing.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::base::cidr::Cidr;
use crate::intercept::{
    self, Inbound, InterceptError, Interface, Outbound, PortRange, Removal, Rules, State, WhileAway,
};
use crate::model::InboundMode;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    pillion intercept apply\n  \
    pillion intercept apply --direction outbound --exclude-outbound-cidrs 10.9.0.0/16,fd09::/16\n  \
    pillion intercept apply --dns\n  \
    pillion intercept apply --inbound-mode tproxy\n  \
    pillion intercept print > rules.nft\n  \
    pillion intercept remove --drain 10\n\n\
    The rules live in the network namespace this runs in: in the table `inet pillion`, or, where nftables is missing, in iptables \
    chains named PILLION_...; --dns adds a route for the addresses that services are named by, 240.0.0.0/8, to the loopback interface. \
    Changing them takes the program nft (or iptables-restore and ip6tables-restore) and the capability NET_ADMIN; the proxy itself \
    needs neither.")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Redirect connections to the sidecar, replacing earlier rules in one step
    #[command(
        after_help = "Examples:\n  pillion intercept apply --uid 1337\n  pillion intercept apply --inbound-mode tproxy\n\n\
        While a sidecar is started again, connections and name queries of its application wait for it (--while-away hold): the kernel \
        sends the first packet of a connection again after 1, 2, 3 and more seconds, a resolver its query after about 5. Connections \
        that arrive are refused meanwhile, so that their clients go elsewhere.\n\n\
        With --inbound-mode tproxy the application sees its clients' addresses. The sidecar then says `inbound: {mode: tproxy}` and \
        needs the capability NET_RAW; this command needs the program ip, and uses the marks 0x539 and 0x53a and the routing table 133.\n\n\
        Exit code 0 when the rules are in place, also when they already were; 1 when nothing was changed, with the reason."
    )]
    Apply(Apply),
    /// Stop redirecting, let redirected connections end, and take the rules away
    #[command(
        after_help = "Examples:\n  pillion intercept remove\n  pillion intercept remove --force\n\n\
        New connections go direct at once. Exit code 0 when the rules are gone; 1 when connections still needed them after the drain \
        (run it again once they have ended), or it failed."
    )]
    Remove(Remove),
    /// Print the rules as text without changing anything
    #[command(
        after_help = "Examples:\n  pillion intercept print --exclude-inbound-ports 22,9100 | nft -c -f -\n  \
        pillion intercept print --backend iptables\n\n\
        The text is nft's unless --backend says iptables. The policy routes that --inbound-mode tproxy takes too are no part of it."
    )]
    Print(Print),
    /// Say whether these rules are in place, and whether they could be
    #[command(after_help = "Example:\n  pillion intercept check --output json\n\n\
        Exit code 0 when rules of exactly these choices are in place, with the routes that --dns and --inbound-mode tproxy need; 1 otherwise.")]
    Check(Check),
}

#[derive(clap::Args)]
struct Apply {
    #[command(flatten)]
    choices: Choices,

    #[command(flatten)]
    backend: Backend,
}

#[derive(clap::Args)]
struct Print {
    #[command(flatten)]
    choices: Choices,

    #[command(flatten)]
    backend: Backend,
}

/// What writes the rules.
#[derive(clap::Args)]
struct Backend {
    /// What keeps the rules: nftables, iptables, or nftables where it works and else iptables
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BackendChoice {
    Auto,
    Nft,
    Iptables,
}

/// What is redirected.
#[derive(clap::Args)]
struct Choices {
    /// Whose connections: those this host opens, those that arrive for it, or both
    #[arg(long, value_enum, default_value_t = Direction::Both)]
    direction: Direction,

    /// The sidecar's outbound listener
    #[arg(long, default_value_t = 15001, value_parser = port())]
    outbound_port: u16,

    /// The sidecar's inbound listener
    #[arg(long, default_value_t = 15006, value_parser = port())]
    inbound_port: u16,

    /// Also send name queries (UDP and TCP, port 53) to the sidecar's name server, which knows the services of the mesh
    #[arg(long)]
    dns: bool,

    /// The sidecar's name server, `dns.address` of its bootstrap file
    #[arg(long, default_value_t = 15053, value_parser = port(), requires = "dns")]
    dns_port: u16,

    /// What the application gets while no sidecar listens: its connections and name queries wait for one, or are refused at once
    #[arg(long, value_enum, default_value_t = Away::Hold)]
    while_away: Away,

    /// How arriving connections are taken: with their addresses translated, or kept so that the application sees its clients'
    #[arg(long, value_enum, default_value_t = Mode::Redirect)]
    inbound_mode: Mode,

    /// The user id the sidecar runs as; its connections are never redirected
    #[arg(long, default_value_t = 1337, value_parser = id)]
    uid: u32,

    /// More user ids whose connections are left alone
    #[arg(long, value_delimiter = ',', value_name = "UID,...", value_parser = id)]
    exclude_uids: Vec<u32>,

    /// Group ids whose connections are left alone
    #[arg(long, value_delimiter = ',', value_name = "GID,...", value_parser = id)]
    exclude_gids: Vec<u32>,

    /// Interfaces that are left alone in both directions; docker* is all that begin so
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    exclude_interfaces: Vec<Interface>,

    /// Destination ports that are left alone, like 25,3300-3310
    #[arg(long, value_delimiter = ',', value_name = "PORT,...")]
    exclude_outbound_ports: Vec<PortRange>,

    /// Only these destination ports [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PORT,...")]
    include_outbound_ports: Vec<PortRange>,

    /// Destination networks that are left alone, IPv4 or IPv6
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    exclude_outbound_cidrs: Vec<Cidr>,

    /// Only these destination networks; a family without one is left alone [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    include_outbound_cidrs: Vec<Cidr>,

    /// Ports of this host that are left alone; ssh is, so that nobody is locked out
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "PORT,...",
        default_value = "22"
    )]
    exclude_inbound_ports: Vec<PortRange>,

    /// Only these ports of this host [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PORT,...")]
    include_inbound_ports: Vec<PortRange>,
}

#[derive(clap::Args)]
struct Remove {
    /// Seconds to wait for redirected connections to end
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400), conflicts_with = "force")]
    drain: u64,

    /// Take the rules away at once; this resets redirected connections
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    backend: Backend,
}

#[derive(clap::Args)]
struct Check {
    #[command(flatten)]
    choices: Choices,

    #[command(flatten)]
    backend: Backend,

    /// How to say it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Both,
    Outbound,
    Inbound,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Redirect,
    Tproxy,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Away {
    Hold,
    Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The kernel knows no names.
fn id(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "not a number; `id -u NAME` and `id -g NAME` tell those of a user".to_owned())
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let outcome = match &arguments.action {
        Action::Apply(apply) => self::apply(apply),
        Action::Remove(remove) => self::remove(remove),
        Action::Print(print) => self::print(print),
        Action::Check(check) => self::check(check),
    };
    outcome.unwrap_or_else(|problem| {
        eprintln!("pillion intercept: {problem}");
        ExitCode::FAILURE
    })
}

fn apply(apply: &Apply) -> Result<ExitCode, String> {
    let rules = apply.choices.rules()?;
    intercept::apply(&rules, apply.backend.wish()).map_err(said)?;
    println!("applied: {}", apply.choices.summary());
    Ok(ExitCode::SUCCESS)
}

fn remove(remove: &Remove) -> Result<ExitCode, String> {
    let drain = (!remove.force).then(|| Duration::from_secs(remove.drain));
    match intercept::remove(remove.backend.wish(), drain).map_err(said)? {
        Removal::NothingThere => println!("nothing to remove"),
        Removal::Removed => println!("removed"),
        Removal::StillLive { connections } => {
            return Err(format!(
                "new connections are not redirected any more, but {connections} redirected ones still live and need the rules: \
                 run this again once they have ended, or with --force to cut them"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(print: &Print) -> Result<ExitCode, String> {
    let backend = print.backend.wish().unwrap_or(intercept::Backend::Nft);
    let rules = print.choices.rules()?;
    if rules.dns().is_some() {
        println!("# beside it, `apply` does: {}", intercept::route_command());
    }
    print!("{}", intercept::render(&rules, backend));
    Ok(ExitCode::SUCCESS)
}

fn check(check: &Check) -> Result<ExitCode, String> {
    let rules = check.choices.rules()?;
    let wish = check.backend.wish();
    let state = intercept::state(wish).map_err(said)?;
    let in_place =
        matches!(&state, State::Applied { fingerprint, .. } if *fingerprint == rules.fingerprint());
    let missing = match in_place {
        true => intercept::missing_routes(&rules).map_err(said)?,
        false => Vec::new(),
    };
    // Rules that are in place were possible; asking the kernel again would prove nothing.
    let obstacle = match in_place {
        true => None,
        false => intercept::rehearse(&rules, wish).err().map(said),
    };
    let (word, explained) = describe(&state, in_place);
    match check.output {
        Output::Text => {
            println!("{explained}");
            if !missing.is_empty() {
                println!(
                    "but routes are gone that they need, and what they redirect arrives nowhere: apply these rules again, or run\n  {}",
                    missing.join("\n  ")
                );
            }
            if let Some(obstacle) = &obstacle {
                println!("they could not be applied here: {obstacle}");
            }
        }
        Output::Json => println!(
            "{}",
            json!({
                "state": word, "in_place": in_place, "backend": backend(&state), "connections": connections(&state),
                "missing_routes": missing, "obstacle": obstacle
            })
        ),
    }
    Ok(match in_place && missing.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A state as one word for machines and as a sentence.
fn describe(state: &State, in_place: bool) -> (&'static str, String) {
    match state {
        State::Absent => ("absent", "no rules of pillion are in place".to_owned()),
        State::Applied { .. } if in_place => ("applied", "these rules are in place".to_owned()),
        State::Applied { .. } => (
            "applied",
            "rules of pillion are in place, but of other choices than these".to_owned(),
        ),
        State::Draining { connections, .. } => (
            "draining",
            format!(
                "rules of pillion are being removed; {connections} redirected connections still live"
            ),
        ),
    }
}

fn connections(state: &State) -> Option<usize> {
    match state {
        State::Draining { connections, .. } => Some(*connections),
        State::Absent | State::Applied { .. } => None,
    }
}

fn backend(state: &State) -> Option<String> {
    match state {
        State::Applied { backend, .. } | State::Draining { backend, .. } => {
            Some(backend.to_string())
        }
        State::Absent => None,
    }
}

fn said(error: InterceptError) -> String {
    error.to_string()
}

impl Backend {
    /// None leaves it to what works here.
    fn wish(&self) -> Option<intercept::Backend> {
        match self.backend {
            BackendChoice::Auto => None,
            BackendChoice::Nft => Some(intercept::Backend::Nft),
            BackendChoice::Iptables => Some(intercept::Backend::Iptables),
        }
    }
}

impl Choices {
    fn rules(&self) -> Result<Rules, String> {
        let outbound = (self.direction != Direction::Inbound).then(|| Outbound {
            port: self.outbound_port,
            dns: self.dns.then_some(self.dns_port),
            while_away: match self.while_away {
                Away::Hold => WhileAway::Hold,
                Away::Refuse => WhileAway::Refuse,
            },
            ports_excluded: self.exclude_outbound_ports.clone(),
            ports_included: self.include_outbound_ports.clone(),
            networks_excluded: self.exclude_outbound_cidrs.clone(),
            networks_included: self.include_outbound_cidrs.clone(),
        });
        let inbound = (self.direction != Direction::Outbound).then(|| Inbound {
            port: self.inbound_port,
            mode: match self.inbound_mode {
                Mode::Redirect => InboundMode::Redirect,
                Mode::Tproxy => InboundMode::Tproxy,
            },
            ports_excluded: self.exclude_inbound_ports.clone(),
            ports_included: self.include_inbound_ports.clone(),
        });
        if self.direction == Direction::Outbound && self.inbound_mode == Mode::Tproxy {
            return Err("--inbound-mode tproxy takes what arrives, and --direction outbound leaves that alone: drop one".to_owned());
        }
        if self.direction == Direction::Both && self.outbound_port == self.inbound_port {
            return Err(format!(
                "--outbound-port and --inbound-port are both {}: the sidecar tells directions apart by its ports; give two",
                self.inbound_port
            ));
        }
        if self.dns && outbound.is_none() {
            return Err("--dns captures what this host asks, which --direction inbound leaves alone: use both or outbound".to_owned());
        }
        if self.dns && [self.outbound_port, self.inbound_port].contains(&self.dns_port) {
            return Err(format!(
                "--dns-port {} is a listener of the sidecar already; give another",
                self.dns_port
            ));
        }
        Ok(Rules {
            proxy_uid: self.uid,
            uids_excluded: self.exclude_uids.clone(),
            gids_excluded: self.exclude_gids.clone(),
            interfaces_excluded: self.exclude_interfaces.clone(),
            outbound,
            inbound,
        })
    }

    fn summary(&self) -> String {
        let outbound = format!("outbound to port {}", self.outbound_port);
        let mode = match self.inbound_mode {
            Mode::Redirect => "",
            Mode::Tproxy => " with its addresses kept",
        };
        let inbound = format!("inbound to port {}{mode}", self.inbound_port);
        let directions = match self.direction {
            Direction::Both => format!("{outbound}, {inbound}"),
            Direction::Outbound => outbound,
            Direction::Inbound => inbound,
        };
        let names = match self.dns {
            true => format!(", name queries to port {}", self.dns_port),
            false => String::new(),
        };
        format!("{directions}{names}, except for user id {}", self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        choices: Choices,
    }

    fn choices(line: &str) -> Choices {
        let words = std::iter::once("test").chain(line.split_whitespace());
        Line::parse_from(words).choices
    }

    #[test]
    fn lists_are_written_with_commas_and_excluding_inbound_ports_replaces_the_default() {
        let rules = choices("--exclude-inbound-ports 9000,80-90 --exclude-uids 1,2")
            .rules()
            .unwrap();
        let inbound = rules.inbound.unwrap();
        assert_eq!(
            inbound.ports_excluded,
            ["9000", "80-90"].map(|port| port.parse().unwrap())
        );
        assert_eq!(rules.uids_excluded, [1, 2]);
    }

    #[test]
    fn capturing_names_takes_the_outbound_direction_and_a_port_of_its_own() {
        let outbound = |line| choices(line).rules().map(|rules| rules.dns());
        assert_eq!(outbound(""), Ok(None));
        assert_eq!(outbound("--dns"), Ok(Some(15053)));
        assert_eq!(outbound("--dns --dns-port 5353"), Ok(Some(5353)));
        assert!(outbound("--dns --direction inbound").is_err());
        assert!(outbound("--dns --dns-port 15001").is_err());
    }

    #[test]
    fn one_port_cannot_serve_both_directions() {
        let same = choices("--outbound-port 15006").rules();
        assert!(same.unwrap_err().contains("give two"));
        let outbound_only = choices("--outbound-port 15006 --direction outbound").rules();
        assert_eq!(outbound_only.unwrap().proxy_ports(), [15006]);
    }

    #[test]
    fn keeping_the_addresses_of_what_arrives_needs_something_to_arrive() {
        let both = choices("--inbound-mode tproxy").rules();
        assert!(both.unwrap().is_tproxy());
        let nothing = choices("--inbound-mode tproxy --direction outbound").rules();
        assert!(nothing.unwrap_err().contains("drop one"));
    }
}
