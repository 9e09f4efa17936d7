//! What is asked about a connection, in order, before it is sent to the proxy: in words that every packet filter has, so that
//! the rules mean the same whichever backend writes them.

use super::ranges::{Interface, PortRange};
use super::rules::{Inbound, Outbound, Rules};
use crate::base::cidr::Cidr;

/// One question. A connection that it lets go is left alone; what passes all steps is the proxy's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Lets go what processes of these users open.
    LeaveUsers(Vec<u32>),
    LeaveGroups(Vec<u32>),
    /// Sends name queries, and connections to virtual addresses, to the proxy at once. Name servers are often on this host itself, and
    /// virtual addresses are nobody's but the proxy's, so neither what is local nor what follows is asked about.
    CaptureNames(Names),
    /// Lets go what ends on this host: loopback, and the host's own addresses.
    LeaveLocal,
    /// Lets go what does not end on this host.
    LeaveForwarded,
    /// Lets go what arrives by this interface.
    LeaveArriving(Interface),
    /// Lets go what goes out by this interface.
    LeaveDeparting(Interface),
    LeavePorts(Vec<PortRange>),
    LeaveNetworks(Networks),
    /// Lets go every other port.
    KeepPorts(Vec<PortRange>),
    /// Lets go every other network, and all of a family that has none.
    KeepNetworks(Networks),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Names {
    /// The proxy's name server.
    pub dns: u16,
    /// Its outbound listener.
    pub proxy: u16,
}

/// Networks by their family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Networks {
    pub ipv4: Vec<Cidr>,
    pub ipv6: Vec<Cidr>,
}

/// What is asked about a connection that a process of this host opens.
pub fn outbound(rules: &Rules, outbound: &Outbound) -> Vec<Step> {
    let mut steps = owners(rules);
    let proxy = outbound.port;
    steps.extend(
        outbound
            .dns
            .map(|dns| Step::CaptureNames(Names { dns, proxy })),
    );
    steps.push(Step::LeaveLocal);
    steps.extend(
        ordered(&rules.interfaces_excluded)
            .into_iter()
            .map(Step::LeaveDeparting),
    );
    steps.extend(ports(&outbound.ports_excluded).map(Step::LeavePorts));
    steps.extend(networks(&outbound.networks_excluded).map(Step::LeaveNetworks));
    steps.extend(ports(&outbound.ports_included).map(Step::KeepPorts));
    steps.extend(networks(&outbound.networks_included).map(Step::KeepNetworks));
    steps
}

/// What is asked about whoever opens it.
pub fn owners(rules: &Rules) -> Vec<Step> {
    let mut users = rules.uids_excluded.clone();
    users.push(rules.proxy_uid);
    let mut steps = vec![Step::LeaveUsers(ordered(&users))];
    if !rules.gids_excluded.is_empty() {
        steps.push(Step::LeaveGroups(ordered(&rules.gids_excluded)));
    }
    steps
}

/// What is asked about a connection that arrives.
pub fn inbound(rules: &Rules, inbound: &Inbound) -> Vec<Step> {
    // The proxy's own connections to the application pass here too, when no outbound chain has seen them.
    let mut steps = vec![
        Step::LeaveArriving(Interface::loopback()),
        Step::LeaveForwarded,
    ];
    let mut excluded = inbound.ports_excluded.clone();
    excluded.push(PortRange::one(inbound.port));
    steps.extend(
        ordered(&rules.interfaces_excluded)
            .into_iter()
            .map(Step::LeaveArriving),
    );
    steps.extend(ports(&excluded).map(Step::LeavePorts));
    steps.extend(ports(&inbound.ports_included).map(Step::KeepPorts));
    steps
}

fn ports(written: &[PortRange]) -> Option<Vec<PortRange>> {
    let merged = PortRange::merged(written);
    (!merged.is_empty()).then_some(merged)
}

fn networks(written: &[Cidr]) -> Option<Networks> {
    let (ipv4, ipv6) = Cidr::merged(written).into_iter().partition(Cidr::is_ipv4);
    (!written.is_empty()).then_some(Networks { ipv4, ipv6 })
}

fn ordered<T: Ord + Clone>(elements: &[T]) -> Vec<T> {
    let mut elements = elements.to_vec();
    elements.sort_unstable();
    elements.dedup();
    elements
}
