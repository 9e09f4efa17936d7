//! What is redirected: plain data, and what it says in nftables statements. Nothing here touches the machine.

use super::ranges::{Interface, PortRange};
use super::table::{self, INBOUND, OUTBOUND};
use crate::base::cidr::Cidr;
use crate::model::{VIRTUAL_NETWORK, VIRTUAL_PREFIX};

/// Which connections are sent to the proxy instead of where they were going.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Whose connections are never redirected: the proxy's own user.
    pub proxy_uid: u32,
    /// More users whose connections are not redirected.
    pub uids_excluded: Vec<u32>,
    /// Groups whose connections are not redirected.
    pub gids_excluded: Vec<u32>,
    /// Traffic through these interfaces is left alone, in both directions.
    pub interfaces_excluded: Vec<Interface>,
    /// What the host's processes open; None redirects none of it.
    pub outbound: Option<Outbound>,
    /// What arrives for this host; None redirects none of it.
    pub inbound: Option<Inbound>,
}

/// An exclusion wins over an inclusion. An empty list of inclusions is everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outbound {
    /// The proxy's outbound listener.
    pub port: u16,
    /// The proxy's name server: every query of another user goes there, and what it answers can be dialled. None leaves queries alone.
    pub dns: Option<u16>,
    pub ports_excluded: Vec<PortRange>,
    pub ports_included: Vec<PortRange>,
    pub networks_excluded: Vec<Cidr>,
    pub networks_included: Vec<Cidr>,
}

/// An exclusion wins over an inclusion. An empty list of inclusions is everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inbound {
    /// The proxy's inbound listener.
    pub port: u16,
    pub ports_excluded: Vec<PortRange>,
    pub ports_included: Vec<PortRange>,
}

impl Rules {
    /// The ports that connections are redirected to.
    pub fn proxy_ports(&self) -> Vec<u16> {
        let outbound = self.outbound.iter().map(|outbound| outbound.port);
        let inbound = self.inbound.iter().map(|inbound| inbound.port);
        outbound.chain(inbound).chain(self.dns()).collect()
    }

    /// The proxy's name server, where queries are captured.
    pub fn dns(&self) -> Option<u16> {
        self.outbound.as_ref().and_then(|outbound| outbound.dns)
    }

    /// The text for `nft -f -` that puts exactly these rules in place of whatever our table held.
    pub fn nft(&self) -> String {
        let fingerprint = self.fingerprint();
        let mut chains = String::new();
        if let Some(outbound) = &self.outbound {
            let mut statements = self.outbound_statements(outbound);
            statements.push(table::redirect(outbound.port, &fingerprint));
            chains += &OUTBOUND.chain(&statements);
        }
        if let Some(inbound) = &self.inbound {
            let mut statements = self.inbound_statements(inbound);
            statements.push(table::redirect(inbound.port, &fingerprint));
            chains += &INBOUND.chain(&statements);
        }
        table::replace(&chains)
    }

    /// A short word that differs when the rules do.
    pub fn fingerprint(&self) -> String {
        let mut statements = Vec::new();
        if let Some(outbound) = &self.outbound {
            statements.push(format!("outbound {}", outbound.port));
            statements.extend(self.outbound_statements(outbound));
        }
        if let Some(inbound) = &self.inbound {
            statements.push(format!("inbound {}", inbound.port));
            statements.extend(self.inbound_statements(inbound));
        }
        format!("{:08x}", crc32fast::hash(statements.join("\n").as_bytes()))
    }

    fn outbound_statements(&self, outbound: &Outbound) -> Vec<String> {
        let mut uids = self.uids_excluded.clone();
        uids.push(self.proxy_uid);
        let mut statements = vec![format!("meta skuid {} return", set(&ordered(&uids)))];
        if !self.gids_excluded.is_empty() {
            let gids = set(&ordered(&self.gids_excluded));
            statements.push(format!("meta skgid {gids} return"));
        }
        statements.extend(capture_names(outbound));
        // Whatever ends on this host: loopback, and the host's own addresses.
        statements.push("fib daddr type local return".to_owned());
        statements.extend(leave_interfaces("oifname", &self.interfaces_excluded));
        statements.extend(leave_ports(&outbound.ports_excluded));
        statements.extend(leave_networks(&outbound.networks_excluded));
        statements.extend(keep_ports(&outbound.ports_included));
        statements.extend(keep_networks(&outbound.networks_included));
        statements
    }

