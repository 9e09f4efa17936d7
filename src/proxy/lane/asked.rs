//! What a request says of itself to a lane: its class, its tenant, and until when it has to be done.

use std::hash::BuildHasher;
use std::net::IpAddr;

use tokio::time::Instant;

use super::Lane;
use crate::lane::Nanos;
use crate::model::Class;
use crate::proxy::cluster::nanos;
use crate::proxy::http::head::{Fields, Known};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub class: Class,
    pub tenant: u64,
    pub deadline: Option<Nanos>,
}

impl Asked {
    /// As these fields of a request from `peer` say, which has to be done at `deadline`.
    pub fn of(lane: &Lane, fields: &Fields, peer: IpAddr, deadline: Option<Instant>) -> Self {
        let wanted = class_of(fields);
        let raises = wanted < Class::Default;
        let class = match raises && !lane.class_from.iter().any(|network| network.has(peer)) {
            true => Class::Default,
            false => wanted,
        };
        let seed = &lane.shared.seed;
        let tenant = match &lane.tenant {
            Some(name) => seed.hash_one(fields.find(name.as_bytes()).unwrap_or_default()),
            None => seed.hash_one(peer.to_canonical()),
        };
        Self {
            class,
            tenant,
            deadline: deadline.map(nanos),
        }
    }
}

/// The class that a request asks for.
pub fn class_of(fields: &Fields) -> Class {
    said(fields).unwrap_or_default()
}

/// `x-mesh-class`, or else the urgency of `Priority`.
fn said(fields: &Fields) -> Option<Class> {
    match fields.get(Known::XMeshClass) {
        Some(class) => Class::from_bytes(class),
        None => of_urgency(fields.find(b"priority")?),
    }
}

/// RFC 9218, section 4.1: `u=` is 0 to 7, the lower the more urgent; 3 where it is left out, 7 is for the background.
fn of_urgency(priority: &[u8]) -> Option<Class> {
    let mut parameters = priority.split(|byte| *byte == b',' || *byte == b';');
    let urgency = parameters.find_map(|parameter| parameter.trim_ascii().strip_prefix(b"u="))?;
    match urgency {
        b"0" | b"1" => Some(Class::Critical),
        b"2" | b"3" | b"4" => Some(Class::Default),
        b"5" | b"6" => Some(Class::Batch),
        b"7" => Some(Class::BestEffort),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{self, LaneLimit, Name};
    use crate::proxy::lane::{Lanes, Side};

    fn lane(tenant: Option<&str>) -> Lane {
        let settings = model::Lane {
            tenant: tenant.map(Into::into),
            class_from: vec!["10.0.0.0/8".parse().expect("a network")],
            ..model::Lane::new(LaneLimit::Adaptive)
        };
        Lanes::default().set(&Name::local("a"), Side::Inbound, &settings, Instant::now())
    }

    #[test]
    fn a_class_is_lowered_by_anybody_and_raised_by_those_who_may() {
        let lane = lane(None);
        let class = |all: &[(&str, &str)], peer: &str| {
            let peer = peer.parse().expect("an address");
            Asked::of(&lane, &Fields::of(all), peer, None).class
        };
        let (trusted, other) = ("10.1.2.3", "192.0.2.1");
        for (all, by_trusted, by_other) in [
            (&[][..], Class::Default, Class::Default),
            (
                &[("x-mesh-class", "critical")],
                Class::Critical,
                Class::Default,
            ),
            (
                &[("X-Mesh-Class", "best-effort")],
                Class::BestEffort,
                Class::BestEffort,
            ),
            (
                &[("x-mesh-class", "nonsense")],
                Class::Default,
                Class::Default,
            ),
            (&[("priority", "u=0, i")], Class::Critical, Class::Default),
            (&[("priority", "i, u=5")], Class::Batch, Class::Batch),
            (&[("priority", "u=7")], Class::BestEffort, Class::BestEffort),
            (&[("priority", "u=9")], Class::Default, Class::Default),
            (
                &[("priority", "u=7"), ("x-mesh-class", "batch")],
                Class::Batch,
                Class::Batch,
            ),
        ] {
            assert_eq!(class(all, trusted), by_trusted, "{all:?}");
            assert_eq!(class(all, "::ffff:10.1.2.3"), by_trusted, "{all:?}");
            assert_eq!(class(all, other), by_other, "{all:?}");
        }
    }

    #[test]
    fn a_tenant_is_the_field_or_else_the_address() {
        let tenant = |lane: &Lane, all: &[(&str, &str)], peer: &str| {
            let peer = peer.parse().expect("an address");
            Asked::of(lane, &Fields::of(all), peer, None).tenant
        };
        let (by_field, by_address) = (lane(Some("x-tenant")), lane(None));
        let (a, b) = (&[("X-Tenant", "a")][..], &[("x-tenant", "b")][..]);
        assert_eq!(
            tenant(&by_field, a, "10.0.0.1"),
            tenant(&by_field, a, "10.0.0.2")
        );
        assert_ne!(
            tenant(&by_field, a, "10.0.0.1"),
            tenant(&by_field, b, "10.0.0.1")
        );
        assert_eq!(
            tenant(&by_address, a, "10.0.0.1"),
            tenant(&by_address, b, "10.0.0.1")
        );
        assert_ne!(
            tenant(&by_address, a, "10.0.0.1"),
            tenant(&by_address, a, "10.0.0.2")
        );
    }
}
