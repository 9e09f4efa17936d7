//! Whether somebody listens at an address of this machine, asked of the kernel: no connection is made, which some servers
//! (MySQL) count against whoever makes it.
//!
//! Linux lists the sockets of the network namespace in `/proc/net/tcp` and `tcp6` (`proc_pid_net(5)`), those that listen first.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a socket that listens, as the kernel writes it.
const LISTEN: &str = "0A";

/// Whether a socket listens that takes connections to this address.
pub fn is_listening(address: SocketAddr) -> io::Result<bool> {
    if takes(File::open("/proc/net/tcp")?, address)? {
        return Ok(true);
    }
    match File::open("/proc/net/tcp6") {
        Ok(sockets) => takes(sockets, address),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn takes(sockets: impl io::Read, address: SocketAddr) -> io::Result<bool> {
    // The first line is the table's head.
    for line in BufReader::new(sockets).lines().skip(1) {
        let line = line?;
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, state) = (words.next(), words.nth(1));
        if state != Some(LISTEN) {
            return Ok(false);
        }
        let Some(local) = local.and_then(socket_address) else {
            continue;
        };
        if local.port() == address.port() && covers(local.ip(), address.ip()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A socket on every IPv6 address is taken to serve IPv4 too, as it does unless told otherwise.
fn covers(listening: IpAddr, wanted: IpAddr) -> bool {
    match listening.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => wanted.is_ipv4(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        listening => listening == wanted.to_canonical(),
    }
}

/// `0100007F:1F90`: words of the address as the machine holds them, and the port.
fn socket_address(written: &str) -> Option<SocketAddr> {
    let (ip, port) = written.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let ip = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_seen_at_the_addresses_it_serves_and_no_longer_when_it_is_gone() {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for host in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                // A machine without IPv6.
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            assert!(is_listening(loopback(port)).unwrap(), "{host}");
            drop(listener);
            assert!(!is_listening(loopback(port)).unwrap(), "{host}");
        }
    }

    #[test]
    fn another_address_of_the_machine_is_another_place() {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_listening(([127, 0, 0, 2], port).into()).unwrap());
        assert!(!is_listening(([127, 0, 0, 1], port).into()).unwrap());
        assert!(!is_listening((Ipv6Addr::LOCALHOST, port).into()).unwrap());
    }

    #[test]
    fn nothing_is_read_behind_the_listeners() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 0100007F:0050 00000000:0000 0A\n\
                     1: 0100007F:0051 0100007F:1234 01\n\
                     2: 0100007F:0052 00000000:0000 0A\n\
                     garbage\n";
        let at = |port| takes(table.as_bytes(), ([127, 0, 0, 1], port).into()).unwrap();
        assert_eq!([0x50, 0x51, 0x52].map(at), [true, false, false]);
    }
}
