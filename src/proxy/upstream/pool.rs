//! The upstream connections of one worker: idle HTTP/1 ones by endpoint, newest first, and shared HTTP/2 ones.
//!
//! Two things keep a request from meeting a connection that its upstream is just closing (the keep-alive race): an
//! idle connection is looked at on checkout, and each endpoint's idle time is learned from `Keep-Alive: timeout=`
//! and from the ages at which it was seen to close. What remains is repeated where that is safe; a request that must not be
//! sent twice gets a reused connection only of an endpoint that has earned it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use tokio::time::Instant;

use super::{Connected, Guise, Http1, Upstream, connect};
use crate::base::net::{Liveness, Stream};
use crate::model::Protocol;
use crate::proxy::cluster::{ConnectionPermit, Endpoint, EndpointId, Overflow};
use crate::proxy::destination::{Destination, Handshake};
use crate::proxy::failure::{ConnectError, Failure};
use crate::proxy::http::body::{Cut, Size};
use crate::proxy::http::head::{Known, RequestHead};
use crate::proxy::http1::conn::Conn;
use crate::proxy::http2::client::Connection;
use crate::proxy::settings::Settings;

/// After an endpoint closed an idle connection, requests that must not be sent twice get fresh connections for so long; and
/// what was seen of an endpoint counts for so long after its last answer.
const DISTRUST: Duration = Duration::from_secs(10);
/// They also do while an endpoint is new to this worker: the sweep has then looked at its idle connections at least once. It
/// costs a connect for each such request in these seconds.
const PROBATION: Duration = Duration::from_secs(2);
/// What was learned of an endpoint that is not used is forgotten.
const FORGET: Duration = Duration::from_secs(300);
/// Idle time never shrinks below this, however early an endpoint was seen to close.
const IDLE_MIN: Duration = Duration::from_millis(500);
/// HTTP/2 connections to one endpoint, opened when the streams of those at hand are used up.
const HTTP2_CONNECTIONS_MAX: usize = 8;
/// How long a request may wait for a connection when the limit is reached.
const PENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no request could be begun.
#[derive(Clone, Debug)]
pub enum OpenError {
    Connect(ConnectError),
    /// The circuit limit of this name.
    Overflow(&'static str),
    /// The connection was there, and did not take the request; nothing reached the application.
    Refused,
    /// The request cannot be written in the upstream's protocol.
    Request(&'static str),
}

pub struct Pool {
    slots: RefCell<HashMap<Key, Slot, foldhash::fast::RandomState>>,
    liveness: Liveness,
}

/// Whose connections may carry each other's requests: those to one endpoint in one name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    endpoint: EndpointId,
    guise: Option<Guise>,
}

#[derive(Default)]
struct Slot {
    idle: Vec<Idle>,
    http2: Vec<Connection>,
    connecting: Option<Connecting>,
    /// Learned: connections idle for longer are not used.
    idle_max: Option<Duration>,
    /// From then on requests that must not be sent twice may go on reused connections.
    trusted_at: Option<Instant>,
    /// When a connection last came back with its answer complete.
    answered_at: Option<Instant>,
    /// TLS chose HTTP/1.1 where HTTP/2 was offered.
    negotiated_http1: bool,
}

struct Idle {
    conn: Box<Conn>,
    permit: ConnectionPermit,
    since: Instant,
}

/// One connection attempt that all requests which want the connection wait for; `None`: the peer chose HTTP/1.1.
type Connecting = Shared<LocalBoxFuture<'static, Result<Option<Connection>, OpenError>>>;

/// What a request needs of the pool.
pub struct Wanted<'a> {
    pub destination: &'a Destination,
    pub endpoint: &'a Arc<Endpoint>,
    /// In whose name.
    pub guise: Option<Guise>,
    pub http2: bool,
    /// A new connection is needed: the request must not be sent twice, or a reused one just failed.
    pub fresh: bool,
    /// The request may be sent again if a reused connection turns out closed.
    pub replayable: bool,
}

impl Wanted<'_> {
    fn key(&self) -> Key {
        Key {
            endpoint: self.endpoint.id,
            guise: self.guise,
        }
    }
}

impl Pool {
    pub fn new(liveness: Liveness) -> Self {
        Self {
            slots: RefCell::default(),
            liveness,
        }
    }

