//! The walk of one request: route, filters, attempts, the answer back through the filters, the record.
//!
//! The same for every version of HTTP on either side; `http1::server` and `http2::server` bring the requests here as a
//! [`Downstream`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::attempt;
use super::body::{Copy, CopyError, Cut, Size};
use super::deadline::Deadline;
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::head::{Known, Method, RequestHead, ResponseHead, Version};
use super::pack::{Packed, Packer};
use super::replay::Replay;
use super::tries::{self, Answered};
use super::{
    admission, admitted, explained, gray, hash_key, headers, load_report, mirror, pause,
    persistence, plan, respond, tunnel,
};
use crate::model::{Compression, OnHalfClose, Retry, Timeouts};
use crate::proxy::cluster::{Outcome, Pass};
use crate::proxy::destination::Destination;
use crate::proxy::failure::Failure;
use crate::proxy::filter::{Chain, FilterAnswer, decide_compression};
use crate::proxy::hedging::Hedging;
use crate::proxy::http1::codec::Limits;
use crate::proxy::lane::Lane;
use crate::proxy::route::Mirror;
pub use crate::proxy::session::Session;
use crate::proxy::settings::Settings;
use crate::telemetry::flags::Flag;

/// The heads of one request, reused from request to request.
pub struct Scratch {
    pub request: RequestHead,
    pub response: ResponseHead,
    pub limits: Limits,
}

impl Scratch {
    pub fn new(limits: Limits) -> Self {
        Self {
            request: RequestHead::default(),
            response: ResponseHead::default(),
            limits,
        }
    }
}

/// What the route says of one request.
pub struct Plan<'a> {
    pub destination: Arc<Destination>,
    pub filters: [Option<&'a Chain>; 2],
    pub timeouts: Timeouts,
    /// When the whole exchange must be over; known once the filters have had their say.
    pub deadline: Option<Deadline>,
    pub retry: Option<&'a Retry>,
    pub hedging: Option<&'a Hedging>,
    /// Who else gets the request.
    pub mirrors: &'a [Mirror<Arc<Destination>>],
    pub on_half_close: OnHalfClose,
    /// In front of the application; None lets everything in.
    pub lane: Option<&'a Lane>,
    /// Answers of the application are to say how busy it is.
    pub tells_load: bool,
    pub grpc: bool,
    /// The client asks to switch protocols, to one that is allowed.
    pub upgrade: bool,
}

impl Plan<'_> {
    /// The longest body of a request, in bytes.
    pub fn body_max(&self) -> u64 {
        let chains = self.filters.iter().flatten();
        chains
            .map(|chain| chain.body_max())
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Whether and how the answer is compressed: as the backend says, else as the rule does.
    fn compression(&self) -> Option<&Compression> {
        let mut chains = self.filters.iter().rev().flatten();
        chains.find_map(|chain| chain.compression())
    }

    /// gRPC streams and upgraded connections may be silent for as long as they like.
    pub fn idle_limit(&self, settings: &Settings) -> Option<Duration> {
        (!self.grpc && !self.upgrade).then_some(settings.stream_idle_timeout)
    }
}

/// Why a request ended without a whole answer from an application.
#[derive(Debug)]
pub enum Ended {
    /// A filter answers in place of a backend.
    Answered(Box<FilterAnswer>),
    /// Before any byte of an answer: the proxy answers.
    Refused(Failure),
    /// In the middle of the answer: it is cut short.
    Cut(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Refused(failure)
    }
}

/// What is left to do with the connection after a request.
pub enum Served {
    /// The answer is complete, or the client has been told otherwise.
    Done,
    /// The connection now carries bytes between the client and this upstream.
    Tunnel(Box<tunnel::Tunnel>),
    /// The client's connection is of no further use.
    Broken,
}

