//! The listening sockets of the data plane: which worker has which, and who had them before or gets them next.
//!
//! A process that takes over from another begins with that one's sockets instead of binding its own: connections that wait in
//! a socket's queue would be reset with it, and `SO_REUSEPORT` gives no socket the queue of another. Who hands them over, and
//! when, is for `app` to say.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::data_plane::ListenError;
use super::entry::{Entry, Role};
use super::worker::Command;
use crate::base::net::{self, Bound, Listening, Liveness};
use crate::model::InboundMode;

/// Which sockets a data plane begins with, and whether another may get them.
#[derive(Default)]
pub struct Handover {
    /// The sockets of the process before this one, which serves them until this one does.
    pub inherited: Vec<TcpListener>,
    /// Duplicates are kept for the process after this one.
    pub to_successor: bool,
}

pub struct Sockets {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    /// What accepted connections get.
    liveness: Liveness,
    /// Every address this process listens on.
    own_addresses: Vec<SocketAddr>,
    /// Of the process before, until they are asked for.
    inherited: Vec<(SocketAddr, TcpListener)>,
    /// Sockets that this process takes no connections from before it is opened; None from then on.
    unopened: Option<Vec<Unopened>>,
    /// For the process after; None where there will be none.
    kept: Option<Vec<(SocketAddr, TcpListener)>>,
}

/// One worker's socket for an entry.
struct Unopened {
    worker: usize,
    socket: Bound,
    entry: Arc<Entry>,
}

impl Sockets {
    pub fn new(
        workers: Vec<mpsc::UnboundedSender<Command>>,
        liveness: Liveness,
        handover: Handover,
    ) -> Self {
        let inherited = handover.inherited.into_iter();
        let addressed = inherited.filter_map(|socket| Some((socket.local_addr().ok()?, socket)));
        Self {
            workers,
            liveness,
            own_addresses: Vec::new(),
            inherited: addressed.collect(),
            unopened: Some(Vec::new()),
            kept: handover.to_successor.then(Vec::new),
        }
    }

    /// Serves the entry's address, by every worker.
    pub fn listen(&mut self, entry: &Arc<Entry>) -> Result<(), ListenError> {
        self.listen_at(entry.address, entry, listening(entry.role))
    }

    /// Serves the same port over IPv6, where this machine has it.
    pub fn listen_over_ipv6(&mut self, entry: &Arc<Entry>) -> Result<(), ListenError> {
        let Some(address) = net::ipv6_twin(entry.address) else {
            return Ok(());
        };
        let listening = Listening {
            ipv6_only: true,
            ..listening(entry.role)
        };
        match self.listen_at(address, entry, listening) {
            Err(ListenError::Bind { error, .. }) if net::means_no_ipv6(&error) => {
                tracing::info!(%address, %error, "No IPv6 here");
                Ok(())
            }
            listening => listening,
        }
    }

    fn listen_at(
        &mut self,
        address: SocketAddr,
        entry: &Arc<Entry>,
        listening: Listening,
    ) -> Result<(), ListenError> {
        // All sockets first, so that an address is served by every worker or by none.
        let sockets = self
            .sockets(address, listening)
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied if listening.transparent => {
                    ListenError::NotPermitted { address }
                }
                _ => ListenError::Bind { address, error },
            })?;
        // The process before may have had more workers, and a socket that nobody serves would swallow its share.
        for (number, socket) in sockets.into_iter().enumerate() {
            let socket = Unopened {
                worker: number % self.workers.len(),
                socket,
                entry: entry.clone(),
            };
            match &mut self.unopened {
                Some(unopened) => unopened.push(socket),
                None => self.open_one(socket)?,
            }
        }
        self.own_addresses.push(address);
        let own = self.own_addresses.clone();
        self.tell_all(|| Command::Own(own.clone()));
        Ok(())
    }

    /// A socket for each worker at least: inherited ones, and new ones where those do not suffice.
    fn sockets(&mut self, address: SocketAddr, listening: Listening) -> io::Result<Vec<Bound>> {
        let ours = |(at, _): &mut (SocketAddr, TcpListener)| *at == address;
        let inherited = self.inherited.extract_if(.., ours);
        let mut sockets: Vec<_> = inherited.map(|(_, socket)| Bound::from(socket)).collect();
        let own_port = |own: &SocketAddr| own.port() == address.port();
        if sockets.is_empty() && !self.own_addresses.iter().any(own_port) {
            net::expect_free(address)?;
        }
        while sockets.len() < self.workers.len() {
            sockets.push(Bound::new(address, listening, self.liveness)?);
        }
        Ok(sockets)
    }

    /// Takes connections from now on. What was inherited and nothing has asked for is closed.
    pub fn open(&mut self) -> Result<(), ListenError> {
        self.inherited.clear();
        let mut unopened = self.unopened.take().into_iter().flatten();
        unopened.try_for_each(|socket| self.open_one(socket))
    }

    pub fn is_open(&self) -> bool {
        self.unopened.is_none()
    }

    fn open_one(&mut self, unopened: Unopened) -> Result<(), ListenError> {
        let address = unopened.entry.address;
        let failed = |error| ListenError::Bind { address, error };
        let socket = unopened.socket.listen().map_err(failed)?;
        if let Some(kept) = &mut self.kept {
            kept.push((address, socket.try_clone().map_err(failed)?));
        }
        self.tell(unopened.worker, Command::Listen(socket, unopened.entry));
        Ok(())
    }

    /// Lets go of an address for good; connections at hand go on.
    pub fn unlisten(&mut self, address: SocketAddr) {
        self.own_addresses.retain(|own| *own != address);
        if let Some(unopened) = &mut self.unopened {
            unopened.retain(|socket| socket.entry.address != address);
        }
        self.close(address);
    }

    /// Takes no more connections of this address.
    pub fn close(&mut self, address: SocketAddr) {
        if let Some(kept) = &mut self.kept {
            kept.retain(|(at, _)| *at != address);
        }
        self.tell_all(|| Command::Unlisten(address));
    }

    /// For the process after this one.
    pub fn kept(&self) -> impl Iterator<Item = &TcpListener> {
        self.kept.iter().flatten().map(|(_, socket)| socket)
    }

    /// Tells clients with each answer that their connection ends, and closes connections that are quiet.
    pub fn drain(&self) {
        self.tell_all(|| Command::Drain);
    }

    fn tell(&self, worker: usize, command: Command) {
        // A worker that is gone has said why.
        let _ = self.workers[worker].send(command);
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        (0..self.workers.len()).for_each(|worker| self.tell(worker, command()));
    }
}

fn listening(role: Role) -> Listening {
    Listening {
        transparent: role == Role::Inbound(InboundMode::Tproxy),
        ..Listening::default()
    }
}
