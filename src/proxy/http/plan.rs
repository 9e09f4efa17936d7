//! Where a request goes: the route's rule, or the service its host names, or the outside world.

use std::borrow::Cow;
use std::sync::Arc;

use super::exchange::Exchange;
use super::forward::{Ended, Plan};
use super::head::{Known, RequestHead, Scheme, TargetForm};
use super::{gray, persistence, respond};
use crate::model::{OnHalfClose, PathNormalization, Timeouts};
use crate::proxy::by_address;
use crate::proxy::cluster::{Pass, nanos};
use crate::proxy::destination::Destination;
use crate::proxy::entry::{App, AppDestination, Mesh, Role, Routing, ServiceHost};
use crate::proxy::failure::Failure;
use crate::proxy::filter::{Arrival, Chain, Verdict, Visit};
use crate::proxy::route::{
    self, BackendChoice, CompiledRule, Found, ListenerRoutes, Listeners, Table,
};
use crate::proxy::session::Session;

type Rule = CompiledRule<Arc<Destination>>;

pub async fn find<'a>(
    session: &Session,
    routing: &'a Routing,
    request: &mut RequestHead,
    exchange: &mut Exchange,
) -> Result<Plan<'a>, Ended> {
    match routing {
        Routing::Gateway(listeners) => by_listener(session, listeners, request, exchange),
        Routing::Mesh(mesh) => by_mesh(session, mesh, request, exchange).await,
        Routing::App(app) => by_port(session, app, request, exchange),
        // The listener spoke HTTP when this connection began.
        Routing::Opaque(_) => Err(Failure::NoRoute { host: false }.into()),
    }
}

/// Once the filters have had their say of the request: the right to send it to the service that is meant, or to the one that takes over from it: where nobody is healthy, or
/// the circuit is open. None where that one has no circuit breaker.
pub fn enter(
    session: &Session,
    plan: &mut Plan<'_>,
    request: &RequestHead,
    exchange: &mut Exchange,
) -> Result<Option<Pass>, Failure> {
    let destination = &plan.destination;
    if destination.failover.is_some() {
        let gray = destination.gray.as_ref();
        let lane = gray.and_then(|gray| gray::lane(gray, &request.fields));
        if destination.cluster.is_out(lane, exchange.start) {
            take_over(plan, exchange, NOBODY_HEALTHY);
        }
    }
    let rng = &session.worker.rng;
    match plan.destination.enter(exchange.start, rng) {
        Err(_) if take_over(plan, exchange, "has an open circuit") => {
            plan.destination.enter(exchange.start, rng)
        }
        entered => entered,
    }
}

/// Why another service takes over.
pub const NOBODY_HEALTHY: &str = "has no healthy endpoint";

/// Sends the request to the service that takes over; false where there is none.
pub fn take_over(plan: &mut Plan<'_>, exchange: &mut Exchange, why: &str) -> bool {
    let Some(other) = plan.destination.failover.clone() else {
        return false;
    };
    plan.destination.series.failovers.increment();
    let (from, to) = (&plan.destination.label, &other.label);
    exchange.details = format!("{from} {why}; {to} takes over");
    exchange.service = Some(to.clone());
    plan.destination = other;
    true
}

/// The path that is matched and, where it is not the one that came, forwarded.
fn normal_path(request: &RequestHead, wanted: PathNormalization) -> Result<Cow<'_, [u8]>, Failure> {
    route::normalize(request.path(), wanted).map_err(|refused| Failure::BadRequest {
        status: 400,
        reason: refused.reason(),
    })
}

fn by_listener<'a>(
    session: &Session,
    listeners: &'a Listeners<Arc<Destination>>,
    request: &mut RequestHead,
    exchange: &mut Exchange,
) -> Result<Plan<'a>, Ended> {
    let found = listener(session, listeners, request, exchange)?;
    let wanted = found.listener.path;
    let normal = normal_path(request, wanted)?;
    let view = route::HeadView::new(request, &normal);
    if let Some(explanation) = &mut exchange.explanation {
        explanation.note(&found.table, &view);
    }
    let (rule, by_path) =
        rule_of(found.table.find(&view))?.ok_or(Failure::NoRoute { host: false })?;
    if let Cow::Owned(path) = normal
        && (wanted.rewrites() || by_path || rule.rewrites_path())
    {
        forward_normal_path(request, &path)?;
    }
    let plan = by_rule(session, rule, request, exchange)?;
    Ok(Plan {
        on_half_close: found.listener.on_half_close,
        ..plan
    })
}

