//! Our rules as `iptables-save` and `iptables-restore` write them: chains of our own, and one jump to each from a built-in chain.
//!
//! Written for one family, since each has its own program. `nat` redirects; `mangle` holds what finds nobody, and has tproxy. A list that asks for
//! everything else to be let go (`KeepPorts`, `KeepNetworks`) cannot be one rule here, so it is turned round: what it keeps goes on in
//! the next chain of the same name, with a number, and what reaches the end of a chain is let go.

use super::ours::{Lines, Ours};
use crate::base::cidr::Cidr;
use crate::intercept::note::{self, Facts};
use crate::intercept::ranges::{Interface, PortRange};
use crate::intercept::routes::{APPLICATION_MARK, LOCAL_MARK};
use crate::intercept::rules::{Outbound, Rules, WhileAway};
use crate::intercept::steps::{self, Names, Networks, Step};
use crate::model::{InboundMode, VIRTUAL_NETWORK, VIRTUAL_PREFIX};

pub const OUTBOUND: &str = "PILLION_OUTBOUND";
pub const INBOUND: &str = "PILLION_INBOUND";
/// Name queries by UDP; those by TCP are among what is outbound.
pub const NAMES: &str = "PILLION_NAMES";
/// What is redirected while nobody listens; and queries by UDP.
pub const HOLD: &str = "PILLION_HOLD";
pub const HOLD_NAMES: &str = "PILLION_HOLD_NAMES";
pub const REPLIES: &str = "PILLION_REPLIES";

/// What one `multiport` takes; a range counts twice.
const MULTIPORT_MAX: usize = 15;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// Exactly these rules, for one family.
pub fn applying(rules: &Rules, family: Family) -> Ours {
    let mut ours = Ours::default();
    let fingerprint = rules.fingerprint();
    if let Some(outbound) = &rules.outbound {
        let comment = note::applied(outbound.port, false, &fingerprint);
        let mut chain = Chain::begin(OUTBOUND, "OUTPUT", family, &mut ours.nat);
        chain.steps(&steps::outbound(rules, outbound));
        chain.rule(&redirect_beginning(outbound.port, &comment));
        if let Some(dns) = outbound.dns {
            let mut names = Chain::begin_for("udp", NAMES, "OUTPUT", family, &mut ours.nat);
            names.steps(&steps::owners(rules));
            names.rule(&queries(dns));
        }
        if outbound.while_away == WhileAway::Hold {
            hold(outbound, family, &mut ours.mangle);
        }
    }
    if let Some(inbound) = &rules.inbound {
        let comment = note::applied(inbound.port, rules.is_tproxy(), &fingerprint);
        let steps = steps::inbound(rules, inbound);
        match inbound.mode {
            InboundMode::Redirect => {
                let mut chain = Chain::begin(INBOUND, "PREROUTING", family, &mut ours.nat);
                chain.steps(&steps);
                chain.rule(&redirect_beginning(inbound.port, &comment));
            }
            InboundMode::Tproxy => {
                let mut chain = transparent(family, &mut ours.mangle);
                // TPROXY drops what belongs to another socket: connections that were there before the rules.
                chain.rule("! --syn -m socket -j RETURN");
                chain.steps(&steps);
                chain.rule(&tproxy(inbound.port, &comment));
            }
        }
    }
    ours
}

/// Redirects nothing new. A rule that tracks connections stays, because the last one that goes would take the kernel's address
/// translation from under those that live.
pub fn draining(facts: &Facts, family: Family) -> Ours {
    let mut ours = Ours::default();
    let mut outbound = Chain::begin(OUTBOUND, "OUTPUT", family, &mut ours.nat);
    for port in &facts.proxy_ports {
        let comment = note::draining(*port, facts.tproxy);
        outbound.rule(&format!(
            "-m conntrack --ctstate NEW -m comment --comment \"{comment}\" -j RETURN"
        ));
    }
    if facts.tproxy {
        transparent(family, &mut ours.mangle);
    }
    ours
}