/// Serves the request in `scratch.request`, whose body `down` reads.
pub async fn serve<D: Downstream>(
    session: &Session,
    down: &mut D,
    scratch: &mut Scratch,
) -> Served {
    let mut exchange = session.begin();
    if scratch.request.fields.contains(Known::XMeshExplain) {
        explained::ask(session, &mut scratch.request.fields, &mut exchange);
    }
    let walked = if tracing::enabled!(tracing::Level::DEBUG) {
        let span = request_span(session, &scratch.request);
        Box::pin(walk(session, down, scratch, &mut exchange).instrument(span)).await
    } else {
        walk(session, down, scratch, &mut exchange).await
    };
    match walked {
        Ok(Served::Tunnel(mut tunnel)) => {
            tunnel.record = Some((exchange, std::mem::take(&mut scratch.request)));
            Served::Tunnel(tunnel)
        }
        Ok(served) => {
            session.finish(&exchange, &scratch.request);
            served
        }
        Err(ended) => {
            let served = Box::pin(end(session, down, scratch, &mut exchange, ended)).await;
            session.finish(&exchange, &scratch.request);
            served
        }
    }
}

/// One span a request, where anybody looks at spans: what happens to it is logged inside.
fn request_span(session: &Session, request: &RequestHead) -> tracing::Span {
    tracing::debug_span!(
        "request",
        peer = %session.peer,
        method = %request.method.as_str(),
        authority = %String::from_utf8_lossy(request.authority()),
        path = %String::from_utf8_lossy(request.path()),
    )
}

async fn end<D: Downstream>(
    session: &Session,
    down: &mut D,
    scratch: &Scratch,
    exchange: &mut Exchange,
    mut ended: Ended,
) -> Served {
    // What a filter refuses or answers may be delayed on purpose as well.
    if let Some(delay) = exchange.delay.take() {
        let on_half_close = OnHalfClose::default();
        if let Err(left) = hold_back(delay, exchange, None, on_half_close, down).await {
            ended = left;
        }
    }
    let (failure, started) = match ended {
        Ended::Answered(answer) => {
            return end_answered(down, &scratch.request, exchange, &answer).await;
        }
        Ended::Refused(failure) => (failure, false),
        Ended::Cut(failure) => (failure, !down.take_back()),
    };
    let answer = failure.answer();
    exchange.flag(answer.flag);
    exchange.details = answer.message;
    if started {
        let client_is_there = !matches!(failure, Failure::ClientGone);
        let speaks_grpc =
            scratch.request.version == Version::Http2 && respond::is_grpc(&scratch.request);
        if !(client_is_there && speaks_grpc && respond::end_grpc(down, &failure).await.is_ok()) {
            down.cut();
        }
        return Served::Broken;
    }
    exchange.status = answer.status;
    if matches!(failure, Failure::ClientGone) {
        down.cut();
        return Served::Broken;
    }
    down.decline_body();
    let refused = respond::refuse(session, down, &scratch.request, &failure, Some(exchange));
    match refused.await {
        Ok(bytes) => {
            exchange.bytes_out = bytes;
            Served::Done
        }
        Err(_) => Served::Broken,
    }
}

async fn end_answered<D: Downstream>(
    down: &mut D,
    request: &RequestHead,
    exchange: &mut Exchange,
    answer: &FilterAnswer,
) -> Served {
    exchange.status = answer.head.status;
    exchange.details = format!("the route's filter {} answers", answer.filter);
    down.decline_body();
    match respond::answer(down, request, &answer.head, answer.body.as_bytes()).await {
        Ok(bytes) => {
            exchange.bytes_out = bytes;
            Served::Done
        }
        Err(_) => Served::Broken,
    }
}

