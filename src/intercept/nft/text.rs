//! Our nftables table as text: written, replaced, taken away, and read back.
//!
//! One table, `inet pillion`, replaced as a whole in one transaction, so that rules are never half there and those of others
//! are never touched.

use crate::base::cidr::Cidr;
use crate::intercept::note::{self, Facts, Listed};
use crate::intercept::routes::{APPLICATION_MARK, LOCAL_MARK};
use crate::intercept::rules::{Outbound, Rules, WhileAway};
use crate::intercept::steps::{self, Names, Networks, Step};
use crate::model::{InboundMode, VIRTUAL_NETWORK, VIRTUAL_PREFIX};

/// The name of our table in the `inet` family.
pub const TABLE: &str = "pillion";

/// A base chain: its name and where it hooks in.
struct Base {
    name: &'static str,
    kind: &'static str,
    hook: &'static str,
    priority: i32,
}

/// Before the rules of others (-100), which would otherwise send a connection elsewhere first.
const OUTBOUND: Base = Base {
    name: "outbound",
    kind: "nat",
    hook: "output",
    priority: -110,
};

/// After the rules of others (-100): a port that a container engine publishes on this host stays its own.
const INBOUND: Base = Base {
    name: "inbound",
    kind: "nat",
    hook: "prerouting",
    priority: -90,
};

/// Before any address is translated.
const INBOUND_TPROXY: Base = Base {
    name: "inbound",
    kind: "filter",
    hook: "prerouting",
    priority: -150,
};

/// What the application answers to a client's address goes to the proxy, which connected from it.
const REPLIES: Base = Base {
    name: "replies",
    kind: "route",
    hook: "output",
    priority: -150,
};

/// Where a connection that was redirected finds its listener, or none.
const HOLD: Base = Base {
    name: "hold",
    kind: "filter",
    hook: "input",
    priority: -150,
};

impl Base {
    fn chain(&self, statements: &[String]) -> String {
        let Base {
            name,
            kind,
            hook,
            priority,
        } = self;
        let body: String = statements
            .iter()
            .map(|statement| format!("\t\t{statement}\n"))
            .collect();
        format!(
            "\tchain {name} {{\n\t\ttype {kind} hook {hook} priority {priority}; policy accept;\n{body}\t}}\n"
        )
    }
}

/// The text for `nft -f -` that puts exactly these rules in place of whatever our table held.
pub fn applying(rules: &Rules) -> String {
    let fingerprint = rules.fingerprint();
    let mut chains = String::new();
    if let Some(outbound) = &rules.outbound {
        let mut statements = statements(&steps::outbound(rules, outbound));
        let comment = note::applied(outbound.port, false, &fingerprint);
        statements.push(redirect(outbound.port, &comment));
        chains += &OUTBOUND.chain(&statements);
        if outbound.while_away == WhileAway::Hold {
            chains += &HOLD.chain(&hold(outbound));
        }
    }
    if let Some(inbound) = &rules.inbound {
        let steps = statements(&steps::inbound(rules, inbound));
        let comment = note::applied(inbound.port, rules.is_tproxy(), &fingerprint);
        chains += &match inbound.mode {
            InboundMode::Redirect => {
                INBOUND.chain(&[steps, vec![redirect(inbound.port, &comment)]].concat())
            }
            InboundMode::Tproxy => transparent(&[steps, tproxy(inbound.port, &comment)].concat()),
        };
    }
    replace(&chains)
}

/// The text that takes the table away. The first line makes the second succeed where there is no table.
pub fn removing() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The text that stops redirecting new connections and keeps those alive that were redirected: taking the table away
/// takes the kernel's address translation from under them, which resets every one.
pub fn draining(facts: &Facts) -> String {
    let accepts: Vec<String> = facts
        .proxy_ports
        .iter()
        .map(|port| {
            let comment = note::draining(*port, facts.tproxy);
            format!("ct state new accept comment \"{comment}\"")
        })
        .collect();
    let inbound = match facts.tproxy {
        true => transparent(&[]),
        false => INBOUND.chain(&accepts),
    };
    replace(&(OUTBOUND.chain(&accepts) + &inbound))
}

