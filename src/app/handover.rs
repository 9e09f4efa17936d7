//! One process takes over from another: the listening sockets change hands over a Unix socket, and no client notices.
//!
//! The newcomer connects, is given every socket, gets ready without serving any of them, says that it serves, and does; only
//! then does the one before take no more connections, and it ends when those at hand have. Whatever goes wrong before that
//! word, the one before serves on as if nothing had been. Sockets have to be handed over rather than bound once more:
//! connections that wait in the queue of a `SO_REUSEPORT` socket are reset when it is closed.
//!
//! On the wire: a length (4 bytes, big-endian) and an [`Offer`] as JSON; a descriptor for each of its sockets; back, one byte.
//! Leaves out connections that were accepted: those end where they began.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::base::descriptors;
use crate::dns;

/// How long either side may take to pass or take descriptors.
const PASSING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the newcomer may take to get ready; for that long the one before hears nothing new of the mesh.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
const VERSION: u32 = 1;
const OFFER_BYTES_MAX: usize = 1 << 20;
const SERVING: u8 = 1;
/// After a failed accept, so that a lasting failure does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// What is handed over, in the order of the descriptors that follow.
#[derive(Serialize, Deserialize)]
struct Offer {
    version: u32,
    sockets: Vec<Purpose>,
}

/// What a socket is for. Its address is its own to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    Traffic,
    Admin,
    DnsUdp,
    DnsTcp,
    /// Of a version to come.
    #[serde(other)]
    Unknown,
}

/// The sockets of the process before this one.
#[derive(Default)]
pub struct Inherited {
    pub traffic: Vec<TcpListener>,
    pub admin: Option<TcpListener>,
    pub dns: Vec<dns::Sockets>,
}

impl Inherited {
    fn sorted(sockets: impl Iterator<Item = (Purpose, OwnedFd)>) -> io::Result<Self> {
        let mut inherited = Self::default();
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for (purpose, descriptor) in sockets {
            match purpose {
                Purpose::Traffic => inherited.traffic.push(TcpListener::from(descriptor)),
                Purpose::Admin => inherited.admin = Some(TcpListener::from(descriptor)),
                Purpose::DnsUdp => udp.push(UdpSocket::from(descriptor)),
                Purpose::DnsTcp => tcp.push(TcpListener::from(descriptor)),
                Purpose::Unknown => {}
            }
        }
        // Both of one address come one after the other.
        let pairs = udp.into_iter().zip(tcp);
        let dns = pairs.map(|(udp, tcp)| dns::Sockets::inherited(udp, tcp));
        inherited.dns = dns.collect::<io::Result<_>>()?;
        Ok(inherited)
    }
}

/// Why this process could not take over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the process there speaks version {0} of this, and this one version {VERSION}")]
    Version(u32),
    #[error("what the process there says of its sockets cannot be read: {0}")]
    Offer(#[from] serde_json::Error),
    #[error("not ready within {READY_TIMEOUT:?}; the process before serves on")]
    NotReady,
}

/// The process before this one, which serves until it is relieved.
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Asks for its sockets. None where there is no such process.
    pub async fn ask(path: PathBuf) -> Result<Option<(Self, Inherited)>, TakeOverError> {
        let asking = tokio::task::spawn_blocking(move || {
            let stream = match UnixStream::connect(path) {
                Ok(stream) => stream,
                Err(error) if means_nobody(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            stream.set_read_timeout(Some(PASSING_TIMEOUT))?;
            let inherited = take(&stream)?;
            Ok(Some((Self(stream), inherited)))
        });
        asking.await.map_err(io::Error::other)?
    }

    /// Says that this process serves.
    pub fn relieve(mut self) -> io::Result<()> {
        self.0.write_all(&[SERVING])
    }
}

fn means_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn take(mut stream: &UnixStream) -> Result<Inherited, TakeOverError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > OFFER_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
    }
    let mut offer = vec![0; length];
    stream.read_exact(&mut offer)?;
    let offer: Offer = serde_json::from_slice(&offer)?;
    if offer.version != VERSION {
        return Err(TakeOverError::Version(offer.version));
    }
    let sockets = descriptors::receive(stream, offer.sockets.len())?;
    Ok(Inherited::sorted(offer.sockets.into_iter().zip(sockets))?)
}

/// Where processes to come ask for the sockets of this one. Dropping it takes the file away.
pub struct Successors {
    listener: UnixListener,
    /// None once the file is another's.
    path: Option<PathBuf>,
}

impl Successors {
    /// Listens in the place of whoever did before.
    pub fn listen(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => {}
        }
        Ok(Self {
            listener: UnixListener::bind(path)?,
            path: Some(path.to_owned()),
        })
    }

    /// The next process that asks, of this process's own user or root.
    pub async fn next(&self) -> Successor {
        loop {
            let accepted = self.listener.accept().await;
            match accepted.and_then(|(stream, _)| Successor::accept(stream)) {
                Ok(successor) => return successor,
                Err(error) => {
                    tracing::warn!(%error, "Handover refused");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The file is another's from now on.
    pub fn leave_file(mut self) {
        self.path = None;
    }
}

impl Drop for Successors {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nobody can be told, and the next process replaces it.
            let _ = fs::remove_file(path);
        }
    }
}

/// A process that wants to take over from this one.
pub struct Successor(UnixStream);

impl Successor {
    fn accept(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let stream = stream.into_std()?;
        let own = rustix::process::geteuid().as_raw();
        match descriptors::peer_user(&stream)? {
            0 => Ok(Self(stream)),
            user if user == own => Ok(Self(stream)),
            user => Err(io::Error::other(format!("it was asked for by user {user}"))),
        }
    }

    /// Gives it the sockets. Done once it serves them; until then, and after an error, this process has to.
    pub async fn relieves(self, sockets: Vec<(Purpose, OwnedFd)>) -> io::Result<()> {
        let passing = tokio::task::spawn_blocking(move || {
            self.0.set_nonblocking(false)?;
            self.0.set_write_timeout(Some(PASSING_TIMEOUT))?;
            give(&self.0, &sockets)?;
            self.0.set_nonblocking(true)?;
            io::Result::Ok(self.0)
        });
        let stream = passing.await.map_err(io::Error::other)??;
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        match timeout(READY_TIMEOUT, stream.read_u8()).await?? {
            SERVING => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn give(mut stream: &UnixStream, sockets: &[(Purpose, OwnedFd)]) -> io::Result<()> {
    let offer = Offer {
        version: VERSION,
        sockets: sockets.iter().map(|(purpose, _)| *purpose).collect(),
    };
    let offer = serde_json::to_vec(&offer).map_err(io::Error::other)?;
    let length = u32::try_from(offer.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&offer)?;
    let lent: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    descriptors::send(stream, &lent)
}