async fn walk<D: Downstream>(
    session: &Session,
    down: &mut D,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
) -> Result<Served, Ended> {
    let routing = session.entry.routing.load_full();
    if scratch.request.method == Method::Connect {
        return Box::pin(tunnel::connect(session, &routing, down, scratch, exchange)).await;
    }
    headers::forwarded(&mut scratch.request, session);
    let mut plan = plan::find(session, &routing, &mut scratch.request, exchange).await?;
    let [of_rule, of_backend] = plan.filters;
    apply(of_rule, &mut scratch.request, exchange);
    if !plan.mirrors.is_empty() {
        exchange.copies = mirror::begin(session, &plan, &scratch.request, scratch.limits);
    }
    apply(of_backend, &mut scratch.request, exchange);
    let mut pass = plan::enter(session, &mut plan, &scratch.request, exchange)?;
    if let Some(gray) = &plan.destination.gray {
        gray::carry(gray, &mut scratch.request.fields);
    }
    let fields = &scratch.request.fields;
    plan.deadline = Deadline::of(fields, plan.timeouts.request, exchange.start)?;
    if let Some(delay) = exchange.delay.take() {
        let (deadline, on_half_close) = (plan.deadline, plan.on_half_close);
        Box::pin(hold_back(delay, exchange, deadline, on_half_close, down)).await?;
    }
    if let Some(copies) = exchange.copies.take_if(|_| down.size() == Size::None) {
        copies.send(&session.worker, None);
    }
    let lane = plan.lane.or(plan.destination.lane.as_ref());
    let slot = match lane {
        Some(lane) => {
            let request = &scratch.request;
            Some(admission::admit(session, lane, &plan, down, request, exchange).await?)
        }
        None => None,
    };
    let answered = loop {
        match tries::run(session, &plan, down, scratch, exchange).await {
            // The last healthy endpoint was lost since; nothing of the request has been read.
            Err(Ended::Refused(Failure::NoEndpoint { .. }))
                if exchange.attempts == 0
                    && plan::take_over(&mut plan, exchange, plan::NOBODY_HEALTHY) =>
            {
                pass = plan
                    .destination
                    .enter(exchange.start, &session.worker.rng)?;
            }
            Err(ended) => return Err(lost(pass, ended, exchange)),
            Ok(answered) => break answered,
        }
    };
    if let Some(pass) = &mut pass {
        let outcome = tries::outcome_of(&scratch.response, answered.undelivered);
        let at = exchange.first_byte.unwrap_or(exchange.start);
        pass.answered(outcome, exchange.start, at);
    }
    if let Some(hashing) = &plan.destination.hashing {
        let fields = &mut scratch.response.fields;
        hash_key::issue(hashing, session, &scratch.request, exchange.start, fields);
    }
    if scratch.response.status == 101 {
        let switched = Box::pin(switch_protocols(answered, down, scratch, exchange)).await;
        return switched.map_err(|ended| lost(pass, ended, exchange));
    }
    if let Some(lane) = plan.lane {
        let now = exchange.first_byte.unwrap_or(exchange.start);
        admitted::tell(lane, &mut scratch.response.fields, now);
    }
    // Not before the switch of protocols: what is borrowed across that is kept in memory until the end.
    if let Some(kept) = &exchange.kept {
        let (endpoint, fields) = (answered.lease.endpoint(), &mut scratch.response.fields);
        persistence::tell(kept, session, &plan.destination, endpoint, fields);
    }
    if plan.tells_load || load_report::is_in(&scratch.response.fields) {
        load_report::pass(session, &plan, &answered, &mut scratch.response);
    }
    exchange.tell(&mut scratch.response.fields);
    for chain in plan.filters.into_iter().rev().flatten() {
        chain.on_response(&mut scratch.response.fields);
    }
    exchange.status = scratch.response.status;
    let served = relay(session, &plan, answered, down, scratch, exchange).await;
    let served = served.map_err(|ended| lost(pass, ended, exchange))?;
    // What has failed says nothing of how long such a request takes: its slot is dropped.
    if let Some(slot) = slot.filter(|_| exchange.status < 500) {
        slot.done();
    }
    Ok(served)
}

/// A filter delays the request on purpose.
async fn hold_back<D: Downstream>(
    delay: Duration,
    exchange: &mut Exchange,
    deadline: Option<Deadline>,
    on_half_close: OnHalfClose,
    down: &mut D,
) -> Result<(), Ended> {
    exchange.flag(Flag::FaultDelay);
    pause::until(exchange.start + delay, deadline, on_half_close, down).await
}

