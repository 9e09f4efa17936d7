//! Until when a request has to be done: what its callers say they will wait, and what the route allows, whichever ends sooner.
//!
//! Callers say it in `grpc-timeout`, `x-envoy-expected-rq-timeout-ms` and `x-mesh-timeout-ms`, as a time from the request's
//! arrival on. Each attempt tells the next hop what is left, in the fields that came; where none came, a gRPC call gets a
//! `grpc-timeout` and any other request to a service an `x-mesh-timeout-ms`. How long the connection for an attempt takes is not
//! subtracted: its head is ready before. What is passed through to outside the mesh gets no field that did not come.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::head::{Fields, Known};
use crate::proxy::cluster::Outcome;
use crate::proxy::failure::Failure;

/// Until when a request has to be done, and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    pub at: Instant,
    /// From the request's arrival.
    pub limit: Duration,
    pub whose: Whose,
}

/// Who has set a time limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The route's `timeouts.request`.
    Request,
    /// The route's `timeouts.backendRequest`, of the last attempt.
    BackendRequest,
    /// The caller, in the field of this name.
    Caller(&'static str),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::Request => f.write_str("the route's timeouts.request"),
            Whose::BackendRequest => f.write_str("the route's timeouts.backendRequest"),
            Whose::Caller(field) => write!(f, "the caller's {field}"),
        }
    }
}

const GRPC: &str = "grpc-timeout";
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";
const MESH: &str = "x-mesh-timeout-ms";

/// In the order in which they are named where they say the same.
const FIELDS: [(Known, &str); 3] = [
    (Known::GrpcTimeout, GRPC),
    (Known::XEnvoyExpectedRqTimeoutMs, ENVOY),
    (Known::XMeshTimeoutMs, MESH),
];
const KNOWN: [Known; 3] = [FIELDS[0].0, FIELDS[1].0, FIELDS[2].0];

/// A caller that asks for years means that it does not care.
const LIMIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl Deadline {
    /// Of a request that arrived at `start`. Fails where its caller has given it no time at all.
    #[inline]
    pub fn of(
        fields: &Fields,
        route: Option<Duration>,
        start: Instant,
    ) -> Result<Option<Self>, Failure> {
        let route = route.map(|limit| (limit, Whose::Request));
        if !fields.contains_any(&KNOWN) {
            return Ok(route.map(|limit| Self::after(start, limit)));
        }
        let shortest = route.into_iter().chain(callers(fields)).min_by_key(|l| l.0);
        match shortest.map(|limit| Self::after(start, limit)) {
            Some(deadline) if deadline.limit.is_zero() => Err(deadline.missed()),
            deadline => Ok(deadline),
        }
    }

    fn after(start: Instant, (limit, whose): (Duration, Whose)) -> Self {
        Self {
            at: start + limit,
            limit,
            whose,
        }
    }

    /// What the request ends with that is not done by then.
    pub fn missed(&self) -> Failure {
        Failure::UpstreamTimeout {
            limit: self.limit,
            whose: self.whose,
        }
    }

    /// What that says of the endpoint which has not answered: nothing where it is the caller that does not wait for longer, or
    /// else callers in a hurry could have every endpoint ejected.
    pub fn outcome(&self) -> Outcome {
        match self.whose {
            Whose::Caller(_) => Outcome::Cancelled,
            Whose::Request | Whose::BackendRequest => Outcome::Timeout,
        }
    }
}

/// Tells the next hop how long it has.
pub fn forward(fields: &mut Fields, left: Duration, grpc: bool, whose: Whose) {
    let mut buffer = itoa::Buffer::new();
    let milliseconds = buffer.format(milliseconds_of(left)).as_bytes();
    if !grpc && !fields.contains_any(&KNOWN) {
        if !matches!(whose, Whose::Caller(_)) {
            fields.push_known(Known::XMeshTimeoutMs, MESH.as_bytes(), milliseconds);
        }
        return;
    }
    if grpc || fields.contains(Known::GrpcTimeout) {
        let text = grpc_text(left);
        fields.set_known(Known::GrpcTimeout, GRPC.as_bytes(), text.as_bytes());
    }
    let both = [
        (Known::XEnvoyExpectedRqTimeoutMs, ENVOY),
        (Known::XMeshTimeoutMs, MESH),
    ];
    for (known, name) in both {
        if fields.contains(known) {
            fields.set_known(known, name.as_bytes(), milliseconds);
        }
    }
}

/// Rounded up: who has a microsecond left is not told that it has none.
fn milliseconds_of(left: Duration) -> u64 {
    let part = left.subsec_nanos().div_ceil(1_000_000);
    left.as_secs() * 1_000 + u64::from(part)
}

