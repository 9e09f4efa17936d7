//! What the kernel says of this network namespace in /proc: its interfaces, whether it has IPv6, and who listens.

use super::error::InterceptError;
use super::ranges::Interface;
use super::rules::Rules;

/// Whether any interface has an IPv6 address; without, rules and routes for IPv6 can be impossible and mean nothing.
pub fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/self/net/if_inet6")
        .is_ok_and(|addresses| !addresses.trim().is_empty())
}

/// Refuses an interface that is not there: a rule for it would silently leave nothing alone.
pub fn expect_interfaces(wanted: &[Interface]) -> Result<(), InterceptError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let listing =
        std::fs::read_to_string("/proc/self/net/dev").map_err(|error| InterceptError::Io {
            doing: "reading the interfaces in /proc".to_owned(),
            error,
        })?;
    match missing(wanted, &interfaces(&listing)) {
        None => Ok(()),
        Some(name) => {
            let known = interfaces(&listing).join(", ");
            Err(InterceptError::UnknownInterface(name.to_owned(), known))
        }
    }
}

/// Refuses rules that would send the proxy's own connections back to it. Where none listens yet, that cannot be known.
pub fn expect_proxys_user(rules: &Rules) -> Result<(), InterceptError> {
    let Some(outbound) = &rules.outbound else {
        return Ok(());
    };
    if !rules.gids_excluded.is_empty() {
        // It may be among these, which the kernel does not tell.
        return Ok(());
    }
    let is_left_alone = |uid: &u32| *uid == rules.proxy_uid || rules.uids_excluded.contains(uid);
    for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        // Without IPv6 there is no such file, and nobody listens.
        let sockets = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(uid) = listeners(&sockets, outbound.port).find(|uid| !is_left_alone(uid)) {
            return Err(InterceptError::ProxyOfAnotherUser {
                port: outbound.port,
                uid,
                proxy_uid: rules.proxy_uid,
            });
        }
    }
    Ok(())
}

/// The users who listen on a port, in `/proc/net/tcp`: `sl local_address rem_address st queues timer retransmissions uid`.
fn listeners(sockets: &str, port: u16) -> impl Iterator<Item = u32> {
    const LISTENS: &str = "0A";
    let suffix = format!(":{port:04X}");
    sockets.lines().skip(1).filter_map(move |line| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let uid = words.nth(3)?;
        (state == LISTENS && local.ends_with(&suffix))
            .then(|| uid.parse().ok())
            .flatten()
    })
}

fn missing<'a>(wanted: &'a [Interface], known: &[&str]) -> Option<&'a str> {
    let stems = wanted.iter().map(Interface::stem);
    let mut names = stems
        .filter(|(_, is_beginning)| !is_beginning)
        .map(|(name, _)| name);
    names.find(|name| !known.contains(name))
}

/// The names in `/proc/net/dev`, below its two lines of headings.
fn interfaces(listing: &str) -> Vec<&str> {
    let lines = listing.lines().skip(2);
    lines
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::rules::testing::parsed;

    #[test]
    fn an_interface_is_missing_unless_it_is_there_or_a_beginning() {
        let listing = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo:   84       1    0    0    0     0          0         0       84       1
  eth0: 1070      13    0    0    0     0          0         0     1070      13
";
        let known = interfaces(listing);
        assert_eq!(known, ["lo", "eth0"]);
        assert_eq!(missing(&parsed("eth0,docker*"), &known), None);
        assert_eq!(missing(&parsed("eth0,eth1"), &known), Some("eth1"));
    }

    #[test]
    fn those_who_listen_on_a_port_are_found_with_their_user() {
        let sockets = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 21 1 0 100 0 0 10 0
   1: 0100007F:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1 0 100 0 0 10 0
   2: 0100007F:3A99 0100007F:D1A2 01 00000000:00000000 00:00000000 00000000  1000        0 23 1 0 20 4 30 10 -1
";
        assert_eq!(listeners(sockets, 15001).collect::<Vec<_>>(), [1337]);
        assert_eq!(listeners(sockets, 15000).collect::<Vec<_>>(), [0]);
        assert_eq!(listeners(sockets, 53666).count(), 0);
        assert_eq!(listeners("", 15001).count(), 0);
    }
}