fn apply(chain: Option<&Chain>, request: &mut RequestHead, exchange: &mut Exchange) {
    let Some(chain) = chain else {
        return;
    };
    if chain.rewrites() {
        exchange.keep_asked(request);
    }
    chain.on_request(request);
}

/// There is no whole answer; where that is the service's doing, its circuit hears of it.
fn lost(pass: Option<Pass>, ended: Ended, exchange: &Exchange) -> Ended {
    if let Some(mut pass) = pass
        && let Ended::Refused(failure) | Ended::Cut(failure) = &ended
        && failure.speaks_against_service()
    {
        pass.failed(exchange.start, Instant::now());
    }
    ended
}

/// Sends the answer on, while what is left of the request's body still goes up.
async fn relay<D: Downstream>(
    session: &Session,
    plan: &Plan<'_>,
    answered: Answered,
    down: &mut D,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
) -> Result<Served, Ended> {
    let Answered {
        mut upstream,
        mut lease,
        mut request,
        mut replay,
        began,
        undelivered,
    } = answered;
    // A body that has come whole by now need not wait for the end of the answer.
    send_copies(session, exchange, &request, &replay);
    let latency = began.elapsed();
    let outcome = tries::outcome_of(&scratch.response, undelivered);
    lease.answered(outcome, latency, began + latency);
    let mut size = if scratch.request.method == Method::Head {
        Size::None
    } else {
        upstream.size(&scratch.response)
    };
    let mut packer = match plan.compression() {
        None => None,
        Some(compression) => begin_packing(compression, scratch, &mut size),
    };
    let sent = down.send_head(&scratch.response, size);
    if sent.is_err() {
        lease.settle(Outcome::Cancelled, latency, Instant::now());
        return Err(Ended::Cut(Failure::ClientGone));
    }
    let limit = plan.idle_limit(&session.worker.settings);
    let mut idle = None;
    let mut response = Copy::default();
    let mut sending = !request.is_done();
    let ended = poll_fn(|cx| {
        if sending {
            match request.poll(cx, &mut replay.source(down), &mut upstream) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) | Poll::Ready(Err(CopyError::Sink(_))) => sending = false,
                Poll::Ready(Err(CopyError::Source(cut))) => {
                    return Poll::Ready(Err((Outcome::Cancelled, client_cut(cut))));
                }
            }
        }
        let moved = match packer.as_deref_mut() {
            None => response.poll(cx, &mut upstream, down),
            Some(packer) => {
                let mut sink = Packed { packer, sink: down };
                response.poll(cx, &mut upstream, &mut sink)
            }
        };
        match moved {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(CopyError::Source(cut))) => {
                return Poll::Ready(Err((Outcome::Reset, upstream_cut(cut, exchange))));
            }
            Poll::Ready(Err(CopyError::Sink(cut))) => {
                let failure = sink_cut(cut, exchange);
                return Poll::Ready(Err((Outcome::Cancelled, failure)));
            }
            Poll::Pending => {}
        }
        // An upstream that is silent for days gives no occasion to write, and so to find the client gone.
        if attempt::poll_left(cx, down, sending, plan.on_half_close).is_ready() {
            return Poll::Ready(Err((Outcome::Cancelled, Failure::ClientGone)));
        }
        if let Some(deadline) = plan.deadline
            && down.timer().poll(cx, deadline.at).is_ready()
        {
            return Poll::Ready(Err((deadline.outcome(), deadline.missed())));
        }
        if let Some(limit) = limit {
            let watch = idle.get_or_insert_with(|| session.worker.watch(cx.waker(), limit));
            if let Some(limit) = watch.expired(request.bytes + response.bytes) {
                return Poll::Ready(Err((Outcome::Timeout, Failure::StreamIdle { limit })));
            }
        }
        Poll::Pending
    })
    .await;
    exchange.bytes_in = exchange.bytes_in.max(request.bytes);
    exchange.bytes_out = packer.map_or(response.bytes, |packer| packer.bytes);
    send_copies(session, exchange, &request, &replay);
    match ended {
        Ok(()) => {
            lease.settle(outcome, latency, Instant::now());
            if request.is_done() {
                session
                    .worker
                    .pool
                    .give_back(upstream, &session.worker.settings);
            } else {
                down.decline_body();
            }
            Ok(Served::Done)
        }
        Err((outcome, failure)) => {
            upstream.cut();
            lease.settle(outcome, latency, Instant::now());
            Err(Ended::Cut(failure))
        }
    }
}

