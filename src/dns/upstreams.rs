use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use crate::intercept::OriginalDst;

pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where systemd-resolved writes the servers that it asks itself. It stands before the machine's resolv.conf when that names
/// loopback alone: the queries of the local server would be redirected to us, and ours back to it.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

const PORT: u16 = 53;

/// Servers that are used; a resolver knows no more either.
const SERVERS_MAX: usize = 3;

/// Who is asked for what is not of the mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upstreams {
    Fixed(Vec<SocketAddr>),
    /// Those of a file like `/etc/resolv.conf`, also after it has changed.
    File(PathBuf),
}

/// The servers as they are now, without ourselves.
pub struct Servers {
    upstreams: Upstreams,
    own: Vec<SocketAddr>,
    modified: RefCell<Modified>,
    current: RefCell<Rc<[SocketAddr]>>,
}

type Modified = [Option<SystemTime>; 2];

impl Servers {
    /// `own` are the addresses of the name server that asks.
    pub fn new(upstreams: Upstreams, own: Vec<SocketAddr>) -> Self {
        let servers = Self {
            upstreams,
            own,
            modified: RefCell::default(),
            current: RefCell::new(Rc::default()),
        };
        servers.read();
        servers
    }

    pub fn current(&self) -> Rc<[SocketAddr]> {
        self.current.borrow().clone()
    }

    /// Reads the file again where it has changed.
    pub fn reload_if_changed(&self) {
        if let Upstreams::File(path) = &self.upstreams
            && *self.modified.borrow() != modified(path)
        {
            self.read();
        }
    }

    fn read(&self) {
        let all = match &self.upstreams {
            Upstreams::Fixed(servers) => servers.clone(),
            Upstreams::File(path) => {
                *self.modified.borrow_mut() = modified(path);
                of_system(path, Path::new(RESOLVED_CONF))
            }
        };
        let others = all
            .iter()
            .filter(|server| !OriginalDst(**server).is_own(&self.own));
        let servers: Rc<[SocketAddr]> = others.copied().take(SERVERS_MAX).collect();
        if servers.is_empty() {
            tracing::warn!(named = ?all, "No name server but this one: only names of the mesh are answered");
        } else {
            tracing::info!(?servers, "Name servers");
        }
        *self.current.borrow_mut() = servers;
    }
}

fn modified(path: &Path) -> Modified {
    [path, Path::new(RESOLVED_CONF)].map(|path| path.metadata().ok()?.modified().ok())
}

fn of_system(path: &Path, resolved: &Path) -> Vec<SocketAddr> {
    let servers = of_file(path);
    if servers.iter().all(|server| server.ip().is_loopback()) {
        let beyond = of_file(resolved);
        if !beyond.is_empty() {
            return beyond;
        }
    }
    servers
}

fn of_file(path: &Path) -> Vec<SocketAddr> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(_) => Vec::new(),
    }
}

/// The `nameserver` lines; one that cannot be read is passed over, as resolvers do.
fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let address = line.trim().strip_prefix("nameserver")?;
        let address: IpAddr = address.split_whitespace().next()?.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read_and_everything_else_is_passed_over() {
        let text = "# nameserver 9.9.9.9\nsearch a.example\nnameserver 10.0.0.2 # the router\n\tnameserver\tfd00::2\nnameserver nonsense\nnameserver\n";
        let expected = ["10.0.0.2:53", "[fd00::2]:53"].map(|server| server.parse().unwrap());
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn we_are_never_our_own_upstream() {
        let [own, twin, other] =
            ["127.0.0.1:53", "[::1]:53", "127.0.0.2:54"].map(|a| a.parse().unwrap());
        let upstreams = Upstreams::Fixed(vec![own, twin, other]);
        let servers = Servers::new(upstreams, vec![own, twin]);
        assert_eq!(*servers.current(), [other]);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, "nameserver 10.0.0.2\n").unwrap();
        let servers = Servers::new(Upstreams::File(path.clone()), Vec::new());
        assert_eq!(*servers.current(), ["10.0.0.2:53".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        servers.reload_if_changed();
        assert_eq!(*servers.current(), []);
    }

    #[test]
    fn a_local_server_that_is_systemd_resolved_is_passed_by() {
        let folder = tempfile::tempdir().unwrap();
        let [path, resolved] =
            ["resolv.conf", "resolved.conf"].map(|name| folder.path().join(name));
        fs::write(&path, "nameserver 127.0.0.53\n").unwrap();
        let local = ["127.0.0.53:53".parse().unwrap()];
        assert_eq!(of_system(&path, &resolved), local);
        fs::write(&resolved, "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(
            of_system(&path, &resolved),
            ["10.0.0.2:53".parse().unwrap()]
        );
        fs::write(&path, "nameserver 10.0.0.9\nnameserver 127.0.0.53\n").unwrap();
        assert_eq!(of_system(&path, &resolved).len(), 2);
    }
}