fn replace(chains: &str) -> String {
    format!("{}table inet {TABLE} {{\n{chains}}}\n", removing())
}

/// What begins a connection. The kernel begins to follow those that are there with whatever packet comes first, of either side, and
/// would redirect that one too.
const BEGINS: &str = "tcp flags & (fin | syn | rst | ack) == syn";

fn redirect(port: u16, comment: &str) -> String {
    format!("{BEGINS} redirect to :{port} comment \"{comment}\"")
}

/// Drops what is new and was redirected to where nobody listens: whoever sent it does so again. `transparent <= 1` is any socket,
/// also one that lingers in TIME_WAIT, of which nothing else can be asked: the kernel knows what to do with it.
fn hold(outbound: &Outbound) -> Vec<String> {
    let ports = [outbound.port].into_iter().chain(outbound.dns);
    let mut statements = vec![
        "ct state != new return".to_owned(),
        "ct status & dnat == 0 return".to_owned(),
        "socket transparent <= 1 return".to_owned(),
        format!("tcp dport {} drop", set(&ports.collect::<Vec<_>>())),
    ];
    statements.extend(outbound.dns.map(|dns| format!("udp dport {dns} drop")));
    statements
}

/// Gives a connection to the proxy. Without a proxy there it is not taken, and must not reach the application past it: then it begins
/// again until there is one.
fn tproxy(port: u16, comment: &str) -> Vec<String> {
    vec![
        format!(
            "meta l4proto tcp tproxy to :{port} meta mark set {LOCAL_MARK:#x} accept comment \"{comment}\""
        ),
        format!("{BEGINS} drop"),
    ]
}

/// The chains that deliver to the proxy's sockets what belongs to them although its addresses do not say so, and then do this
/// with what arrives.
fn transparent(statements: &[String]) -> String {
    let own = format!("meta l4proto tcp socket transparent 1 meta mark set {LOCAL_MARK:#x} accept");
    let inbound = [&[own], statements].concat();
    let replies = [
        format!("meta mark {APPLICATION_MARK:#x} ct mark set {APPLICATION_MARK:#x} return"),
        format!("ct mark {APPLICATION_MARK:#x} ct direction reply meta mark set {LOCAL_MARK:#x}"),
    ];
    INBOUND_TPROXY.chain(&inbound) + &REPLIES.chain(&replies)
}

fn statements(steps: &[Step]) -> Vec<String> {
    steps.iter().flat_map(statement).collect()
}

fn capture_names(names: &Names) -> Vec<String> {
    let Names { dns, proxy } = names;
    let comment = note::applied_to_names(*dns);
    vec![
        format!("meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns} comment \"{comment}\""),
        format!(
            "ip daddr {VIRTUAL_NETWORK}/{VIRTUAL_PREFIX} meta l4proto tcp redirect to :{proxy}"
        ),
    ]
}

/// A step in nft's words; one for each family where they differ.
fn statement(step: &Step) -> Vec<String> {
    match step {
        Step::LeaveUsers(users) => vec![format!("meta skuid {} return", set(users))],
        Step::LeaveGroups(groups) => vec![format!("meta skgid {} return", set(groups))],
        Step::CaptureNames(names) => capture_names(names),
        Step::LeaveLocal => vec!["fib daddr type local return".to_owned()],
        Step::LeaveForwarded => vec!["fib daddr type != local return".to_owned()],
        Step::LeaveArriving(interface) => vec![format!("iifname {interface} return")],
        Step::LeaveDeparting(interface) => vec![format!("oifname {interface} return")],
        Step::LeavePorts(ports) => vec![format!("tcp dport {} return", set(ports))],
        Step::KeepPorts(ports) => vec![format!("tcp dport != {} return", set(ports))],
        Step::LeaveNetworks(networks) => leave_networks(networks),
        Step::KeepNetworks(networks) => keep_networks(networks),
    }
}

