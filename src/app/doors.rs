//! The listening sockets of a proxy that are not traffic's, and how all of them come from the process before and go to the one
//! after.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::handover::{
    Inherited, Predecessor, Purpose, READY_TIMEOUT, Successor, Successors, TakeOverError,
};
use super::proxy::StartError;
use super::terms;
use crate::admin;
use crate::config::SidecarBootstrap;
use crate::dns;
use crate::proxy::data_plane::DataPlane;
use crate::proxy::sockets::Handover;
use crate::telemetry::metrics::Registry;

pub struct Doors {
    admin_address: SocketAddr,
    /// None before it is served, where it was not inherited.
    admin: Option<TcpListener>,
    names: Vec<dns::Sockets>,
    pages: Option<JoinHandle<()>>,
    handover: Option<PathBuf>,
    /// Serves in the place of this process until this one begins.
    predecessor: Option<Predecessor>,
    begin_by: Instant,
    /// From the moment this process serves.
    successors: Option<Successors>,
}

impl Doors {
    /// Binds what the bootstrap asks for, or takes it over from the process that has it. What the data plane begins with comes along.
    pub async fn open(bootstrap: &SidecarBootstrap) -> Result<(Self, Handover), StartError> {
        let (predecessor, inherited) = before(bootstrap).await?;
        let handover = Handover {
            inherited: inherited.traffic,
            to_successor: bootstrap.handover.is_some(),
        };
        let names = match &bootstrap.dns {
            Some(dns) => dns::bind(dns.address, inherited.dns)?,
            None => Vec::new(),
        };
        let doors = Self {
            admin_address: bootstrap.admin,
            admin: inherited
                .admin
                .filter(|socket| is_at(socket, bootstrap.admin)),
            names,
            pages: None,
            handover: bootstrap.handover.clone(),
            predecessor,
            begin_by: Instant::now() + READY_TIMEOUT,
            successors: None,
        };
        Ok((doors, handover))
    }

    /// True until this process has relieved the one before it.
    pub fn is_waiting(&self) -> bool {
        self.predecessor.is_some()
    }

    /// An error once the process before has given up waiting.
    pub fn expect_in_time(&self) -> Result<(), StartError> {
        match self.is_waiting() && Instant::now() >= self.begin_by {
            true => Err(self.error(TakeOverError::NotReady)),
            false => Ok(()),
        }
    }

    /// Serves the admin pages. Whoever finds them at a start finds everything else that needs no registry.
    pub fn serve_pages(&mut self, pages: Arc<admin::State>) -> Result<(), StartError> {
        let socket = match self.admin.take() {
            Some(socket) => socket,
            None => admin_socket(self.admin_address)?,
        };
        let admin = tokio::net::TcpListener::from_std(socket.try_clone()?)?;
        self.admin = Some(socket);
        let serving = async move { match admin::serve(admin, pages).await {} };
        self.pages = Some(tokio::spawn(serving));
        Ok(())
    }

    /// This process serves: it relieves the one before, and may be relieved itself.
    pub fn relieve(&mut self) -> Result<(), StartError> {
        if let Some(path) = &self.handover {
            let listening = Successors::listen(path);
            self.successors = Some(listening.map_err(|error| self.error(error.into()))?);
        }
        if let Some(predecessor) = self.predecessor.take()
            && let Err(error) = predecessor.relieve()
        {
            tracing::warn!(%error, "The process before has ended already");
        }
        Ok(())
    }

    /// Serves names, where the bootstrap asks for it.
    pub fn serve_names(
        &self,
        bootstrap: &SidecarBootstrap,
        metrics: &Registry,
    ) -> io::Result<Option<dns::Server>> {
        let Some(dns) = &bootstrap.dns else {
            return Ok(None);
        };
        let sockets = self.names.iter().map(dns::Sockets::duplicate);
        let sockets = sockets.collect::<io::Result<_>>()?;
        Ok(Some(dns::start(sockets, terms::upstreams(dns), metrics)?))
    }

    /// The next process that asks to take over; never where none may.
    pub async fn successor(&self) -> Successor {
        match &self.successors {
            Some(successors) => successors.next().await,
            None => std::future::pending().await,
        }
    }

    /// Every socket once more, for the process after this one.
    pub fn sockets(&self, plane: &DataPlane) -> io::Result<Vec<(Purpose, OwnedFd)>> {
        let mut sockets = Vec::new();
        if let Some(socket) = &self.admin {
            sockets.push((Purpose::Admin, socket.try_clone()?.into()));
        }
        for socket in plane.kept_sockets() {
            sockets.push((Purpose::Traffic, socket.try_clone()?.into()));
        }
        for both in &self.names {
            sockets.push((Purpose::DnsUdp, both.udp().try_clone()?.into()));
            sockets.push((Purpose::DnsTcp, both.tcp().try_clone()?.into()));
        }
        Ok(sockets)
    }

    /// They are another process's from now on.
    pub fn leave_to_successor(mut self) {
        if let Some(successors) = self.successors.take() {
            successors.leave_file();
        }
        if let Some(pages) = self.pages.take() {
            pages.abort();
        }
    }

    fn error(&self, error: TakeOverError) -> StartError {
        StartError::Handover {
            path: self.handover.clone().unwrap_or_default(),
            error,
        }
    }
}

/// The process that serves in this one's place so far, and its sockets.
async fn before(
    bootstrap: &SidecarBootstrap,
) -> Result<(Option<Predecessor>, Inherited), StartError> {
    let Some(path) = bootstrap.handover.clone() else {
        return Ok(Default::default());
    };
    match Predecessor::ask(path.clone()).await {
        Ok(Some((predecessor, inherited))) => {
            tracing::info!(path = %path.display(), "Taking over from the process before");
            Ok((Some(predecessor), inherited))
        }
        Ok(None) => Ok(Default::default()),
        Err(error) => Err(StartError::Handover { path, error }),
    }
}

fn is_at(socket: &TcpListener, address: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|local| local == address)
}

fn admin_socket(address: SocketAddr) -> Result<TcpListener, StartError> {
    let socket = TcpListener::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    socket.map_err(|error| StartError::Admin { address, error })
}
