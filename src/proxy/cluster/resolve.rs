//! Addresses for endpoints that are names, found off the request path.
//!
//! Each name has a task of its own, which asks again when the answer's time to live is up. The last good answer stays through
//! servers that are slow, silent or deny the name; start-up waits for none of it. A request meets only the result, as endpoints of
//! a [`Cluster`](super::Cluster).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{TokioResolver, system_conf};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::directory::{Clusters, HostChange};
use crate::base::backoff::Backoff;
use crate::base::rng;

/// An answer is kept for at least 1 s …
pub const TTL_MIN: Duration = Duration::from_secs(1);

/// … and for at most 5 min, whatever its time to live.
pub const TTL_MAX: Duration = Duration::from_secs(300);

/// How soon a name that could not be resolved is tried again: 1 s, doubling up to 1 min.
pub const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Look-ups under way at once.
pub const LOOKUPS_MAX: usize = 64;

/// How often `/etc/hosts` and `/etc/resolv.conf` are looked at for changes.
const SYSTEM_INTERVAL: Duration = Duration::from_secs(5);

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Resolves all names of these clusters for as long as it is polled; dropping it ends all look-ups.
pub async fn run(clusters: Arc<Clusters>, resolver: Resolver) {
    let resolver = Arc::new(resolver);
    let mut names = Names::default();
    let mut look = tokio::time::interval(SYSTEM_INTERVAL);
    loop {
        tokio::select! {
            changes = clusters.host_changes() => {
                for change in changes {
                    names.follow(change, &clusters, &resolver);
                }
            }
            _ = look.tick() => resolver.reload_if_changed(),
        }
    }
}

/// The tasks by name.
#[derive(Default)]
struct Names {
    /// Dropping it ends them all.
    tasks: JoinSet<()>,
    handles: HashMap<Arc<str>, AbortHandle>,
}

impl Names {
    fn follow(&mut self, change: HostChange, clusters: &Arc<Clusters>, resolver: &Arc<Resolver>) {
        match change {
            HostChange::Wanted(host) => {
                let keep = keep(host.clone(), clusters.clone(), resolver.clone());
                let handle = self.tasks.spawn(keep);
                if let Some(before) = self.handles.insert(host, handle) {
                    before.abort();
                }
            }
            HostChange::Unwanted(host) => {
                if let Some(handle) = self.handles.remove(&host) {
                    handle.abort();
                }
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }
}

/// Keeps one name's addresses up to date.
async fn keep(host: Arc<str>, clusters: Arc<Clusters>, resolver: Arc<Resolver>) {
    let mut rng = rng::fresh();
    let mut changed = resolver.changed.subscribe();
    let mut failures = 0;
    loop {
        let wait = match resolver.lookup(&host).await {
            Ok(answer) => {
                failures = 0;
                clusters.set_addresses(&host, answer.addresses);
                answer.ttl
            }
            Err(error) => {
                failures += 1;
                tell(&host, failures, &error);
                RETRY.wait(failures, &mut rng)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // The sender lives in the resolver that we hold.
            _ = changed.changed() => {}
        }
    }
}

/// The first failure in a row is news; the others are for those who look closely.
fn tell(host: &str, failures: u32, error: &LookupError) {
    if failures == 1 {
        tracing::warn!(host, %error, "Name not resolved, its last addresses stay in use");
    } else {
        tracing::debug!(host, failures, %error, "Name not resolved again");
    }
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Sorted, without repetitions, not empty.
    pub addresses: Vec<IpAddr>,
    /// How long it may be kept, between [`TTL_MIN`] and [`TTL_MAX`].
    pub ttl: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("not a host name: {0}")]
    Name(String),
    #[error("{0}")]
    Dns(#[from] NetError),
    #[error("the answer has no addresses")]
    Empty,
}

/// Asks name servers. IPv4 addresses are preferred: a host with both kinds is one server, and IPv6 often leads nowhere.
pub struct Resolver {
    dns: ArcSwap<TokioResolver>,
    /// When the system's files were last modified; None for servers given by hand.
    system: Option<ArcSwap<Modified>>,
    changed: watch::Sender<()>,
    lookups: Semaphore,
}

type Modified = [Option<SystemTime>; 2];

impl Resolver {
    /// As the system is configured (`/etc/resolv.conf`, `/etc/hosts`), also after it is configured anew. Where no name server is
    /// configured, the hosts file alone answers.
    pub fn system() -> Result<Self, NetError> {
        let system = ArcSwap::from_pointee(modified());
        Ok(Self::new(system_dns()?, Some(system)))
    }

    /// These name servers by UDP and TCP, after the hosts file.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = address.port();
                connection
            });
            NameServerConfig::new(address.ip(), true, connections.into())
        };
        let servers = servers.iter().map(server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        Ok(Self::new(dns(config, ResolverOpts::default())?, None))
    }

    fn new(dns: TokioResolver, system: Option<ArcSwap<Modified>>) -> Self {
        Self {
            dns: ArcSwap::from_pointee(dns),
            system,
            changed: watch::Sender::new(()),
            lookups: Semaphore::new(LOOKUPS_MAX),
        }
    }

    async fn lookup(&self, host: &str) -> Result<Answer, LookupError> {
        // Relaxed, since names with underscores are in use although they are no host names.
        let name =
            Name::from_str_relaxed(host).map_err(|error| LookupError::Name(error.to_string()))?;
        // Never closed, so there is always a permit some time.
        let _permit = self.lookups.acquire().await;
        let found = self.dns.load_full().lookup_ip(name).await?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(LookupError::Empty);
        }
        let records = found.as_lookup().answers().iter();
        // Of all records: an alias may change sooner than what it points to.
        let seconds = records.map(|record| record.ttl).min().unwrap_or(0);
        let ttl = Duration::from_secs(seconds.into());
        Ok(Answer {
            addresses,
            ttl: ttl.clamp(TTL_MIN, TTL_MAX),
        })
    }

    /// Reads the system's files again if they have changed, and has every name asked for again.
    fn reload_if_changed(&self) {
        let Some(known) = &self.system else { return };
        let modified = modified();
        if **known.load() == modified {
            return;
        }
        match system_dns() {
            Ok(dns) => {
                tracing::info!("System's name resolution changed");
                known.store(Arc::new(modified));
                self.dns.store(Arc::new(dns));
                self.changed.send_replace(());
            }
            Err(error) => {
                tracing::warn!(%error, "System's name resolution changed, but cannot be used");
            }
        }
    }
}

fn modified() -> Modified {
    [HOSTS, RESOLV_CONF].map(|path| Path::new(path).metadata().ok()?.modified().ok())
}

fn system_dns() -> Result<TokioResolver, NetError> {
    match system_conf::read_system_conf() {
        Ok((config, options)) => dns(config, options),
        Err(error) => {
            tracing::warn!(%error, "No name server in {RESOLV_CONF}, only {HOSTS} is used");
            let config = ResolverConfig::from_name_servers(Vec::new());
            dns(config, ResolverOpts::default())
        }
    }
}

fn dns(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    // Each name has one task that asks when it is time to: a cache would only keep failures alive.
    options.cache_size = 0;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
