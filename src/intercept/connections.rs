//! How many redirected connections live: they end at the proxy's ports in this network namespace.

use std::io;

/// IPv4 and IPv6 sockets of the reader's network namespace.
const SOCKET_TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// The kernel's codes for sockets that carry nothing any more: TIME_WAIT, CLOSE, LISTEN.
const IDLE_STATES: [&str; 3] = ["06", "07", "0A"];

/// Connections that the proxy holds on these ports. Clients that dialled the proxy themselves are counted too.
pub fn redirected_connections(proxy_ports: &[u16]) -> io::Result<usize> {
    let mut count = 0;
    for path in SOCKET_TABLES {
        match std::fs::read_to_string(path) {
            Ok(sockets) => count += count_live(&sockets, proxy_ports),
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn count_live(sockets: &str, proxy_ports: &[u16]) -> usize {
    let is_live = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().and_then(port);
        let state = columns.nth(1).unwrap_or_default();
        local.is_some_and(|port| proxy_ports.contains(&port)) && !IDLE_STATES.contains(&state)
    };
    sockets.lines().skip(1).filter(is_live).count()
}

/// The port of `0100007F:3A99`.
fn port(address: &str) -> Option<u16> {
    u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok()
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
        assert_eq!(count_live(sockets, &[15001, 15006]), 2);
        assert_eq!(count_live(sockets, &[15006]), 1);
        assert_eq!(count_live("", &[15001]), 0);
    }
}