fn listener<'a>(
    session: &Session,
    listeners: &'a Listeners<Arc<Destination>>,
    request: &RequestHead,
    exchange: &mut Exchange,
) -> Result<&'a ListenerRoutes<Arc<Destination>>, Failure> {
    let Some(listener) = listeners.find(route::without_port(request.authority())) else {
        return Err(Failure::NoRoute { host: false });
    };
    exchange.series = Some(listener.requests.unrouted().clone());
    if let Some(name) = &session.server_name {
        // A connection coalesced by the client onto a listener that is not the host's (RFC 9110, section 7.4).
        let chosen = listeners.find(name.as_bytes());
        if chosen.is_some_and(|chosen| !std::ptr::eq(chosen, listener)) {
            return Err(Failure::Misdirected);
        }
    }
    Ok(listener)
}

async fn by_mesh<'a>(
    session: &Session,
    mesh: &'a Mesh,
    request: &mut RequestHead,
    exchange: &mut Exchange,
) -> Result<Plan<'a>, Ended> {
    exchange.series = Some(mesh.requests.unrouted().clone());
    let wanted = path_of_service(session, mesh, request);
    let normal = normal_path(request, wanted)?;
    let view = route::HeadView::new(request, &normal);
    if let Some(explanation) = &mut exchange.explanation {
        explanation.note(mesh_table(session, mesh, request, &view), &view);
    }
    let found = mesh_rule(session, mesh, request, &view)?;
    if let Cow::Owned(path) = normal
        && (wanted.rewrites()
            || found.is_some_and(|(rule, by_path)| by_path || rule.rewrites_path()))
    {
        forward_normal_path(request, &path)?;
    }
    match found {
        Some((rule, _)) => by_rule(session, rule, request, exchange),
        None => by_host(session, mesh, request, exchange).await,
    }
}

/// What the service that the request is for says of paths.
fn path_of_service(session: &Session, mesh: &Mesh, request: &RequestHead) -> PathNormalization {
    if !mesh.normalizes {
        return PathNormalization::default();
    }
    let (host, _) = host_and_port(request.authority());
    meant(session, mesh, &host).map_or_else(PathNormalization::default, |service| service.path)
}

/// The rule, and whether the path made a difference. None where no route is for the host nor for the service it names, so
/// that this service is meant itself.
fn mesh_rule<'a>(
    session: &Session,
    mesh: &'a Mesh,
    request: &RequestHead,
    view: &route::HeadView<'_>,
) -> Result<Option<(&'a Rule, bool)>, Failure> {
    match rule_of(mesh.routes.by_host().find(view))? {
        Some(found) => Ok(Some(found)),
        None if mesh.routes.has_attached() => attached_rule(session, mesh, request, view),
        None => Ok(None),
    }
}

/// The table that [`mesh_rule`] finds a rule in, for those who ask why.
fn mesh_table<'a>(
    session: &Session,
    mesh: &'a Mesh,
    request: &RequestHead,
    view: &route::HeadView<'_>,
) -> &'a Table<Arc<Destination>> {
    let by_host = mesh.routes.by_host();
    if !matches!(by_host.find(view), Found::NoHost) {
        return by_host;
    }
    let (host, port) = host_and_port(request.authority());
    let attached = meant(session, mesh, &host).and_then(|service| {
        let port = service.port(port).unwrap_or(80);
        mesh.routes.of_service(&service.name, port)
    });
    attached.unwrap_or(by_host)
}

/// From the routes attached to the service that the request is for.
fn attached_rule<'a>(
    session: &Session,
    mesh: &'a Mesh,
    request: &RequestHead,
    view: &route::HeadView<'_>,
) -> Result<Option<(&'a Rule, bool)>, Failure> {
    let (host, port) = host_and_port(request.authority());
    let Some(service) = meant(session, mesh, &host) else {
        return Ok(None);
    };
    let port = service.port(port).unwrap_or(80);
    match mesh.routes.of_service(&service.name, port) {
        Some(table) => rule_of(table.find(view)),
        None => Ok(None),
    }
}

fn rule_of(found: Found<'_, Arc<Destination>>) -> Result<Option<(&Rule, bool)>, Failure> {
    match found {
        Found::Rule { rule, by_path } => Ok(Some((rule, by_path))),
        Found::NoRule => Err(Failure::NoRoute { host: true }),
        Found::NoHost => Ok(None),
    }
}