    /// Begins a request on a pooled or new connection. Its head is on the way, or queued, when this returns.
    pub async fn open(
        self: &Rc<Self>,
        wanted: &Wanted<'_>,
        head: &RequestHead,
        size: Size,
        now: Instant,
        settings: &Settings,
    ) -> Result<Upstream, OpenError> {
        if !head.fields.contains(Known::Upgrade)
            && self.wants_http2(wanted)
            && let Some(connection) = self.http2(wanted).await?
        {
            return match connection.request(head, size).await {
                Ok(exchange) => Ok(Upstream::Http2(exchange)),
                Err(Cut::Malformed(reason)) => Err(OpenError::Request(reason)),
                Err(_) => Err(OpenError::Refused),
            };
        }
        let mut http1 = match self.checkout(wanted, now, settings) {
            Some(http1) => http1,
            // Connecting is rare and its state large.
            None => Box::pin(self.connect_http1(wanted)).await?,
        };
        http1.begin(head, size);
        Ok(Upstream::Http1(http1))
    }

    fn wants_http2(&self, wanted: &Wanted<'_>) -> bool {
        if wanted.destination.is_tls() {
            let known_http1 = self
                .slots
                .borrow()
                .get(&wanted.key())
                .is_some_and(|slot| slot.negotiated_http1);
            return wanted.destination.protocol != Some(Protocol::Http) && !known_http1;
        }
        wanted.http2
    }

    /// The newest idle connection that is still open and young enough.
    fn checkout(&self, wanted: &Wanted<'_>, now: Instant, settings: &Settings) -> Option<Http1> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&wanted.key())?;
        if wanted.fresh || !(wanted.replayable || slot.is_trusted(now)) {
            return None;
        }
        let idle_max = slot
            .idle_max
            .unwrap_or(settings.upstream_idle_timeout)
            .min(settings.upstream_idle_timeout);
        while let Some(mut idle) = slot.idle.pop() {
            let age = now.saturating_duration_since(idle.since);
            if age >= idle_max {
                // Those below are older still.
                slot.idle.clear();
                return None;
            }
            if is_open(&mut idle.conn) {
                return Some(Http1 {
                    conn: idle.conn,
                    permit: idle.permit,
                    cluster: wanted.destination.cluster.clone(),
                    key: wanted.key(),
                    reused: true,
                    answered: false,
                    keep_alive: false,
                    keep_alive_timeout: None,
                });
            }
            slot.learn_close(age, now);
        }
        None
    }

    async fn connect_http1(&self, wanted: &Wanted<'_>) -> Result<Http1, OpenError> {
        let destination = wanted.destination;
        let permit = self
            .permit(destination, wanted.endpoint, wanted.guise)
            .await?;
        let handshake =
            handshake(destination, wanted.endpoint, true).map_err(OpenError::Connect)?;
        let connected = self
            .dial(destination, wanted.endpoint, wanted.guise, handshake)
            .await
            .map_err(OpenError::Connect)?;
        Ok(Http1 {
            conn: Box::new(Conn::new(connected.stream)),
            permit,
            cluster: wanted.destination.cluster.clone(),
            key: wanted.key(),
            reused: false,
            answered: false,
            keep_alive: false,
            keep_alive_timeout: None,
        })
    }

    /// A new connection for bytes that are not HTTP. At a limit it is refused at once: the others may last for days.
    pub async fn connect_raw(
        &self,
        destination: &Destination,
        endpoint: &Arc<Endpoint>,
        guise: Option<Guise>,
    ) -> Result<(Stream, ConnectionPermit), Failure> {
        let permit = self
            .permit_at_once(destination, endpoint, guise)
            .map_err(|overflow| {
                destination.cluster.limits().count_refusal(overflow);
                Failure::Overflow {
                    cluster: destination.label.to_string(),
                    limit: overflow.limit(),
                }
            })?;
        let connected = match handshake(destination, endpoint, true) {
            Ok(handshake) => self.dial(destination, endpoint, guise, handshake).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(connected) => Ok((connected.stream, permit)),
            Err(error) => Err(Failure::ConnectFailed {
                endpoint: endpoint.address.to_string(),
                error,
            }),
        }
    }

    /// A new connection, counted.
    async fn dial(
        &self,
        destination: &Destination,
        endpoint: &Endpoint,
        guise: Option<Guise>,
        handshake: Option<Handshake>,
    ) -> Result<Connected, ConnectError> {
        let limit = destination.connect_timeout;
        let connected = connect(endpoint.address, guise, handshake, limit, self.liveness).await;
        match &connected {
            Ok(_) => destination.series.connects.increment(),
            Err(_) => destination.series.connect_failures.increment(),
        }
        connected
    }

