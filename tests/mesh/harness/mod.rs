//! What scenarios are made of: a [`Mesh`] of real processes, [`Service`]s behind it, a [`Client`] and a [`Load`] in front, and the
//! [`Journal`] of what the load saw. Nothing here sleeps to be safe; [`eventually`] polls, with a guard against hanging.

mod client;
pub mod documents;
mod journal;
mod load;
mod mesh;
mod process;
mod service;

pub use client::{Answer, Client, Target};
pub use journal::Journal;
pub use load::Load;
pub use mesh::{Mesh, Registry, Sidecar};
pub use process::Process;
pub use service::Service;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Far beyond anything that is waited for here; a scenario that reaches it hangs.
pub const HANG_GUARD: Duration = Duration::from_secs(60);

/// Polls until the check gives something; panics with `what` when it does not within the hang guard.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + HANG_GUARD;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A loopback address that nothing listens on, below the ports that the kernel gives to outgoing connections.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 12_000 + (std::process::id() % 150) as u16 * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 5_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener
                .local_addr()
                .expect("a bound socket has an address");
        }
    }
}