/// The encoder of an answer that is to be compressed; its head says so, and nobody knows its length any more.
#[cold]
fn begin_packing(
    compression: &Compression,
    scratch: &mut Scratch,
    size: &mut Size,
) -> Option<Box<Packer>> {
    let (request, answer) = (&scratch.request, &mut scratch.response);
    let coding = decide_compression(compression, request, answer, *size)?;
    if *size == Size::None {
        // An answer to HEAD: it says what the answer to GET would.
        return None;
    }
    *size = Size::Unknown;
    Some(Packer::new(coding))
}

/// Once the body has come whole. What was kept of it for a repetition is what is copied.
fn send_copies(session: &Session, exchange: &mut Exchange, request: &Copy, replay: &Replay) {
    if let Some(copies) = exchange.copies.take_if(|_| request.is_done())
        && let Some(body) = replay.whole()
    {
        copies.send(&session.worker, Some(body));
    }
}

fn client_cut(cut: Cut) -> Failure {
    match cut {
        Cut::TooLarge { max } => Failure::BodyTooLarge { max },
        Cut::Malformed(reason) => Failure::BadRequest {
            status: 400,
            reason,
        },
        _ => Failure::ClientGone,
    }
}

/// The answer could not be written: the client left, or the upstream sent a body of another length than it said.
fn sink_cut(cut: Cut, exchange: &Exchange) -> Failure {
    match cut {
        Cut::Malformed(reason) => Failure::UpstreamProtocol {
            endpoint: endpoint(exchange),
            reason,
        },
        _ => Failure::ClientGone,
    }
}

fn upstream_cut(cut: Cut, exchange: &Exchange) -> Failure {
    let endpoint = endpoint(exchange);
    match cut {
        Cut::Malformed(reason) => Failure::UpstreamProtocol { endpoint, reason },
        cut => Failure::UpstreamCut {
            endpoint,
            reset: cut.is_reset(),
        },
    }
}

fn endpoint(exchange: &Exchange) -> String {
    exchange
        .endpoint
        .map(|address| address.to_string())
        .unwrap_or_default()
}

/// A 101 that was asked for turns both connections into a tunnel; one that was not is a broken answer.
async fn switch_protocols<D: Downstream>(
    answered: Answered,
    down: &mut D,
    scratch: &mut Scratch,
    exchange: &mut Exchange,
) -> Result<Served, Ended> {
    let latency = answered.began.elapsed();
    let asked = scratch.request.fields.get(Known::Upgrade);
    let got = scratch.response.fields.get(Known::Upgrade);
    let agreed =
        matches!((asked, got), (Some(asked), Some(got)) if asked.eq_ignore_ascii_case(got));
    if !agreed {
        answered
            .lease
            .settle(Outcome::Failure5xx, latency, Instant::now());
        let reason = "it switched to a protocol that it was not asked for";
        return Err(Failure::UpstreamProtocol {
            endpoint: endpoint(exchange),
            reason,
        }
        .into());
    }
    exchange.status = 101;
    exchange.flags = crate::telemetry::flags::Flags::NONE;
    let sent = down.send_head(&scratch.response, Size::None);
    let flushed = match sent {
        Ok(()) => poll_fn(|cx| down.poll_flush(cx)).await,
        Err(cut) => Err(cut),
    };
    match (flushed, answered.upstream.into_tunnel()) {
        (Ok(()), Some((stream, before, permit))) => Ok(Served::Tunnel(Box::new(
            tunnel::Tunnel::new(stream, before, Some(permit), answered.lease),
        ))),
        _ => {
            exchange.flag(Flag::DownstreamTermination);
            Err(Ended::Cut(Failure::ClientGone))
        }
    }
}
