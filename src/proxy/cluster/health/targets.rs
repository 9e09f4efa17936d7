//! Who of a service's endpoints is checked, and how: kept by the table of clusters, told to the prober as changes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Health, State};
use crate::model::{Address, HealthCheck, Name, Protocol, Service, UpstreamTls};
use crate::proxy::cluster::members::Member;

/// Unique in the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TargetId(u64);

impl TargetId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An endpoint with all that it takes to ask it.
#[derive(Debug)]
pub struct Target {
    pub id: TargetId,
    pub service: Name,
    /// Where to connect.
    pub address: SocketAddr,
    /// As configured or registered.
    pub written: Address,
    /// The registry's instance id, where it comes from there.
    pub instance: Option<Arc<str>>,
    /// What its port speaks; None where that is not declared.
    pub protocol: Option<Protocol>,
    pub tls: Option<UpstreamTls>,
    pub check: Arc<HealthCheck>,
    pub health: Arc<Health>,
}

/// Somebody to check from now on, or no longer.
#[derive(Debug)]
pub enum TargetChange {
    Begin(Arc<Target>),
    End(TargetId),
}

/// The checked endpoints of one service: one target for each address, however many clusters have it.
#[derive(Default, Debug)]
pub struct Targets {
    by_address: HashMap<SocketAddr, Arc<Target>>,
    /// Somebody has been checked, so that whoever comes from now on comes later.
    began: bool,
}

impl Targets {
    /// Follows the service's members; adds to `changes` what the prober has to know.
    pub fn follow(
        &mut self,
        service: &Service,
        members: &[Member],
        changes: &mut Vec<TargetChange>,
    ) {
        let mut before = std::mem::take(&mut self.by_address);
        if let Some(check) = &service.health {
            let unjudged = match self.began {
                true => State::Unproven,
                false => State::Assumed,
            };
            for member in members {
                // Of several members with one address the first counts.
                self.by_address.entry(member.address).or_insert_with(|| {
                    let known = before.remove(&member.address);
                    target(service, check, member, known, unjudged, changes)
                });
            }
        }
        self.began = service.health.is_some() && (self.began || !members.is_empty());
        changes.extend(before.values().map(|target| TargetChange::End(target.id)));
    }

    /// What is known of an address; None where it is not checked.
    pub fn health(&self, address: SocketAddr) -> Option<&Arc<Health>> {
        self.by_address.get(&address).map(|target| &target.health)
    }
}

/// The target there is, if it still says how to ask; else a new one, which knows what the old one knew.
fn target(
    service: &Service,
    check: &Arc<HealthCheck>,
    member: &Member,
    known: Option<Arc<Target>>,
    unjudged: State,
    changes: &mut Vec<TargetChange>,
) -> Arc<Target> {
    let protocol = protocol(service, member.endpoint.port);
    let asks_the_same = |target: &Target| {
        target.check == *check
            && target.protocol == protocol
            && target.tls.as_ref() == service.tls_of(member.endpoint.port)
            && target.written == member.endpoint.address
            && target.instance == member.endpoint.instance
    };
    let health = match &known {
        Some(target) if asks_the_same(target) => return target.clone(),
        Some(target) => {
            changes.push(TargetChange::End(target.id));
            target.health.clone()
        }
        None => Health::new(unjudged),
    };
    let target = Arc::new(Target {
        id: TargetId::next(),
        service: service.name.clone(),
        address: member.address,
        written: member.endpoint.address.clone(),
        instance: member.endpoint.instance.clone(),
        protocol,
        tls: service.tls_of(member.endpoint.port).cloned(),
        check: check.clone(),
        health,
    });
    changes.push(TargetChange::Begin(target.clone()));
    target
}

/// What the endpoint's port speaks; of one that serves every port, the first.
fn protocol(service: &Service, port: Option<u16>) -> Option<Protocol> {
    let mut ports = service.ports.iter();
    let declared = ports.find(|declared| port.is_none_or(|port| declared.port == port));
    declared.and_then(|port| port.protocol)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::HealthProbe;
    use crate::proxy::cluster::testing::{address, endpoint, service};

    fn checked(interval: u64) -> Service {
        let check = HealthCheck {
            probe: HealthProbe::Tcp,
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(2),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        };
        Service {
            health: Some(Arc::new(check)),
            ..service()
        }
    }

    fn members(ports: &[u16]) -> Vec<Member> {
        let member = |port: &u16| Member {
            address: address(*port),
            endpoint: endpoint(*port),
            health: None,
        };
        ports.iter().map(member).collect()
    }

    /// The ports that begin to be checked, and how many no longer are.
    fn follow(targets: &mut Targets, service: &Service, ports: &[u16]) -> (Vec<u16>, usize) {
        let mut changes = Vec::new();
        targets.follow(service, &members(ports), &mut changes);
        let begin = |change: &TargetChange| match change {
            TargetChange::Begin(target) => Some(target.address.port()),
            TargetChange::End(_) => None,
        };
        let begun: Vec<u16> = changes.iter().filter_map(begin).collect();
        let ended = changes.len() - begun.len();
        (begun, ended)
    }

    fn state(targets: &Targets, port: u16) -> State {
        targets.health(address(port)).unwrap().state()
    }

    #[test]
    fn one_endpoint_more_is_one_change() {
        let mut targets = Targets::default();
        assert_eq!(
            follow(&mut targets, &checked(5), &[1, 2, 2]),
            (vec![1, 2], 0)
        );
        assert_eq!(follow(&mut targets, &checked(5), &[3, 2, 1]), (vec![3], 0));
        assert_eq!(follow(&mut targets, &checked(5), &[3, 1]), (vec![], 1));
        assert_eq!(follow(&mut targets, &checked(5), &[3, 1]), (vec![], 0));
    }

    #[test]
    fn those_who_are_there_at_the_beginning_are_trusted_and_newcomers_have_to_pass() {
        let mut targets = Targets::default();
        follow(&mut targets, &checked(5), &[]);
        follow(&mut targets, &checked(5), &[1, 2]);
        follow(&mut targets, &checked(5), &[1, 2, 3]);
        assert_eq!(state(&targets, 2), State::Assumed);
        assert_eq!(state(&targets, 3), State::Unproven);
    }

    #[test]
    fn a_changed_check_asks_anew_and_forgets_nothing() {
        let mut targets = Targets::default();
        follow(&mut targets, &checked(5), &[1]);
        targets.health(address(1)).unwrap().set(State::Failing);
        assert_eq!(follow(&mut targets, &checked(7), &[1]), (vec![1], 1));
        assert_eq!(state(&targets, 1), State::Failing);
    }

    #[test]
    fn a_service_without_a_check_has_nobody_checked() {
        let mut targets = Targets::default();
        follow(&mut targets, &checked(5), &[1, 2]);
        assert_eq!(follow(&mut targets, &service(), &[1, 2]), (vec![], 2));
        assert!(targets.health(address(1)).is_none());
    }
}