/// What was matched is what is forwarded.
fn forward_normal_path(request: &mut RequestHead, path: &[u8]) -> Result<(), Failure> {
    let set = request.set_path(path);
    set.map_err(|_| Failure::BadRequest {
        status: 400,
        reason: "malformed path",
    })
}

fn by_rule<'a>(
    session: &Session,
    rule: &'a Rule,
    request: &RequestHead,
    exchange: &mut Exchange,
) -> Result<Plan<'a>, Ended> {
    exchange.route = Some(rule.label.clone());
    exchange.series = Some(rule.requests.clone());
    if rule.filters.meets() {
        meet(session, &[&rule.filters], request, exchange)?;
    }
    let chosen = match &rule.persistence {
        None => rule.pick_backend(&mut session.worker.rng.borrow_mut()),
        Some(kept) => persistence::choose(rule, kept, session, request, exchange),
    };
    let backend = match chosen {
        BackendChoice::Cluster(backend) => backend,
        BackendChoice::Invalid(reason) => {
            return Err(Failure::InvalidBackend {
                reason: reason.to_string(),
            }
            .into());
        }
        BackendChoice::None => return Err(Failure::NoBackend.into()),
    };
    exchange.series = Some(backend.requests.clone());
    exchange.service = Some(backend.target.label.clone());
    if backend.filters.meets() {
        let way = [&backend.filters, &rule.filters];
        meet(session, &way, request, exchange)?;
    }
    Ok(Plan {
        destination: backend.target.clone(),
        filters: [Some(&rule.filters), Some(&backend.filters)]
            .map(|chain| chain.filter(|chain| !chain.is_empty())),
        timeouts: *rule.timeouts(),
        deadline: None,
        retry: rule.retry(),
        hedging: backend.hedging.as_deref(),
        mirrors: &backend.mirrors,
        on_half_close: OnHalfClose::default(),
        lane: None,
        tells_load: false,
        grpc: respond::is_grpc(request),
        upgrade: request.fields.contains(Known::Upgrade),
    })
}

/// Lets the first of these filters meet the request. What they answer in place of a backend goes back through all of them, as what
/// a backend answers would.
#[cold]
fn meet(
    session: &Session,
    filters: &[&Chain],
    request: &RequestHead,
    exchange: &mut Exchange,
) -> Result<(), Ended> {
    let visit = Visit {
        arrival: Arrival {
            scheme: match session.tls {
                true => Scheme::Https,
                false => Scheme::Http,
            },
            port: port_asked_for(session, request),
            host: session.local.ip(),
        },
        source: session.source(request),
        now: nanos(exchange.start),
        rng: &session.worker.rng,
    };
    let met = filters[0].meet(request, &visit);
    exchange.grant = met.grant.or(exchange.grant.take());
    exchange.delay = met.delay.max(exchange.delay);
    match met.verdict {
        None => Ok(()),
        Some(Verdict::Refuse(failure)) => Err(failure.into()),
        Some(Verdict::Answer(mut answer)) => {
            exchange.tell(&mut answer.head.fields);
            for chain in filters {
                chain.on_response(&mut answer.head.fields);
            }
            Err(Ended::Answered(answer))
        }
    }
}

/// A gateway's listener has one; a sidecar's caller means that of the service.
fn port_asked_for(session: &Session, request: &RequestHead) -> u16 {
    if session.entry.role == Role::Gateway {
        return session.entry.address.port();
    }
    let dialled = session.original_dst.map(|dialled| dialled.port());
    let (_, said) = host_and_port(request.authority());
    said.or(dialled).unwrap_or(80)
}

/// A plan that no route had a part in.
fn direct<'a>(
    destination: Arc<Destination>,
    request: &RequestHead,
    exchange: &mut Exchange,
) -> Plan<'a> {
    exchange.service = Some(destination.label.clone());
    Plan {
        destination,
        filters: [None, None],
        timeouts: Timeouts::default(),
        deadline: None,
        retry: None,
        hedging: None,
        mirrors: &[],
        on_half_close: OnHalfClose::default(),
        lane: None,
        tells_load: false,
        grpc: respond::is_grpc(request),
        upgrade: request.fields.contains(Known::Upgrade),
    }
}

