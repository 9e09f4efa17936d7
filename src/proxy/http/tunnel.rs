//! Connections that stop being HTTP: after a 101 that was asked for, and after CONNECT.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::time::Instant;

use super::body::Size;
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forward::{Ended, Scratch, Served};
use super::head::{RequestHead, ResponseHead, Version};
use super::{hash_key, plan};
use crate::base::buffer::Buffer;
use crate::base::net::Stream;
use crate::proxy::cluster::{ConnectionPermit, Lease, Outcome};
use crate::proxy::destination::Destination;
use crate::proxy::entry::Routing;
use crate::proxy::failure::Failure;
use crate::proxy::session::Session;
use crate::proxy::tcp::{self, Side};
use crate::telemetry::flags::Flag;

/// An upstream connection that carries whatever the client sends.
pub struct Tunnel {
    stream: Stream,
    before: Buffer,
    permit: Option<ConnectionPermit>,
    lease: Lease,
    /// What is logged once the tunnel has ended.
    pub record: Option<(Exchange, RequestHead)>,
}

impl Tunnel {
    pub fn new(
        stream: Stream,
        before: Buffer,
        permit: Option<ConnectionPermit>,
        lease: Lease,
    ) -> Self {
        Self {
            stream,
            before,
            permit,
            lease,
            record: None,
        }
    }

    /// Carries bytes until both sides are done. `before` was read from the client already.
    pub async fn run(self, session: &Session, client: Stream, before: Buffer) {
        let Tunnel {
            stream,
            before: answered,
            permit,
            lease,
            record,
        } = self;
        client.waits_for_its_reader();
        stream.waits_for_its_reader();
        let began = Instant::now();
        let carried = tcp::carry(client, before, stream, answered).await;
        lease.settle(Outcome::Success, began.elapsed(), Instant::now());
        drop(permit);
        if let Some((mut exchange, request)) = record {
            exchange.bytes_in += carried.up;
            exchange.bytes_out += carried.down;
            match carried.broken {
                Some(Side::Client) => exchange.flag(Flag::DownstreamTermination),
                Some(Side::Server) => exchange.flag(Flag::UpstreamReset),
                None => {}
            }
            session.finish(&exchange, &request);
        }
    }
}

/// CONNECT, for clients that use this proxy explicitly: to a service of the mesh or to the outside.
pub async fn connect<D: Downstream>(
    session: &Session,
    routing: &Arc<Routing>,
    down: &mut D,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
) -> Result<Served, Ended> {
    let Routing::Mesh(mesh) = &**routing else {
        return Err(Failure::BadRequest {
            status: 405,
            reason: "CONNECT is not allowed here",
        }
        .into());
    };
    if scratch.request.version == Version::Http2 {
        return Err(Failure::BadRequest {
            status: 405,
            reason: "CONNECT is served over HTTP/1 only",
        }
        .into());
    }
    exchange.series = Some(mesh.requests.unrouted().clone());
    let (host, port) = plan::host_and_port(scratch.request.authority());
    let destination = match plan::service(mesh, &host) {
        Some(service) => {
            exchange.series = Some(service.requests.clone());
            service.at(port).clone()
        }
        None => {
            let (destination, requests) =
                plan::elsewhere(session, mesh, &host, port.unwrap_or(443)).await?;
            exchange.series = Some(requests);
            destination
        }
    };
    exchange.service = Some(destination.label.clone());
    let (stream, permit, lease) = open(session, &destination, exchange).await?;
    exchange.status = 200;
    down.send_head(&ResponseHead::new(200), Size::None)
        .map_err(|_| Failure::ClientGone)?;
    poll_fn(|cx| down.poll_flush(cx))
        .await
        .map_err(|_| Ended::Cut(Failure::ClientGone))?;
    Ok(Served::Tunnel(Box::new(Tunnel::new(
        stream,
        Buffer::default(),
        Some(permit),
        lease,
    ))))
}

/// A connection to the destination, where its circuit lets one through. That it was made is all that the circuit asks of bytes.
pub async fn open(
    session: &Session,
    destination: &Destination,
    exchange: &mut Exchange,
) -> Result<(Stream, ConnectionPermit, Lease), Failure> {
    let pass = destination.enter(exchange.start, &session.worker.rng)?;
    let opened = first_that_takes_it(session, destination, exchange).await;
    if let Some(mut pass) = pass {
        let now = Instant::now();
        match &opened {
            Ok(_) => pass.answered(Outcome::Success, now, now),
            Err(failure) if failure.speaks_against_service() => pass.failed(now, now),
            Err(_) => {}
        }
    }
    opened
}

/// A connection to one endpoint after another until one takes it.
async fn first_that_takes_it(
    session: &Session,
    destination: &Destination,
    exchange: &mut Exchange,
) -> Result<(Stream, ConnectionPermit, Lease), Failure> {
    let worker = &session.worker;
    let hashing = destination.hashing.as_deref();
    let key = hashing.and_then(|hashing| hash_key::of_connection(hashing, session));
    let mut last = None;
    loop {
        let picked = destination.cluster.pick_by_key(
            key,
            &exchange.tried,
            Instant::now(),
            &mut worker.rng.borrow_mut(),
        );
        let lease = match picked {
            Ok(lease) if exchange.tried.contains(&lease.endpoint().id) => {
                return Err(last.unwrap_or(Failure::NoBackend));
            }
            Ok(lease) => lease,
            Err(error) => {
                let none = Failure::not_picked(&destination.label, error);
                return Err(last.unwrap_or(none));
            }
        };
        exchange.attempts += 1;
        exchange.tried.push(lease.endpoint().id);
        exchange.endpoint = Some(lease.endpoint().address);
        let connected = worker
            .pool
            .connect_raw(destination, lease.endpoint(), session.guise())
            .await;
        match connected {
            Ok((stream, permit)) => return Ok((stream, permit, lease)),
            Err(failure) => {
                // A limit of ours says nothing of the endpoint.
                let outcome = match failure {
                    Failure::Overflow { .. } => Outcome::Cancelled,
                    _ => Outcome::ConnectFailure,
                };
                lease.settle(outcome, exchange.start.elapsed(), Instant::now());
                last = Some(failure);
            }
        }
    }
}