fn leave_networks(networks: &Networks) -> Vec<String> {
    by_family(networks)
        .into_iter()
        .filter(|(_, _, networks)| !networks.is_empty())
        .map(|(_, header, networks)| format!("{header} daddr {} return", set(networks)))
        .collect()
}

fn keep_networks(networks: &Networks) -> Vec<String> {
    by_family(networks)
        .into_iter()
        .map(|(protocol, header, networks)| match networks.is_empty() {
            true => format!("meta nfproto {protocol} return"),
            false => format!("{header} daddr != {} return", set(networks)),
        })
        .collect()
}

fn by_family(networks: &Networks) -> [(&'static str, &'static str, &[Cidr]); 2] {
    [
        ("ipv4", "ip", &networks.ipv4),
        ("ipv6", "ip6", &networks.ipv6),
    ]
}

fn set<T: ToString>(elements: &[T]) -> String {
    let elements: Vec<String> = elements.iter().map(T::to_string).collect();
    match elements.as_slice() {
        [only] => only.clone(),
        _ => format!("{{ {} }}", elements.join(", ")),
    }
}

/// What a listing of our table says about itself.
pub fn parse(listing: &str) -> Listed {
    if let Some(ours) = Listed::read(listing.lines().filter_map(comment)) {
        return ours;
    }
    // Beyond the line that opens the table and the one that closes it there is somebody's content.
    let content = listing.lines().filter(|line| !line.trim().is_empty());
    match content.count() {
        0..=2 => Listed::Empty,
        _ => Listed::Foreign,
    }
}