    /// A connection's share of the circuit limits. At the limit an idle connection makes room, or else the request waits
    /// for one of another to end, on whatever worker.
    async fn permit(
        &self,
        destination: &Destination,
        endpoint: &Arc<Endpoint>,
        guise: Option<Guise>,
    ) -> Result<ConnectionPermit, OpenError> {
        let cluster = &destination.cluster;
        let waited = match self.permit_at_once(destination, endpoint, guise) {
            Ok(permit) => return Ok(permit),
            Err(_) => tokio::time::timeout(PENDING_TIMEOUT, cluster.connection(endpoint)).await,
        };
        let waited = waited.unwrap_or_else(|_| {
            cluster.limits().count_refusal(Overflow::Connections);
            Err(Overflow::Connections)
        });
        waited.map_err(|overflow| OpenError::Overflow(overflow.limit()))
    }

    fn permit_at_once(
        &self,
        destination: &Destination,
        endpoint: &Arc<Endpoint>,
        guise: Option<Guise>,
    ) -> Result<ConnectionPermit, Overflow> {
        let tried = destination.cluster.try_connection(endpoint);
        if tried.is_err() && self.reclaim(destination, guise) {
            return destination.cluster.try_connection(endpoint);
        }
        tried
    }

    /// Closes the oldest idle connection to any endpoint of the cluster, in whatever name.
    fn reclaim(&self, destination: &Destination, guise: Option<Guise>) -> bool {
        let mut slots = self.slots.borrow_mut();
        let endpoints = &destination.cluster.endpoints().endpoints;
        let own = |endpoint: &Arc<Endpoint>| Key {
            endpoint: endpoint.id,
            guise,
        };
        if endpoints
            .iter()
            .any(|endpoint| has_closed_one(slots.get_mut(&own(endpoint))))
        {
            return true;
        }
        // Where connections are kept apart by names, those of others are in the way too.
        guise.is_some()
            && slots
                .iter_mut()
                .filter(|(key, _)| endpoints.iter().any(|endpoint| endpoint.id == key.endpoint))
                .any(|(_, slot)| has_closed_one(Some(slot)))
    }

    /// The shared HTTP/2 connection, opened once however many requests want it. `None`: the endpoint chose HTTP/1.1.
    async fn http2(self: &Rc<Self>, wanted: &Wanted<'_>) -> Result<Option<Connection>, OpenError> {
        let connecting = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots.entry(wanted.key()).or_default();
            slot.http2.retain(|connection| !connection.is_closed());
            if let Some(connection) = slot.http2.iter().find(|connection| connection.has_room()) {
                return Ok(Some(connection.clone()));
            }
            if slot.http2.len() >= HTTP2_CONNECTIONS_MAX {
                // All are full: wait for a stream on the least used.
                return Ok(slot
                    .http2
                    .iter()
                    .min_by_key(|connection| connection.in_use())
                    .cloned());
            }
            match &slot.connecting {
                Some(connecting) => connecting.clone(),
                None => {
                    let connecting = self.clone().connect_http2(wanted).boxed_local().shared();
                    slot.connecting = Some(connecting.clone());
                    connecting
                }
            }
        };
        connecting.await
    }

    fn connect_http2(
        self: Rc<Self>,
        wanted: &Wanted<'_>,
    ) -> impl Future<Output = Result<Option<Connection>, OpenError>> + 'static {
        let (destination, endpoint) = (wanted.destination.clone(), wanted.endpoint.clone());
        let key = wanted.key();
        async move {
            let opened = async {
                let permit = self.permit(&destination, &endpoint, key.guise).await?;
                let handshake =
                    handshake(&destination, &endpoint, false).map_err(OpenError::Connect)?;
                let connected = self
                    .dial(&destination, &endpoint, key.guise, handshake)
                    .await
                    .map_err(OpenError::Connect)?;
                if destination.is_tls() && connected.negotiated_http2 != Some(true) {
                    return Ok(None);
                }
                Connection::open(connected.stream, permit)
                    .await
                    .map(Some)
                    .map_err(|error| OpenError::Connect(ConnectError::Io(error.to_string())))
            }
            .await;
            let mut slots = self.slots.borrow_mut();
            let slot = slots.entry(key).or_default();
            slot.connecting = None;
            match &opened {
                Ok(Some(connection)) => slot.http2.push(connection.clone()),
                Ok(None) => slot.negotiated_http1 = true,
                Err(_) => {}
            }
            opened
        }
    }

    /// Takes a connection back once its answer is complete, if it can carry another request.
    pub fn give_back(&self, upstream: Upstream, settings: &Settings) {
        let Upstream::Http1(mut http1) = upstream else {
            return;
        };
        let reusable =
            http1.keep_alive && http1.conn.is_between_messages() && http1.conn.unread_is_empty();
        if !reusable || http1.conn.is_read_closed() {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(http1.key).or_default();
        let now = Instant::now();
        slot.answered(now);
        if let Some(timeout) = http1.keep_alive_timeout {
            slot.idle_max = Some(earlier(timeout));
        }
        let wanted_elsewhere = http1.cluster.limits().pending() > 0;
        if slot.idle.len() < settings.idle_per_endpoint_max && !wanted_elsewhere {
            http1.conn.rest();
            slot.idle.push(Idle {
                conn: http1.conn,
                permit: http1.permit,
                since: now,
            });
        }
    }

    /// A reused connection was closed as a request went out on it.
    pub fn was_closed_under_us(&self, endpoint: EndpointId, guise: Option<Guise>, now: Instant) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(Key { endpoint, guise }).or_default();
        slot.trusted_at = Some(now + DISTRUST);
    }

    /// Lets go of what is closed or too old; called each second.
    pub fn sweep(&self, now: Instant, settings: &Settings) {
        self.slots.borrow_mut().retain(|key, slot| {
            slot.sweep(now, settings);
            // There can be more clients than are worth remembering.
            !(slot.is_empty(now) || key.guise.is_some() && slot.has_no_connection())
        });
    }

    /// Closes all idle connections: the process is short of descriptors.
    pub fn shed(&self) {
        self.slots
            .borrow_mut()
            .values_mut()
            .for_each(|slot| slot.idle.clear());
    }

    /// Idle HTTP/1 and open HTTP/2 connections.
    pub fn len(&self) -> (usize, usize) {
        let slots = self.slots.borrow();
        slots.values().fold((0, 0), |(idle, http2), slot| {
            (idle + slot.idle.len(), http2 + slot.http2.len())
        })
    }
}

