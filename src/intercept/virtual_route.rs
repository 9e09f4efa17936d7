//! The route that lets programs dial virtual addresses: without one, a connection fails before any rule sees it.
//!
//! It leads to the loopback interface, so that nothing leaves the machine even where no rule redirects it. It is known by its
//! protocol and metric: a route to the same network that is somebody else's stays, and ours is removed whoever added it.

use std::io::{self, Read};
use std::net::Ipv4Addr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::model::{VIRTUAL_NETWORK, VIRTUAL_PREFIX};

/// Both the route's protocol, which says who added it, and its metric, by which it yields to a route without one.
const MARK: u8 = 133;

/// The index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// How an operator would write it.
pub fn command() -> String {
    format!(
        "ip route add {VIRTUAL_NETWORK}/{VIRTUAL_PREFIX} dev lo scope link proto {MARK} metric {MARK}"
    )
}

/// Whether it is there, by what the kernel lists in `/proc`.
pub fn is_there() -> io::Result<bool> {
    let listed = std::fs::read_to_string("/proc/net/route")?;
    Ok(listed.lines().any(is_ours))
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`, with addresses as numbers of the machine's byte order.
fn is_ours(line: &str) -> bool {
    let written = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let mask = Ipv4Addr::from(u32::MAX << (32 - u32::from(VIRTUAL_PREFIX)));
    let words: Vec<&str> = line.split_whitespace().collect();
    words.len() > 7
        && words[0] == "lo"
        && words[1] == written(VIRTUAL_NETWORK)
        && words[6] == MARK.to_string()
        && words[7] == written(mask)
}

/// Adds it; false where it was there already.
pub fn add() -> io::Result<bool> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    unless(libc::EEXIST, ask(libc::RTM_NEWROUTE, flags))
}

/// Removes it; false where there was none.
pub fn remove() -> io::Result<bool> {
    unless(libc::ESRCH, ask(libc::RTM_DELROUTE, 0))
}

fn unless(expected: i32, outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(expected) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends the kernel a message about the route, and hears what became of it.
fn ask(kind: u16, flags: i32) -> io::Result<()> {
    let route = Protocol::from(libc::NETLINK_ROUTE);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(route))?;
    socket.send(&message(kind, flags))?;
    let mut answer = [0; 128];
    let length = (&socket).read(&mut answer)?;
    outcome(&answer[..length])
}

/// The answer is a header of 16 bytes, and then an error number, negated; 0 is success.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let number = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match number.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `nlmsghdr`, `rtmsg` and three attributes, in the machine's byte order.
fn message(kind: u16, flags: i32) -> Vec<u8> {
    let mut body = vec![
        libc::AF_INET as u8,
        VIRTUAL_PREFIX,
        0,
        0,
        libc::RT_TABLE_MAIN,
        MARK,
        libc::RT_SCOPE_LINK,
        libc::RTN_UNICAST,
    ];
    body.extend([0; 4]);
    attribute(&mut body, libc::RTA_DST, VIRTUAL_NETWORK.octets());
    attribute(&mut body, libc::RTA_OIF, LOOPBACK.to_ne_bytes());
    attribute(&mut body, libc::RTA_PRIORITY, u32::from(MARK).to_ne_bytes());
    let length = 16 + body.len() as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend(8_u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}