    fn inbound_statements(&self, inbound: &Inbound) -> Vec<String> {
        // The proxy's own connections to the application pass here too, when no outbound chain has seen them.
        let mut statements = vec![
            "iifname \"lo\" return".to_owned(),
            "fib daddr type != local return".to_owned(),
        ];
        let mut excluded = inbound.ports_excluded.clone();
        excluded.push(PortRange::one(inbound.port));
        statements.extend(leave_interfaces("iifname", &self.interfaces_excluded));
        statements.extend(leave_ports(&excluded));
        statements.extend(keep_ports(&inbound.ports_included));
        statements
    }
}

/// Name servers are often on this host itself, so their queries are captured before what ends here is left alone. Virtual
/// addresses are nobody's but the proxy's, whatever else is left alone.
fn capture_names(outbound: &Outbound) -> Vec<String> {
    let Some(dns) = outbound.dns else {
        return Vec::new();
    };
    let virtual_addresses = format!("{VIRTUAL_NETWORK}/{VIRTUAL_PREFIX}");
    vec![
        table::redirect_queries(dns),
        format!(
            "ip daddr {virtual_addresses} meta l4proto tcp redirect to :{}",
            outbound.port
        ),
    ]
}

fn leave_interfaces(direction: &str, interfaces: &[Interface]) -> Vec<String> {
    // A set of names with a trailing `*` needs a newer nft than one statement each.
    ordered(interfaces)
        .iter()
        .map(|interface| format!("{direction} {interface} return"))
        .collect()
}

fn leave_ports(ports: &[PortRange]) -> Option<String> {
    let ports = PortRange::merged(ports);
    (!ports.is_empty()).then(|| format!("tcp dport {} return", set(&ports)))
}

fn keep_ports(ports: &[PortRange]) -> Option<String> {
    let ports = PortRange::merged(ports);
    (!ports.is_empty()).then(|| format!("tcp dport != {} return", set(&ports)))
}

fn leave_networks(networks: &[Cidr]) -> Vec<String> {
    let families = by_family(networks);
    let present = families.iter().filter(|(_, networks)| !networks.is_empty());
    present
        .map(|(family, networks)| format!("{family} daddr {} return", set(networks)))
        .collect()
}

fn keep_networks(networks: &[Cidr]) -> Vec<String> {
    if networks.is_empty() {
        return Vec::new();
    }
    let protocols = ["ipv4", "ipv6"];
    let families = by_family(networks);
    let statement =
        |(protocol, (family, networks)): (&str, &(&str, Vec<Cidr>))| match networks.is_empty() {
            true => format!("meta nfproto {protocol} return"),
            false => format!("{family} daddr != {} return", set(networks)),
        };
    protocols
        .into_iter()
        .zip(&families)
        .map(statement)
        .collect()
}

