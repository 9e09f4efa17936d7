//! Where a redirected connection was going before a rule sent it to us.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::SockRef;

/// The address the client dialled; an IPv4 address is never written as an IPv6 one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OriginalDst(pub SocketAddr);

impl OriginalDst {
    /// Whether forwarding to this destination would come straight back to one of this process's own listeners.
    ///
    /// Give it every listener that others must not reach through the proxy: outbound, inbound and admin. A rule redirects
    /// whatever arrives for this host, so a peer that dials port 15001 arrives at the inbound listener with that destination;
    /// it is refused even where the listener is bound to loopback only, as the proxy would reach it from inside.
    pub fn is_own(&self, listeners: &[SocketAddr]) -> bool {
        let port_is_ours = listeners
            .iter()
            .any(|listener| listener.port() == self.0.port());
        port_is_ours && is_local(self.0.ip())
    }
}

impl fmt::Display for OriginalDst {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The original destination of an accepted connection; `None` when no rule redirected it (the client dialled us).
pub fn original_dst(accepted: &impl AsFd) -> io::Result<Option<OriginalDst>> {
    let socket = SockRef::from(accepted);
    let Some(local) = socket.local_addr()?.as_socket().map(canonical) else {
        return Ok(None);
    };
    // On a dual-stack socket an IPv4 client still has to be asked about with the IPv4 option.
    let answer = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match answer {
        Ok(destination) => Ok(destination
            .as_socket()
            .map(canonical)
            .filter(|destination| !same_place(*destination, local))
            .map(OriginalDst)),
        Err(error) if means_not_redirected(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same for a connection that tproxy brought to this listener: its own end is where the client was going.
pub fn kept_dst(accepted: &impl AsFd, listener: SocketAddr) -> io::Result<Option<OriginalDst>> {
    let local = SockRef::from(accepted).local_addr()?.as_socket();
    Ok(local
        .map(canonical)
        .filter(|local| local.port() != listener.port())
        .map(OriginalDst))
}

/// The kernel's ways of saying that it does not track this connection.
fn means_not_redirected(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOPROTOOPT | libc::EOPNOTSUPP)
    )
}

/// Address and port, without the flow label and scope that only one of the two system calls fills in.
fn same_place(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Whether packets to this address end on this host; costs a system call.
pub fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn accepted_on(listener: TcpListener) -> TcpStream {
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        listener.accept().unwrap().0
    }

    fn own(destination: &str) -> bool {
        let listeners = [
            "127.0.0.1:15001".parse().unwrap(),
            "[::]:15006".parse().unwrap(),
        ];
        OriginalDst(destination.parse().unwrap()).is_own(&listeners)
    }

    #[test]
    fn a_connection_that_nobody_redirected_has_no_original_destination() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(original_dst(&accepted_on(listener)).unwrap(), None);
    }

    #[test]
    fn an_ipv4_connection_on_a_dual_stack_socket_has_none_either() {
        // A host without IPv6 has no dual-stack sockets, and nothing to check.
        if let Ok(listener) = TcpListener::bind("[::]:0") {
            assert_eq!(original_dst(&accepted_on(listener)).unwrap(), None);
        }
    }

    #[test]
    fn an_ipv4_mapped_address_is_written_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.0.0.7]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.7:80".parse().unwrap());
    }

    #[test]
    fn a_destination_on_an_own_port_of_this_host_is_a_loop() {
        assert!(own("127.0.0.1:15001"));
        assert!(own("127.0.0.1:15006"));
        assert!(own("0.0.0.0:15006"));
        assert!(own("[::1]:15001"));
    }

    #[test]
    fn another_host_or_another_port_is_no_loop() {
        assert!(!own("192.0.2.1:15006"));
        assert!(!own("[2001:db8::1]:15001"));
        assert!(!own("127.0.0.1:8080"));
    }
}