/// Drops what is new and was redirected to where nobody listens: whoever sent it does so again.
fn hold(outbound: &Outbound, family: Family, lines: &mut Lines) {
    let ports: Vec<u16> = [outbound.port].into_iter().chain(outbound.dns).collect();
    Chain::begin(HOLD, "INPUT", family, lines).hold(&ports);
    if let Some(dns) = outbound.dns {
        Chain::begin_for("udp", HOLD_NAMES, "INPUT", family, lines).hold(&[dns]);
    }
}

/// Only what begins a connection. The kernel begins to follow those that are there with whatever packet comes first, of either side, and
/// would redirect that one too.
fn redirect_beginning(port: u16, comment: &str) -> String {
    format!(
        "--tcp-flags FIN,SYN,RST,ACK SYN {}",
        redirect(port, comment)
    )
}

fn redirect(port: u16, comment: &str) -> String {
    format!("-m comment --comment \"{comment}\" -j REDIRECT --to-ports {port}")
}

fn queries(dns: u16) -> String {
    format!("--dport 53 {}", redirect(dns, &note::applied_to_names(dns)))
}

fn tproxy(port: u16, comment: &str) -> String {
    format!(
        "-m comment --comment \"{comment}\" -j TPROXY --on-port {port} --tproxy-mark {LOCAL_MARK:#x}"
    )
}

/// The chains that deliver to the proxy's sockets what belongs to them although its addresses do not say so; the one for
/// what arrives is open for more.
fn transparent(family: Family, lines: &mut Lines) -> Chain<'_> {
    let mut replies = Chain::begin(REPLIES, "OUTPUT", family, lines);
    replies.rule(&format!(
        "-m mark --mark {APPLICATION_MARK:#x} -j CONNMARK --set-mark {APPLICATION_MARK:#x}"
    ));
    replies.rule(&format!(
        "-m connmark --mark {APPLICATION_MARK:#x} -m conntrack --ctdir REPLY -j MARK --set-mark {LOCAL_MARK:#x}"
    ));
    let mut inbound = Chain::begin(INBOUND, "PREROUTING", family, lines);
    inbound.rule(&format!(
        "-m socket --transparent -j MARK --set-mark {LOCAL_MARK:#x}"
    ));
    inbound.rule(&format!("-m mark --mark {LOCAL_MARK:#x} -j ACCEPT"));
    inbound
}

/// A chain that is being written, which may go on in further ones.
struct Chain<'a> {
    name: &'static str,
    /// How many further ones.
    part: usize,
    protocol: &'static str,
    family: Family,
    lines: &'a mut Lines,
}