impl Slot {
    fn sweep(&mut self, now: Instant, settings: &Settings) {
        let idle_max = self
            .idle_max
            .unwrap_or(settings.upstream_idle_timeout)
            .min(settings.upstream_idle_timeout);
        let mut closed_at = None;
        self.idle.retain_mut(|idle| {
            let age = now.saturating_duration_since(idle.since);
            let open = is_open(&mut idle.conn);
            if !open {
                closed_at = Some(age);
            }
            open && age < idle_max
        });
        if let Some(age) = closed_at {
            self.learn_close(age, now);
        }
        self.idle.shrink_to(16);
        self.http2.retain(|connection| !connection.is_closed());
    }

    /// The endpoint closed a connection that had been idle for `age` (and up to a sweep less).
    fn learn_close(&mut self, age: Duration, now: Instant) {
        let learned = earlier(age);
        self.idle_max = Some(self.idle_max.map_or(learned, |known| known.min(learned)));
        self.trusted_at = Some(now + DISTRUST);
    }

    /// A connection has come back. The first one, and the first after a long silence, begins a probation.
    fn answered(&mut self, now: Instant) {
        if self.is_unknown(now) {
            let probation = now + PROBATION;
            self.trusted_at = Some(self.trusted_at.map_or(probation, |at| at.max(probation)));
        }
        self.answered_at = Some(now);
    }

    fn is_unknown(&self, now: Instant) -> bool {
        self.answered_at
            .is_none_or(|at| now.saturating_duration_since(at) > DISTRUST)
    }

    fn is_trusted(&self, now: Instant) -> bool {
        !self.is_unknown(now) && self.trusted_at.is_some_and(|at| at <= now)
    }

    fn has_no_connection(&self) -> bool {
        self.idle.is_empty() && self.http2.is_empty() && self.connecting.is_none()
    }

    fn is_empty(&self, now: Instant) -> bool {
        let last = self.answered_at.max(self.trusted_at);
        self.has_no_connection()
            && !self.negotiated_http1
            && last.is_none_or(|last| now.saturating_duration_since(last) > FORGET)
    }
}

/// Closes the oldest idle connection, if there is one.
fn has_closed_one(slot: Option<&mut Slot>) -> bool {
    match slot.filter(|slot| !slot.idle.is_empty()) {
        Some(slot) => {
            slot.idle.remove(0);
            true
        }
        None => false,
    }
}

/// A margin before the moment at which an upstream closes.
fn earlier(timeout: Duration) -> Duration {
    (timeout * 3 / 4).max(IDLE_MIN)
}

/// Whether an idle connection is as silent as it must be: bytes or a FIN end its usefulness. Costs a system call only
/// when the reactor has seen something.
fn is_open(conn: &mut Conn) -> bool {
    conn.poll_fill(&mut Context::from_waker(Waker::noop()))
        .is_pending()
}

fn handshake(
    destination: &Destination,
    endpoint: &Endpoint,
    http1_only: bool,
) -> Result<Option<Handshake>, ConnectError> {
    destination
        .handshake(endpoint, http1_only)
        .map_err(ConnectError::Tls)
}
