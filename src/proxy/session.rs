//! One downstream connection's facts, shared by the requests on it, and the record each of them leaves.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::entry::{Entry, Role};
use super::http::exchange::Exchange;
use super::http::head::{Known, RequestHead};
use super::upstream::Guise;
use super::worker::Worker;
use crate::intercept::OriginalDst;
use crate::model::InboundMode;
use crate::telemetry::access_log;
use crate::telemetry::trace::TraceContext;

pub struct Session {
    pub worker: Rc<Worker>,
    pub entry: Arc<Entry>,
    pub peer: SocketAddr,
    /// Our own end of the connection.
    pub local: SocketAddr,
    /// Where the client wanted to go, when the connection was redirected here.
    pub original_dst: Option<SocketAddr>,
    pub tls: bool,
    /// ALPN chose HTTP/2.
    pub http2: bool,
    /// The name the client asked for in its TLS handshake.
    pub server_name: Option<Box<str>>,
    /// The peer's address as `X-Forwarded-For` wants it.
    pub peer_text: Box<[u8]>,
    /// The peer is in one of the trusted networks: what it says of whom it forwards for is believed.
    pub trusted: bool,
    /// The newest report of the instance's load that this client has been told.
    pub load_told: Cell<u64>,
}

impl Session {
    pub fn peer_text(peer: IpAddr) -> Box<[u8]> {
        let canonical = peer.to_canonical();
        canonical.to_string().into_bytes().into_boxed_slice()
    }

    /// Whether an address is one of this proxy's own listeners, so that going there would be a loop.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        OriginalDst(address).is_own(&self.worker.own_addresses.borrow())
    }

    /// In whose name the application is called; None calls it in the proxy's.
    pub fn guise(&self) -> Option<Guise> {
        match (self.entry.role, self.original_dst) {
            (Role::Inbound(InboundMode::Tproxy), Some(dialled)) => Some(Guise {
                client: self.peer.ip().to_canonical(),
                host: dialled.ip(),
            }),
            _ => None,
        }
    }

    /// The client: the peer, or the one that a trusted peer forwards for, which is the last of `X-Forwarded-For` that is not
    /// trusted itself.
    pub fn source(&self, request: &RequestHead) -> IpAddr {
        if !self.trusted {
            return self.peer.ip();
        }
        let networks = &self.worker.settings.trusted_networks;
        let mut forwarded: Vec<_> = request.fields.get_all(Known::XForwardedFor).collect();
        forwarded.reverse();
        let listed = forwarded
            .iter()
            .flat_map(|list| list.rsplit(|byte| *byte == b','));
        let addresses = listed.map_while(|text| {
            let text = std::str::from_utf8(text).ok()?.trim();
            text.parse::<IpAddr>().ok()
        });
        let is_trusted = |address: &IpAddr| networks.iter().any(|network| network.has(*address));
        let mut clients = addresses.filter(|address| !is_trusted(address));
        clients.next().unwrap_or(self.peer.ip())
    }

    /// A request has arrived. The wall clock is read only for those who log.
    pub fn begin(&self) -> Exchange {
        Exchange::new(
            Instant::now(),
            self.worker.access_log.is_some().then(SystemTime::now),
        )
    }

    /// A request has ended: its metrics are counted and its line is logged.
    pub fn finish(&self, exchange: &Exchange, request: &RequestHead) {
        let duration = exchange.start.elapsed();
        if let Some(series) = &exchange.series {
            series.record(exchange.status, exchange.flags, duration);
        }
        let (Some(log), Some(start)) = (&self.worker.access_log, exchange.wall) else {
            return;
        };
        let fields = &request.fields;
        let protocol = if request.path_and_query().is_empty() {
            "TCP"
        } else {
            request.version.as_str()
        };
        let (authority, path) = match &exchange.asked {
            Some(asked) => (&asked.authority[..], &asked.path_and_query[..]),
            None => (request.authority(), request.path_and_query()),
        };
        log.borrow_mut().write(&access_log::Record {
            start,
            listener: exchange
                .series
                .as_ref()
                .map_or("", |series| series.listener()),
            downstream: Some(self.peer),
            method: if protocol == "TCP" {
                b""
            } else {
                request.method.as_bytes()
            },
            authority,
            path,
            protocol,
            status: exchange.status,
            flags: exchange.flags,
            details: &exchange.details,
            bytes_in: exchange.bytes_in,
            bytes_out: exchange.bytes_out,
            duration,
            upstream_first_byte: exchange
                .first_byte
                .map(|at| at.saturating_duration_since(exchange.start)),
            route: exchange.route.as_deref().unwrap_or_default(),
            service: exchange.service.as_deref().unwrap_or_default(),
            endpoint: exchange.endpoint,
            attempts: exchange.attempts,
            request_id: fields.get(Known::XRequestId),
            trace_id: fields
                .get(Known::Traceparent)
                .and_then(TraceContext::from_traceparent)
                .or_else(|| fields.get(Known::B3).and_then(TraceContext::from_b3))
                .map(|trace| trace.trace_id),
        });
    }
}