fn by_family(networks: &[Cidr]) -> [(&'static str, Vec<Cidr>); 2] {
    let (v4, v6) = Cidr::merged(networks).into_iter().partition(Cidr::is_ipv4);
    [("ip", v4), ("ip6", v6)]
}

fn set<T: ToString>(elements: &[T]) -> String {
    let elements: Vec<String> = elements.iter().map(T::to_string).collect();
    match elements.as_slice() {
        [only] => only.clone(),
        _ => format!("{{ {} }}", elements.join(", ")),
    }
}

fn ordered<T: Ord + Clone>(elements: &[T]) -> Vec<T> {
    let mut elements = elements.to_vec();
    elements.sort_unstable();
    elements.dedup();
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Rules {
        Rules {
            proxy_uid: 1337,
            uids_excluded: Vec::new(),
            gids_excluded: Vec::new(),
            interfaces_excluded: Vec::new(),
            outbound: Some(Outbound {
                port: 15001,
                dns: None,
                ports_excluded: Vec::new(),
                ports_included: Vec::new(),
                networks_excluded: Vec::new(),
                networks_included: Vec::new(),
            }),
            inbound: Some(Inbound {
                port: 15006,
                ports_excluded: vec![PortRange::one(22)],
                ports_included: Vec::new(),
            }),
        }
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(written: &str) -> Vec<T> {
        written
            .split(',')
            .map(|part| part.parse().unwrap())
            .collect()
    }

    /// The text without the fingerprint, which is arbitrary.
    fn text(rules: &Rules) -> String {
        rules.nft().replace(&rules.fingerprint(), "FINGERPRINT")
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
\t\tmeta l4proto tcp redirect to :15001 comment \"pillion applied port=15001 rules=FINGERPRINT\"
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -90; policy accept;
\t\tiifname \"lo\" return
\t\tfib daddr type != local return
\t\ttcp dport { 22, 15006 } return
\t\tmeta l4proto tcp redirect to :15006 comment \"pillion applied port=15006 rules=FINGERPRINT\"
\t}
}
";
        assert_eq!(text(&usual()), expected);
    }

    #[test]
    fn every_choice_is_one_statement_and_exclusions_come_first() {
        let mut rules = usual();
        rules.uids_excluded = vec![1000, 1337];
        rules.gids_excluded = vec![27];
        rules.interfaces_excluded = parsed("docker*,eth1");
        rules.outbound = Some(Outbound {
            port: 1,
            dns: None,
            ports_excluded: parsed("3306,25,3300-3310"),
            ports_included: parsed("80,443"),
            networks_excluded: parsed("10.1.0.0/16,10.0.0.0/8,fd00::/8"),
            networks_included: parsed("0.0.0.0/0"),
        });
        rules.inbound = Some(Inbound {
            port: 2,
            ports_excluded: parsed("9000"),
            ports_included: parsed("8000-9999"),
        });
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
\t\tmeta l4proto tcp redirect to :1 comment \"pillion applied port=1 rules=FINGERPRINT\"
\t}
\tchain inbound {
\t\ttype nat hook prerouting priority -90; policy accept;
\t\tiifname \"lo\" return
\t\tfib daddr type != local return
\t\tiifname \"docker*\" return
\t\tiifname \"eth1\" return
\t\ttcp dport { 2, 9000 } return
\t\ttcp dport != 8000-9999 return
\t\tmeta l4proto tcp redirect to :2 comment \"pillion applied port=2 rules=FINGERPRINT\"
\t}
}
";
        assert_eq!(text(&rules), expected);
    }

    #[test]
    fn queries_are_captured_before_anything_is_left_alone_but_the_users_that_are() {
        let mut rules = usual();
        rules.gids_excluded = vec![27];
        if let Some(outbound) = &mut rules.outbound {
            outbound.dns = Some(15053);
        }
        let expected = "\
\t\tmeta skuid 1337 return
\t\tmeta skgid 27 return
\t\tmeta l4proto { tcp, udp } th dport 53 redirect to :15053 comment \"pillion applied port=15053\"
\t\tip daddr 240.0.0.0/8 meta l4proto tcp redirect to :15001
\t\tfib daddr type local return
";
        assert!(text(&rules).contains(expected), "{}", text(&rules));
        assert_eq!(rules.proxy_ports(), [15001, 15006, 15053]);
        assert_ne!(rules.fingerprint(), usual().fingerprint());
    }

    #[test]
    fn a_direction_that_is_not_wanted_has_no_chain() {
        let mut rules = usual();
        rules.inbound = None;
        assert!(!rules.nft().contains("prerouting"));
        assert_eq!(rules.proxy_ports(), [15001]);
    }

    #[test]
    fn the_fingerprint_follows_the_meaning_and_not_the_order_of_words() {
        let mut one = usual();
        let mut other = usual();
        one.uids_excluded = vec![1, 2];
        other.uids_excluded = vec![2, 1, 2];
        assert_eq!(one.fingerprint(), other.fingerprint());
        other.proxy_uid = 3;
        assert_ne!(one.fingerprint(), other.fingerprint());
    }
}