/// What the callers' fields say; those that cannot be read say nothing.
fn callers(fields: &Fields) -> impl Iterator<Item = (Duration, Whose)> {
    FIELDS.into_iter().filter_map(|(known, name)| {
        let value = fields.get(known)?;
        let limit = match known {
            Known::GrpcTimeout => from_grpc(value)?,
            // Envoy's word for no limit is 0.
            Known::XEnvoyExpectedRqTimeoutMs => milliseconds(value).filter(|l| !l.is_zero())?,
            _ => milliseconds(value)?,
        };
        (limit <= LIMIT_MAX).then_some((limit, Whose::Caller(name)))
    })
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

/// gRPC over HTTP/2, "Timeout": at most eight digits and a unit.
fn from_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > GRPC_DIGITS_MAX {
        return None;
    }
    let count = number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

const GRPC_DIGITS_MAX: usize = 8;

/// In the finest unit that eight digits can say, rounded up.
fn grpc_text(left: Duration) -> String {
    const UNITS: [(u128, char); 5] = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
    ];
    const COUNT_MAX: u128 = 10u128.pow(GRPC_DIGITS_MAX as u32) - 1;
    let counts = UNITS.map(|(unit, letter)| (left.as_nanos().div_ceil(unit), letter));
    let fits = counts.into_iter().find(|(count, _)| *count <= COUNT_MAX);
    // The longest route timeout is 400,000 hours, so minutes always fit.
    let (count, letter) = fits.unwrap_or((COUNT_MAX, 'M'));
    format!("{count}{letter}")
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(all: &[(&str, &str)], route: Option<u64>) -> Option<(u128, Whose)> {
        let start = Instant::now();
        let deadline = Deadline::of(&Fields::of(all), route.map(Duration::from_millis), start);
        let deadline = deadline.expect("there is time")?;
        assert_eq!(deadline.at, start + deadline.limit);
        Some((deadline.limit.as_millis(), deadline.whose))
    }

    #[test]
    fn the_shortest_limit_counts_and_is_known_by_its_name() {
        let caller = |limit, field| Some((limit, Whose::Caller(field)));
        let mesh = ("x-mesh-timeout-ms", "50");
        assert_eq!(deadline(&[], None), None);
        assert_eq!(deadline(&[], Some(70)), Some((70, Whose::Request)));
        assert_eq!(deadline(&[mesh], None), caller(50, MESH));
        assert_eq!(deadline(&[mesh], Some(70)), caller(50, MESH));
        assert_eq!(deadline(&[mesh], Some(40)), Some((40, Whose::Request)));
        let grpc = ("grpc-timeout", "2S");
        assert_eq!(deadline(&[grpc], None), caller(2_000, GRPC));
        assert_eq!(deadline(&[mesh, grpc], None), caller(50, MESH));
        let envoy = ("x-envoy-expected-rq-timeout-ms", "40");
        assert_eq!(deadline(&[mesh, envoy], None), caller(40, ENVOY));
        assert_eq!(deadline(&[(envoy.0, "0")], None), None);
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for wrong in [
            "",
            "S",
            "1",
            "-1S",
            "+1S",
            "123456789S",
            "1x",
            "99999999H",
            "1 S",
        ] {
            assert_eq!(deadline(&[("grpc-timeout", wrong)], None), None, "{wrong}");
        }
        for wrong in ["", "-1", "1.5", "99999999999999999999999", "99999999999999"] {
            assert_eq!(
                deadline(&[("x-mesh-timeout-ms", wrong)], None),
                None,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_request_without_any_time_is_refused() {
        for field in ["x-mesh-timeout-ms", "grpc-timeout"] {
            let none = Fields::of(&[(field, if field == GRPC { "0S" } else { "0" })]);
            let refused = Deadline::of(&none, None, Instant::now()).expect_err("no time");
            assert_eq!((refused.answer().status, refused.grpc_status()), (504, 4));
        }
    }

    fn forwarded(all: &[(&str, &str)], grpc: bool, whose: Whose) -> String {
        let mut fields = Fields::of(all);
        forward(&mut fields, Duration::from_micros(1_234_500), grpc, whose);
        let mut out = Vec::new();
        fields.write_except(&[], &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn what_is_left_goes_on_in_the_fields_that_came() {
        let caller = Whose::Caller(MESH);
        for (all, grpc, whose, expected) in [
            (
                &[][..],
                false,
                Whose::Request,
                "x-mesh-timeout-ms: 1235\r\n",
            ),
            (
                &[],
                false,
                Whose::BackendRequest,
                "x-mesh-timeout-ms: 1235\r\n",
            ),
            (&[], true, Whose::Request, "grpc-timeout: 1234500u\r\n"),
            (
                &[("X-Mesh-Timeout-Ms", "2000")],
                false,
                caller,
                "x-mesh-timeout-ms: 1235\r\n",
            ),
            (
                &[("x-mesh-timeout-ms", "2000")],
                true,
                caller,
                "x-mesh-timeout-ms: 1235\r\ngrpc-timeout: 1234500u\r\n",
            ),
            (
                &[("x-envoy-expected-rq-timeout-ms", "2000")],
                false,
                Whose::Request,
                "x-envoy-expected-rq-timeout-ms: 1235\r\n",
            ),
        ] {
            assert_eq!(forwarded(all, grpc, whose), expected, "{all:?} {grpc}");
        }
    }

    #[test]
    fn a_grpc_timeout_has_at_most_eight_digits_and_is_not_shorter_than_it_was() {
        for (left, text) in [
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_001), "100001u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::from_secs(400_000 * 3600), "24000000M"),
        ] {
            assert_eq!(grpc_text(left), text);
            let read = from_grpc(text.as_bytes()).expect("it can be read");
            assert!(read >= left, "{text}");
        }
    }
}
