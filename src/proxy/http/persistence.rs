//! Session persistence (GEP-1619): requests of one client stay with the endpoint that answered its first, whatever the weights of the
//! rule's backends.
//!
//! A session is a number that follows from the cluster and the endpoint's address, so every proxy of the mesh understands it and none
//! has to remember it. It is a hash: clients do not read addresses in it, though whoever knows the network may guess one. Whoever makes
//! one up gets to an endpoint that anybody gets to. Where sessions end by the clock, the time of the first answer stands beside it, and
//! where they end by being idle, that of a late one, which the client is told again from time to time.
//!
//! Whoever's endpoint is gone, not healthy, or not of the traffic lane that the request names, gets another and a new session. An
//! answer that switches protocols tells no new one.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::exchange::Exchange;
use super::hash_key::{cookie, set_cookie};
use super::head::{Fields, Known, RequestHead};
use crate::base::hash::xxh64;
use crate::model::{IssuedCookie, SessionCarrier};
use crate::proxy::cluster::{Cluster, Endpoint, EndpointId, Lease};
use crate::proxy::destination::Destination;
use crate::proxy::route::{BackendChoice, CompiledRule, Persistence};
use crate::proxy::session::Session;

/// Clocks of proxies may differ by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The session of one request.
pub struct Kept {
    persistence: Arc<Persistence>,
    /// The endpoint that the client belongs to.
    endpoint: Option<EndpointId>,
    times: Times,
}

/// Of a session, in seconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Times {
    began: u64,
    /// When the client was told of it.
    told: u64,
}

/// Of the time after which an idle session is over, the part that may be missing from it, so that not every answer tells it anew.
const IDLE_PART: u64 = 8;

/// The backend of the client's session, else one by the weights.
#[cold]
pub fn choose<'a>(
    rule: &'a CompiledRule<Arc<Destination>>,
    persistence: &Arc<Persistence>,
    session: &Session,
    request: &RequestHead,
    exchange: &mut Exchange,
) -> BackendChoice<'a, Arc<Destination>> {
    let now = unix_time();
    let said = said(persistence, request).and_then(|said| parse(said, persistence, now));
    let found = said.and_then(|(number, times)| {
        rule.backends().find_map(|backend| {
            let endpoints = backend.target.cluster.endpoints();
            let of_cluster = number_of_cluster(&backend.target);
            let of_session = |endpoint: &&Arc<Endpoint>| {
                endpoint.is_healthy() && of_cluster ^ endpoint.tag == number
            };
            let endpoint = endpoints.endpoints.iter().find(of_session)?;
            Some((backend, endpoint.id, times))
        })
    });
    exchange.kept = Some(Box::new(Kept {
        persistence: Arc::clone(persistence),
        endpoint: found.as_ref().map(|(_, endpoint, _)| *endpoint),
        times: found
            .as_ref()
            .map_or(Times::of(now), |(_, _, times)| *times),
    }));
    match found {
        Some((backend, ..)) => BackendChoice::Cluster(backend),
        None => rule.pick_backend(&mut session.worker.rng.borrow_mut()),
    }
}

/// The endpoint of the client's session, if it serves this traffic lane and the request has not tried it yet.
#[cold]
pub fn lease(
    kept: &Kept,
    cluster: &Cluster,
    lane: Option<&str>,
    tried: &[EndpointId],
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<Lease> {
    let endpoint = kept.endpoint.filter(|endpoint| !tried.contains(endpoint))?;
    cluster.lease_of(endpoint, lane, now, rng)
}

/// Tells the client which session it has now, where that is news.
#[cold]
pub fn tell(
    kept: &Kept,
    session: &Session,
    destination: &Destination,
    endpoint: &Endpoint,
    fields: &mut Fields,
) {
    let persistence = &kept.persistence;
    let limits = &persistence.model;
    let now = unix_time();
    let goes_on = kept.endpoint == Some(endpoint.id);
    let began = if goes_on { kept.times.began } else { now };
    let number = number_of_cluster(destination) ^ endpoint.tag;
    let value = match (limits.absolute_timeout, limits.idle_timeout) {
        (None, None) => format!("{number:016x}"),
        (Some(_), None) => format!("{number:016x}-{began:x}"),
        (_, Some(_)) => format!("{number:016x}-{began:x}-{now:x}"),
    };
    let is_fresh = limits.idle_timeout.is_none_or(|limit| {
        let told_ago = now.saturating_sub(kept.times.told);
        told_ago < limit.as_secs() / IDLE_PART
    });
    match &persistence.model.carrier {
        SessionCarrier::Header => fields.set(persistence.name.as_bytes(), value.as_bytes()),
        SessionCarrier::Cookie { .. } if goes_on && is_fresh => {}
        SessionCarrier::Cookie { permanent, path } => {
            let left = |limit: Duration| {
                limit.saturating_sub(Duration::from_secs(now.saturating_sub(began)))
            };
            let ttl = limits.absolute_timeout.filter(|_| *permanent).map(left);
            let cookie = IssuedCookie {
                ttl: ttl.unwrap_or_default(),
                path: Arc::clone(path),
            };
            let field = set_cookie(&persistence.name, &value, &cookie, session.tls);
            fields.push_known(Known::SetCookie, b"Set-Cookie", field.as_bytes());
        }
    }
}

/// What, with an endpoint's tag, is the number of a session.
fn number_of_cluster(destination: &Destination) -> u64 {
    let key = &destination.cluster.key;
    let port = u64::from(key.port.unwrap_or(0));
    xxh64(destination.label.as_bytes(), port)
}

fn said<'r>(persistence: &Persistence, request: &'r RequestHead) -> Option<&'r [u8]> {
    let name = persistence.name.as_bytes();
    match persistence.model.carrier {
        SessionCarrier::Header => request.fields.find(name),
        SessionCarrier::Cookie { .. } => cookie(&request.fields, name),
    }
}