fn comment(line: &str) -> Option<&str> {
    line.split_once("comment \"")?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::rules::testing::{self, chosen, usual};

    /// The text without the fingerprint, which is arbitrary.
    fn text(rules: &Rules) -> String {
        applying(rules).replace(&rules.fingerprint(), "FINGERPRINT")
    }

    #[test]
    fn the_usual_rules_redirect_both_directions_except_the_proxy_and_this_host() {
        let expected = "\
table inet pillion
delete table inet pillion
table inet pillion {
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tmeta skuid 1337 return
\t\tfib daddr type local return
\t\ttcp flags & (fin | syn | rst | ack) == syn redirect to :15001 comment \"pillion applied port=15001 rules=FINGERPRINT\"
\t}
\tchain hold {
\t\ttype filter hook input priority -150; policy accept;
\t\tct state != new return
\t\tct status & dnat == 0 return
\t\tsocket transparent <= 1 return
\t\ttcp dport 15001 drop
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -90; policy accept;
\t\tiifname \"lo\" return
\t\tfib daddr type != local return
\t\ttcp dport { 22, 15006 } return
\t\ttcp flags & (fin | syn | rst | ack) == syn redirect to :15006 comment \"pillion applied port=15006 rules=FINGERPRINT\"
\t}
}
";
        assert_eq!(text(&usual()), expected);
    }

    #[test]
    fn queries_are_captured_before_anything_is_left_alone_but_the_owners_that_are() {
        let expected = "\
\t\tmeta skuid 1337 return
\t\tmeta skgid 27 return
\t\tmeta l4proto { tcp, udp } th dport 53 redirect to :15053 comment \"pillion applied port=15053\"
\t\tip daddr 240.0.0.0/8 meta l4proto tcp redirect to :15001
\t\tfib daddr type local return
";
        let text = text(&testing::with_names());
        assert!(text.contains(expected), "{text}");
        let held = "\t\ttcp dport { 15001, 15053 } drop\n\t\tudp dport 15053 drop\n";
        assert!(text.contains(held), "{text}");
    }

    #[test]
    fn every_choice_is_one_statement_and_exclusions_come_first() {
        let expected = "\
table inet pillion
delete table inet pillion
table inet pillion {
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tmeta skuid { 1000, 1337 } return
\t\tmeta skgid 27 return
\t\tfib daddr type local return
\t\toifname \"docker*\" return
\t\toifname \"eth1\" return
\t\ttcp dport { 25, 3300-3310 } return
\t\tip daddr 10.0.0.0/8 return
\t\tip6 daddr fd00::/8 return
\t\ttcp dport != { 80, 443 } return
\t\tip daddr != 0.0.0.0/0 return
\t\tmeta nfproto ipv6 return
\t\ttcp flags & (fin | syn | rst | ack) == syn redirect to :1 comment \"pillion applied port=1 rules=FINGERPRINT\"
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -90; policy accept;
\t\tiifname \"lo\" return
\t\tfib daddr type != local return
\t\tiifname \"docker*\" return
\t\tiifname \"eth1\" return
\t\ttcp dport { 2, 9000 } return
\t\ttcp dport != 8000-9999 return
\t\ttcp flags & (fin | syn | rst | ack) == syn redirect to :2 comment \"pillion applied port=2 rules=FINGERPRINT\"
\t}
}
";
        assert_eq!(text(&chosen()), expected);
    }

    #[test]
    fn tproxy_takes_connections_without_translating_them_and_brings_the_applications_replies() {
        let mut rules = testing::tproxy();
        rules.outbound = None;
        let expected = "\
table inet pillion
delete table inet pillion
table inet pillion {
\tchain inbound {
\t\ttype filter hook prerouting priority -150; policy accept;
\t\tmeta l4proto tcp socket transparent 1 meta mark set 0x539 accept
\t\tiifname \"lo\" return
\t\tfib daddr type != local return
\t\ttcp dport { 22, 15006 } return
\t\tmeta l4proto tcp tproxy to :15006 meta mark set 0x539 accept comment \"pillion applied port=15006 tproxy rules=FINGERPRINT\"
\t\ttcp flags & (fin | syn | rst | ack) == syn drop
\t}
\tchain replies {
\t\ttype route hook output priority -150; policy accept;
\t\tmeta mark 0x53a ct mark set 0x53a return
\t\tct mark 0x53a ct direction reply meta mark set 0x539
\t}
}
";
        assert_eq!(text(&rules), expected);
    }

    #[test]
    fn a_direction_that_is_not_wanted_has_no_chain() {
        let mut rules = usual();
        rules.inbound = None;
        assert!(!applying(&rules).contains("prerouting"));
    }

    #[test]
    fn what_was_written_is_read_back() {
        for rules in [usual(), testing::tproxy()] {
            let facts = Facts {
                proxy_ports: rules.proxy_ports(),
                tproxy: rules.is_tproxy(),
            };
            let fingerprint = rules.fingerprint();
            let draining = Listed::Draining(facts.clone());
            assert_eq!(parse(&super::draining(&facts)), draining);
            let applied = Listed::Applied { facts, fingerprint };
            assert_eq!(parse(&applying(&rules)), applied);
        }
    }

    #[test]
    fn a_table_of_somebody_else_is_known_as_such() {
        let listing = "table inet pillion {\n\tchain x {\n\t\tcomment \"mine\"\n\t}\n}\n";
        assert_eq!(parse(listing), Listed::Foreign);
        assert_eq!(parse("table inet pillion {\n}\n"), Listed::Empty);
    }

    #[test]
    fn draining_accepts_and_redirects_nothing() {
        let expected = "\
table inet pillion
delete table inet pillion
table inet pillion {
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tct state new accept comment \"pillion draining port=15001\"
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -90; policy accept;
\t\tct state new accept comment \"pillion draining port=15001\"
\t}
}
";
        let facts = Facts {
            proxy_ports: vec![15001],
            tproxy: false,
        };
        assert_eq!(draining(&facts), expected);
    }
}
