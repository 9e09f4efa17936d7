//! What is redirected: plain data. What it asks of a connection is in `steps`, and how that is written is the backends'.

use super::ranges::{Interface, PortRange};
use super::steps;
use crate::base::cidr::Cidr;
use crate::model::InboundMode;

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
    pub while_away: WhileAway,
    pub ports_excluded: Vec<PortRange>,
    pub ports_included: Vec<PortRange>,
    pub networks_excluded: Vec<Cidr>,
    pub networks_included: Vec<Cidr>,
}

/// What becomes of what the host's processes open, and ask, while no proxy listens where it is redirected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhileAway {
    /// It waits: the first packet is dropped, and sent again by the kernel (a query: by the resolver) until a proxy listens.
    #[default]
    Hold,
    /// It is refused at once.
    Refuse,
}

/// An exclusion wins over an inclusion. An empty list of inclusions is everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inbound {
    /// The proxy's inbound listener.
    pub port: u16,
    pub mode: InboundMode,
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

    /// Whether inbound connections keep their addresses.
    pub fn is_tproxy(&self) -> bool {
        let mode = self.inbound.as_ref().map(|inbound| inbound.mode);
        mode == Some(InboundMode::Tproxy)
    }

    /// A short word that differs when the rules do, whichever backend writes them.
    pub fn fingerprint(&self) -> String {
        let outbound = self.outbound.as_ref().map(|outbound| {
            let steps = steps::outbound(self, outbound);
            (outbound.port, outbound.while_away, steps)
        });
        let inbound = self
            .inbound
            .as_ref()
            .map(|inbound| (inbound.port, inbound.mode, steps::inbound(self, inbound)));
        let meaning = format!("{outbound:?} {inbound:?}");
        format!("{:08x}", crc32fast::hash(meaning.as_bytes()))
    }
}

/// Rules that the backends' tests write.
#[cfg(test)]
pub mod testing {
    use super::*;

    pub fn usual() -> Rules {
        Rules {
            proxy_uid: 1337,
            uids_excluded: Vec::new(),
            gids_excluded: Vec::new(),
            interfaces_excluded: Vec::new(),
            outbound: Some(Outbound {
                port: 15001,
                dns: None,
                while_away: WhileAway::Hold,
                ports_excluded: Vec::new(),
                ports_included: Vec::new(),
                networks_excluded: Vec::new(),
                networks_included: Vec::new(),
            }),
            inbound: Some(Inbound {
                port: 15006,
                mode: InboundMode::Redirect,
                ports_excluded: vec![PortRange::one(22)],
                ports_included: Vec::new(),
            }),
        }
    }

    /// Every choice at once.
    pub fn chosen() -> Rules {
        Rules {
            proxy_uid: 1337,
            uids_excluded: vec![1000, 1337],
            gids_excluded: vec![27],
            interfaces_excluded: parsed("docker*,eth1"),
            outbound: Some(Outbound {
                port: 1,
                dns: None,
                while_away: WhileAway::Refuse,
                ports_excluded: parsed("3306,25,3300-3310"),
                ports_included: parsed("80,443"),
                networks_excluded: parsed("10.1.0.0/16,10.0.0.0/8,fd00::/8"),
                networks_included: parsed("0.0.0.0/0"),
            }),
            inbound: Some(Inbound {
                port: 2,
                mode: InboundMode::Redirect,
                ports_excluded: parsed("9000"),
                ports_included: parsed("8000-9999"),
            }),
        }
    }

    /// With name queries captured.
    pub fn with_names() -> Rules {
        let mut rules = usual();
        rules.gids_excluded = vec![27];
        if let Some(outbound) = &mut rules.outbound {
            outbound.dns = Some(15053);
        }
        rules
    }

    pub fn tproxy() -> Rules {
        let mut rules = usual();
        if let Some(inbound) = &mut rules.inbound {
            inbound.mode = InboundMode::Tproxy;
        }
        rules
    }

    pub fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(written: &str) -> Vec<T> {
        let parts = written.split(',');
        parts.map(|part| part.parse().unwrap()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::WhileAway;
    use super::testing::{tproxy, usual, with_names};

    #[test]
    fn the_fingerprint_follows_the_meaning_and_not_the_order_of_words() {
        let mut one = usual();
        let mut other = usual();
        one.uids_excluded = vec![1, 2];
        other.uids_excluded = vec![2, 1, 2];
        assert_eq!(one.fingerprint(), other.fingerprint());
        other.proxy_uid = 3;
        assert_ne!(one.fingerprint(), other.fingerprint());
        let mut refusing = usual();
        refusing.outbound.as_mut().unwrap().while_away = WhileAway::Refuse;
        assert_ne!(usual().fingerprint(), refusing.fingerprint());
        assert_ne!(usual().fingerprint(), tproxy().fingerprint());
        let mut without = with_names();
        without.outbound.as_mut().unwrap().dns = None;
        assert_ne!(without.fingerprint(), with_names().fingerprint());
        assert_eq!(with_names().proxy_ports(), [15001, 15006, 15053]);
    }
}