impl Times {
    fn of(now: u64) -> Self {
        Self {
            began: now,
            told: now,
        }
    }
}

/// The number and the times of a session; None for what is none of ours, or is over.
fn parse(said: &[u8], persistence: &Persistence, now: u64) -> Option<(u64, Times)> {
    let said = std::str::from_utf8(said).ok()?;
    let hex = |text: &str, length: std::ops::RangeInclusive<usize>| {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let fits = is_hex && length.contains(&text.len());
        fits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    let limits = &persistence.model;
    let parts: Vec<&str> = said.splitn(4, '-').collect();
    let (number, times) = match (limits.absolute_timeout, limits.idle_timeout, &parts[..]) {
        (None, None, [number]) => (number, Times::of(now)),
        (Some(_), None, [number, began]) => (number, Times::of(hex(began, 1..=12)?)),
        (_, Some(_), [number, began, told]) => {
            let (began, told) = (hex(began, 1..=12)?, hex(told, 1..=12)?);
            (number, Times { began, told })
        }
        _ => return None,
    };
    let is_over = |limit: Option<Duration>, since: u64| {
        limit.is_some_and(|limit| now.saturating_sub(since) >= limit.as_secs().max(1))
    };
    let is_of_future = times.began.max(times.told) > now + CLOCK_SKEW.as_secs();
    let is_over =
        is_over(limits.absolute_timeout, times.began) || is_over(limits.idle_timeout, times.told);
    (!is_over && !is_of_future).then_some((hex(number, 16..=16)?, times))
}

fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionPersistence;

    fn persistence(absolute: Option<u64>, idle: Option<u64>) -> Persistence {
        Persistence {
            name: "session".into(),
            model: SessionPersistence {
                carrier: SessionCarrier::Header,
                name: None,
                absolute_timeout: absolute.map(Duration::from_secs),
                idle_timeout: idle.map(Duration::from_secs),
            },
        }
    }

    #[test]
    fn a_session_is_read_strictly() {
        let endless = persistence(None, None);
        let read = parse(b"00000000000000ff", &endless, 9);
        assert_eq!(read, Some((255, Times::of(9))));
        for wrong in [
            &b""[..],
            b"ff",
            b"+0000000000000ff",
            b"00000000000000ff-1",
            b"00000000000000fg",
            b"\xff",
        ] {
            assert_eq!(parse(wrong, &endless, 9), None);
        }
    }

    #[test]
    fn a_session_ends_by_the_clock() {
        let hour = persistence(Some(3600), None);
        let now = 1_000_000;
        let at = |began: u64| parse(format!("00000000000000ff-{began:x}").as_bytes(), &hour, now);
        for (began, goes_on) in [
            (now - 3599, true),
            (now - 3600, false),
            (now + 60, true),
            (now + 61, false),
        ] {
            assert_eq!(at(began), goes_on.then_some((255, Times::of(began))));
        }
        assert_eq!(parse(b"00000000000000ff", &hour, now), None);
    }

    #[test]
    fn a_session_ends_by_being_idle() {
        let now = 1_000_000;
        for (absolute, began, told, goes_on) in [
            (None, 1, now - 59, true),
            (None, 1, now - 60, false),
            (Some(3600), now - 3599, now - 59, true),
            (Some(3600), now - 3600, now, false),
            (None, 1, now + 61, false),
        ] {
            let minute = persistence(absolute, Some(60));
            let said = format!("00000000000000ff-{began:x}-{told:x}");
            let times = Times { began, told };
            let expected = goes_on.then_some((255, times));
            assert_eq!(parse(said.as_bytes(), &minute, now), expected, "{times:?}");
        }
        let minute = persistence(None, Some(60));
        assert_eq!(parse(b"00000000000000ff-1", &minute, 2), None);
        assert_eq!(parse(b"00000000000000ff-1-1-1", &minute, 2), None);
    }
}