impl<'a> Chain<'a> {
    fn begin(
        name: &'static str,
        from: &'static str,
        family: Family,
        lines: &'a mut Lines,
    ) -> Chain<'a> {
        Chain::begin_for("tcp", name, from, family, lines)
    }

    fn begin_for(
        protocol: &'static str,
        name: &'static str,
        from: &'static str,
        family: Family,
        lines: &'a mut Lines,
    ) -> Chain<'a> {
        lines.chains.push(name.to_owned());
        lines
            .rules
            .push(format!("-A {from} -p {protocol} -j {name}"));
        Chain {
            name,
            part: 0,
            protocol,
            family,
            lines,
        }
    }

    fn rule(&mut self, words: &str) {
        let chain = self.part_name(self.part);
        let protocol = self.protocol;
        self.lines
            .rules
            .push(format!("-A {chain} -p {protocol} {words}"));
    }

    fn part_name(&self, part: usize) -> String {
        match part {
            0 => self.name.to_owned(),
            part => format!("{}_{part}", self.name),
        }
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::LeaveUsers(users) => self.leave(owners("uid", users)),
                Step::LeaveGroups(groups) => self.leave(owners("gid", groups)),
                Step::CaptureNames(names) => self.capture_names(names),
                Step::LeaveLocal => self.leave(["-m addrtype --dst-type LOCAL".to_owned()]),
                Step::LeaveForwarded => self.leave(["-m addrtype ! --dst-type LOCAL".to_owned()]),
                Step::LeaveArriving(name) => self.leave([format!("-i {}", interface(name))]),
                Step::LeaveDeparting(name) => self.leave([format!("-o {}", interface(name))]),
                Step::LeavePorts(ports) => self.leave(multiports(ports)),
                Step::KeepPorts(ports) => self.keep(multiports(ports)),
                Step::LeaveNetworks(networks) => self.leave(destinations(self.of(networks))),
                Step::KeepNetworks(networks) => self.keep(destinations(self.of(networks))),
            }
        }
    }

    fn capture_names(&mut self, names: &Names) {
        self.rule(&queries(names.dns));
        if self.family == Family::Ipv4 {
            let proxy = names.proxy;
            self.rule(&format!(
                "-d {VIRTUAL_NETWORK}/{VIRTUAL_PREFIX} -j REDIRECT --to-ports {proxy}"
            ));
        }
    }

    fn hold(&mut self, ports: &[u16]) {
        self.rule("-m conntrack ! --ctstate NEW -j RETURN");
        self.rule("-m conntrack ! --ctstate DNAT -j RETURN");
        self.rule("-m socket --nowildcard -j RETURN");
        for port in ports {
            self.rule(&format!("--dport {port} -j DROP"));
        }
    }

    fn leave(&mut self, matches: impl IntoIterator<Item = String>) {
        for condition in matches {
            self.rule(&format!("{condition} -j RETURN"));
        }
    }

    /// What matches goes on in the next part; the rest is let go at the end of this one.
    fn keep(&mut self, matches: impl IntoIterator<Item = String>) {
        let next = self.part_name(self.part + 1);
        for condition in matches {
            self.rule(&format!("{condition} -g {next}"));
        }
        self.lines.chains.push(next);
        self.part += 1;
    }

    fn of<'n>(&self, networks: &'n Networks) -> &'n [Cidr] {
        match self.family {
            Family::Ipv4 => &networks.ipv4,
            Family::Ipv6 => &networks.ipv6,
        }
    }
}

fn owners(kind: &str, ids: &[u32]) -> Vec<String> {
    let owner = |id: &u32| format!("-m owner --{kind}-owner {id}");
    ids.iter().map(owner).collect()
}

fn interface(name: &Interface) -> String {
    match name.stem() {
        (stem, true) => format!("{stem}+"),
        (name, false) => name.to_owned(),
    }
}

fn destinations(networks: &[Cidr]) -> Vec<String> {
    let destination = |network: &Cidr| format!("-d {network}");
    networks.iter().map(destination).collect()
}

