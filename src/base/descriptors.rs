//! Open descriptors passed from process to process over a Unix socket: `SCM_RIGHTS` of unix(7). Blocking, for the few moments of
//! a process's life that need it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Descriptors in one message; the kernel takes 253.
const BATCH_MAX: usize = 64;

/// Sends duplicates of these; the sender keeps its own.
pub fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH_MAX) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(batch));
        debug_assert!(fits, "the space is for a whole batch");
        // Descriptors travel with a byte: without one there is nothing to receive.
        let carrier = [IoSlice::new(&[0])];
        rustix::net::sendmsg(stream, &carrier, &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives as many as were sent. They are closed in programs that this one starts.
pub fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    while received.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut carrier = [IoSliceMut::new(&mut byte)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = rustix::net::recvmsg(stream, &mut carrier, &mut control, flags)?;
        let before = received.len();
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = ancillary {
                received.extend(descriptors);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("this process has no descriptors left"));
        }
        if message.bytes == 0 || received.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(received)
}

/// The user of the process at the other end.
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_listening_socket_serves_on_in_the_hands_of_its_receiver() {
        let (giver, taker) = UnixStream::pair().unwrap();
        let listeners: Vec<_> = (0..BATCH_MAX + 1)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let lent: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        send(&giver, &lent).unwrap();
        drop(listeners);
        let received = receive(&taker, addresses.len()).unwrap();
        for (descriptor, address) in received.into_iter().zip(addresses) {
            let listener = TcpListener::from(descriptor);
            let client = std::net::TcpStream::connect(address).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[test]
    fn a_giver_that_goes_away_in_between_is_an_error() {
        let (giver, taker) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        send(&giver, &[listener.as_fd()]).unwrap();
        drop(giver);
        assert!(receive(&taker, 2).is_err());
    }

    #[test]
    fn the_other_end_in_this_process_has_this_user() {
        let (_giver, taker) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(peer_user(&taker).unwrap(), own);
    }
}
