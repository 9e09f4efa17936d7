//! How many redirected connections live. They end at the proxy's ports in this network namespace; of those that tproxy took, the
//! ones that need our rules go to the application from an address that is not this host's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::note::Facts;
use super::original::is_local;

/// IPv4 and IPv6 sockets of the reader's network namespace.
const SOCKET_TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// The kernel's codes for sockets that carry nothing any more: TIME_WAIT, CLOSE, LISTEN.
const IDLE_STATES: [&str; 3] = ["06", "07", "0A"];

/// Connections that need the rules with these facts. Clients that dialled the proxy themselves are counted too.
pub fn redirected_connections(facts: &Facts) -> io::Result<usize> {
    let mut known = HashMap::new();
    let mut is_foreign =
        |address: IpAddr| !*known.entry(address).or_insert_with(|| is_local(address));
    let mut count = 0;
    for path in SOCKET_TABLES {
        match std::fs::read_to_string(path) {
            Ok(sockets) => count += count_live(&sockets, facts, &mut is_foreign),
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn count_live(sockets: &str, facts: &Facts, is_foreign: &mut impl FnMut(IpAddr) -> bool) -> usize {
    let is_live = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().and_then(local_end);
        let state = columns.nth(1).unwrap_or_default();
        let needs_rules = |(address, port)| {
            facts.proxy_ports.contains(&port) || (facts.tproxy && is_foreign(address))
        };
        !IDLE_STATES.contains(&state) && local.is_some_and(needs_rules)
    };
    sockets.lines().skip(1).filter(is_live).count()
}

/// Address and port of `0100007F:3A99`: words of four bytes, each a number of this machine.
fn local_end(written: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = written.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|word| bytes(address, word))
        .collect();
    let address = match words?.as_slice() {
        [word] => IpAddr::from(Ipv4Addr::from(*word)),
        [a, b, c, d] => {
            let bytes: [u8; 16] = [*a, *b, *c, *d].concat().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

fn bytes(address: &str, word: usize) -> Option<[u8; 4]> {
    let digits = address.get(word * 8..word * 8 + 8)?;
    Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_connections_on_the_proxys_side_are_counted() {
        let sockets = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:3A99 0200000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0200000A:3A9E 0300000A:C351 08 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0100007F:3A99 0200000A:C352 06 00000000:00000000 00:00000000 00000000     0        0 4 1
   4: 0200000A:C350 0100007F:3A99 01 00000000:00000000 00:00000000 00000000     0        0 5 1
";
        let count = |sockets, proxy_ports: &[u16]| {
            let facts = Facts {
                proxy_ports: proxy_ports.to_vec(),
                tproxy: false,
            };
            count_live(sockets, &facts, &mut |_| true)
        };
        assert_eq!(count(sockets, &[15001, 15006]), 2);
        assert_eq!(count(sockets, &[15006]), 1);
        assert_eq!(count("", &[15001]), 0);
    }

    #[test]
    fn what_tproxy_took_is_known_by_an_address_that_is_not_this_hosts() {
        let heading = "  sl  local_address rem_address   st\n";
        let sockets = [
            "0: 0200000A:1F90 0100000A:C350 01",
            "1: 0100000A:C351 0200000A:1F90 01",
            "2: 0100000A:C352 0200000A:1F90 06",
            "3: 0000000000000000FFFF00000100000A:C353 0000000000000000FFFF00000200000A:1F90 01",
            "4: 000077FD000000000000000001000000:C353 000077FD000000000000000002000000:1F90 01",
        ];
        let sockets = heading.to_owned() + &sockets.join("\n");
        let facts = Facts {
            proxy_ports: vec![15006],
            tproxy: true,
        };
        let foreign: [IpAddr; 2] = ["10.0.0.1", "fd77::1"].map(|address| address.parse().unwrap());
        let count = count_live(&sockets, &facts, &mut |address| foreign.contains(&address));
        assert_eq!(count, 3);
    }
}