fn multiports(ports: &[PortRange]) -> Vec<String> {
    let mut lists: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for range in ports {
        let (written, size) = match range.first == range.last {
            true => (range.first.to_string(), 1),
            false => (format!("{}:{}", range.first, range.last), 2),
        };
        match lists.last_mut() {
            Some(list) if size <= room => list.push(written),
            _ => {
                lists.push(vec![written]);
                room = MULTIPORT_MAX;
            }
        }
        room -= size;
    }
    let list = |list: &Vec<String>| format!("-m multiport --dports {}", list.join(","));
    lists.iter().map(list).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::rules::testing::{chosen, parsed, tproxy, usual, with_names};

    /// The text without the fingerprint, which is arbitrary.
    fn text(rules: &Rules, family: Family) -> String {
        let text = applying(rules, family).in_place_of(&Ours::default());
        text.replace(&rules.fingerprint(), "FINGERPRINT")
    }

    #[test]
    fn the_usual_rules_redirect_both_directions_except_the_proxy_and_this_host() {
        let expected = "\
*nat
:PILLION_OUTBOUND - [0:0]
:PILLION_INBOUND - [0:0]
-I OUTPUT -p tcp -j PILLION_OUTBOUND
-A PILLION_OUTBOUND -p tcp -m owner --uid-owner 1337 -j RETURN
-A PILLION_OUTBOUND -p tcp -m addrtype --dst-type LOCAL -j RETURN
-A PILLION_OUTBOUND -p tcp --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment \"pillion applied port=15001 rules=FINGERPRINT\" -j REDIRECT --to-ports 15001
-A PREROUTING -p tcp -j PILLION_INBOUND
-A PILLION_INBOUND -p tcp -i lo -j RETURN
-A PILLION_INBOUND -p tcp -m addrtype ! --dst-type LOCAL -j RETURN
-A PILLION_INBOUND -p tcp -m multiport --dports 22,15006 -j RETURN
-A PILLION_INBOUND -p tcp --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment \"pillion applied port=15006 rules=FINGERPRINT\" -j REDIRECT --to-ports 15006
COMMIT
*mangle
:PILLION_HOLD - [0:0]
-A INPUT -p tcp -j PILLION_HOLD
-A PILLION_HOLD -p tcp -m conntrack ! --ctstate NEW -j RETURN
-A PILLION_HOLD -p tcp -m conntrack ! --ctstate DNAT -j RETURN
-A PILLION_HOLD -p tcp -m socket --nowildcard -j RETURN
-A PILLION_HOLD -p tcp --dport 15001 -j DROP
COMMIT
";
        assert_eq!(text(&usual(), Family::Ipv4), expected);
        assert_eq!(text(&usual(), Family::Ipv6), expected);
    }

    #[test]
    fn queries_are_captured_before_anything_is_left_alone_but_the_owners_that_are() {
        let mut rules = with_names();
        rules.inbound = None;
        let outbound = "\
-A PILLION_OUTBOUND -p tcp -m owner --gid-owner 27 -j RETURN
-A PILLION_OUTBOUND -p tcp --dport 53 -m comment --comment \"pillion applied port=15053\" -j REDIRECT --to-ports 15053
-A PILLION_OUTBOUND -p tcp -d 240.0.0.0/8 -j REDIRECT --to-ports 15001
-A PILLION_OUTBOUND -p tcp -m addrtype --dst-type LOCAL -j RETURN
";
        let names = "\
-I OUTPUT -p udp -j PILLION_NAMES
-A PILLION_NAMES -p udp -m owner --uid-owner 1337 -j RETURN
-A PILLION_NAMES -p udp -m owner --gid-owner 27 -j RETURN
-A PILLION_NAMES -p udp --dport 53 -m comment --comment \"pillion applied port=15053\" -j REDIRECT --to-ports 15053
COMMIT
";
        let held = "\
-A PILLION_HOLD -p tcp --dport 15001 -j DROP
-A PILLION_HOLD -p tcp --dport 15053 -j DROP
-A INPUT -p udp -j PILLION_HOLD_NAMES
-A PILLION_HOLD_NAMES -p udp -m conntrack ! --ctstate NEW -j RETURN
-A PILLION_HOLD_NAMES -p udp -m conntrack ! --ctstate DNAT -j RETURN
-A PILLION_HOLD_NAMES -p udp -m socket --nowildcard -j RETURN
-A PILLION_HOLD_NAMES -p udp --dport 15053 -j DROP
";
        let ipv4 = text(&rules, Family::Ipv4);
        for expected in [outbound, names, held] {
            assert!(ipv4.contains(expected), "{ipv4}");
        }
        let ipv6 = text(&rules, Family::Ipv6);
        assert!(ipv6.contains(names) && ipv6.contains(held), "{ipv6}");
        assert!(!ipv6.contains("240.0.0.0"), "{ipv6}");
    }

    #[test]
    fn what_is_kept_goes_on_in_the_next_chain_and_a_family_without_a_network_in_none() {
        let mut rules = chosen();
        rules.inbound = None;
        let beginning = "\
*nat
:PILLION_OUTBOUND - [0:0]
:PILLION_OUTBOUND_1 - [0:0]
:PILLION_OUTBOUND_2 - [0:0]
-I OUTPUT -p tcp -j PILLION_OUTBOUND
-A PILLION_OUTBOUND -p tcp -m owner --uid-owner 1000 -j RETURN
-A PILLION_OUTBOUND -p tcp -m owner --uid-owner 1337 -j RETURN
-A PILLION_OUTBOUND -p tcp -m owner --gid-owner 27 -j RETURN
-A PILLION_OUTBOUND -p tcp -m addrtype --dst-type LOCAL -j RETURN
-A PILLION_OUTBOUND -p tcp -o docker+ -j RETURN
-A PILLION_OUTBOUND -p tcp -o eth1 -j RETURN
-A PILLION_OUTBOUND -p tcp -m multiport --dports 25,3300:3310 -j RETURN
";
        let last = "\
-A PILLION_OUTBOUND_2 -p tcp --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment \"pillion applied port=1 rules=FINGERPRINT\" -j REDIRECT --to-ports 1
COMMIT
";
        let ipv4 = "\
-A PILLION_OUTBOUND -p tcp -d 10.0.0.0/8 -j RETURN
-A PILLION_OUTBOUND -p tcp -m multiport --dports 80,443 -g PILLION_OUTBOUND_1
-A PILLION_OUTBOUND_1 -p tcp -d 0.0.0.0/0 -g PILLION_OUTBOUND_2
";
        assert_eq!(
            text(&rules, Family::Ipv4),
            format!("{beginning}{ipv4}{last}")
        );
        let ipv6 = "\
-A PILLION_OUTBOUND -p tcp -d fd00::/8 -j RETURN
-A PILLION_OUTBOUND -p tcp -m multiport --dports 80,443 -g PILLION_OUTBOUND_1
";
        assert_eq!(
            text(&rules, Family::Ipv6),
            format!("{beginning}{ipv6}{last}")
        );
    }

    #[test]
    fn tproxy_is_in_the_table_that_changes_packets_and_brings_the_applications_replies() {
        let mut rules = tproxy();
        rules.outbound = None;
        let expected = "\
*mangle
:PILLION_REPLIES - [0:0]
:PILLION_INBOUND - [0:0]
-I OUTPUT -p tcp -j PILLION_REPLIES
-A PILLION_REPLIES -p tcp -m mark --mark 0x53a -j CONNMARK --set-mark 0x53a
-A PILLION_REPLIES -p tcp -m connmark --mark 0x53a -m conntrack --ctdir REPLY -j MARK --set-mark 0x539
-A PREROUTING -p tcp -j PILLION_INBOUND
-A PILLION_INBOUND -p tcp -m socket --transparent -j MARK --set-mark 0x539
-A PILLION_INBOUND -p tcp -m mark --mark 0x539 -j ACCEPT
-A PILLION_INBOUND -p tcp ! --syn -m socket -j RETURN
-A PILLION_INBOUND -p tcp -i lo -j RETURN
-A PILLION_INBOUND -p tcp -m addrtype ! --dst-type LOCAL -j RETURN
-A PILLION_INBOUND -p tcp -m multiport --dports 22,15006 -j RETURN
-A PILLION_INBOUND -p tcp -m comment --comment \"pillion applied port=15006 tproxy rules=FINGERPRINT\" -j TPROXY --on-port 15006 --tproxy-mark 0x539
COMMIT
";
        assert_eq!(text(&rules, Family::Ipv4), expected);
    }

    #[test]
    fn ports_beyond_what_one_match_takes_are_several() {
        let lists = multiports(&parsed("1,3,5,7,9,11,13,15,17,19,21,23,25,30-40,50,60-70"));
        assert_eq!(
            lists,
            [
                "-m multiport --dports 1,3,5,7,9,11,13,15,17,19,21,23,25,30:40",
                "-m multiport --dports 50,60:70"
            ]
        );
    }
}