fn by_port<'a>(
    session: &Session,
    app: &'a App,
    request: &mut RequestHead,
    exchange: &mut Exchange,
) -> Result<Plan<'a>, Ended> {
    exchange.series = Some(app.requests.unrouted().clone());
    let port = app_destination(session, app);
    let wanted = port.map_or_else(PathNormalization::default, |port| port.path);
    if let Cow::Owned(path) = normal_path(request, wanted)?
        && wanted.rewrites()
    {
        forward_normal_path(request, &path)?;
    }
    if let Some(found) = port {
        exchange.series = Some(found.requests.clone());
        let plan = direct(found.destination.clone(), request, exchange);
        return Ok(Plan {
            lane: found.lane.as_ref(),
            tells_load: found.tells_load,
            ..plan
        });
    }
    match session.original_dst {
        Some(address) => Ok(direct(
            session
                .worker
                .passthrough
                .at(address, &session.worker.settings),
            request,
            exchange,
        )),
        None => Err(Failure::NoRoute { host: false }.into()),
    }
}

/// The application's port that an inbound connection is for.
pub fn app_destination<'a>(session: &Session, app: &'a App) -> Option<&'a AppDestination> {
    if let Some(original) = session.original_dst {
        // Peers dial the port that is registered, which is the application's own; whoever goes by the service's port means it too.
        let dialled = original.port();
        let mut ports = app.ports.iter();
        let own = ports.clone().find(|port| port.app_port == dialled);
        return own.or_else(|| ports.find(|port| port.port == dialled));
    }
    let listens = |port: &&AppDestination| port.listen == Some(session.entry.address);
    app.ports.iter().find(listens).or_else(|| {
        if let [only] = &app.ports[..] {
            Some(only)
        } else {
            None
        }
    })
}

async fn by_host<'a>(
    session: &Session,
    mesh: &'a Mesh,
    request: &RequestHead,
    exchange: &mut Exchange,
) -> Result<Plan<'a>, Ended> {
    let (host, port) = host_and_port(request.authority());
    if request.target_form() == TargetForm::Absolute && request.scheme() == Some(Scheme::Https) {
        // What is meant to be secret must not go on in plain text.
        return Err(Failure::BadRequest {
            status: 400,
            reason: "https:// in a request without TLS; a proxy is asked for that with CONNECT",
        }
        .into());
    }
    if let Some(service) = service(mesh, &host) {
        exchange.series = Some(service.requests.clone());
        return Ok(direct(service.at(port).clone(), request, exchange));
    }
    let found = Box::pin(elsewhere(session, mesh, &host, port.unwrap_or(80))).await?;
    let (destination, requests) = found;
    exchange.series = Some(requests);
    Ok(direct(destination, request, exchange))
}

/// The service that a request is for: the one its host names, else the one whose virtual address the client dialled.
fn meant<'a>(session: &Session, mesh: &'a Mesh, host: &str) -> Option<&'a ServiceHost> {
    service(mesh, host).or_else(|| mesh.virtual_host(session.original_dst?.ip()))
}

/// The service a host names, in any case and with or without a trailing dot.
pub fn service<'a>(mesh: &'a Mesh, host: &str) -> Option<&'a ServiceHost> {
    let host = host.strip_suffix('.').unwrap_or(host);
    mesh.services
        .get(host)
        .or_else(|| mesh.services.get(&*host.to_ascii_lowercase()))
}

/// For a host that is no service's: where the client was going, or else where the name leads.
pub async fn elsewhere(
    session: &Session,
    mesh: &Mesh,
    host: &str,
    port: u16,
) -> Result<by_address::Found, Failure> {
    if let Some(address) = session.original_dst {
        return by_address::http(session, mesh, address);
    }
    if !mesh.passthrough {
        return Err(Failure::NotRegistered);
    }
    let address = session.worker.passthrough.resolve(host, port).await?;
    if session.is_own(address) {
        return Err(Failure::BadRequest {
            status: 400,
            reason: "the request is for the proxy itself",
        });
    }
    by_address::http(session, mesh, address)
}

/// The host, and the port where there is one.
pub fn host_and_port(authority: &[u8]) -> (Cow<'_, str>, Option<u16>) {
    let text = String::from_utf8_lossy(authority);
    let split = match &text {
        Cow::Borrowed(text) => text.rsplit_once(':'),
        Cow::Owned(_) => None,
    };
    match split.map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) => (host.into(), Some(port)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let table = [
            ("a", "a", None),
            ("a:80", "a", Some(80)),
            ("[::1]:8", "[::1]", Some(8)),
            ("[::1]", "[::1]", None),
        ];
        for (authority, host, port) in table {
            assert_eq!(
                host_and_port(authority.as_bytes()),
                (host.into(), port),
                "{authority}"
            );
        }
    }
}
