//! Trace context as it travels in headers: W3C `traceparent`, and B3 where a caller speaks that.
//!
//! It says which trace a request belongs to, for the log and for the next hop. Spans inside the process are `tracing`'s.

use std::fmt;

/// The trace of a request, and the span that caused it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// The caller records this trace.
    pub sampled: bool,
}

/// Never 0. Shows as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(u128);

/// Never 0. Shows as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpanId(u64);

/// Length of a `traceparent`.
pub const TRACEPARENT_LEN: usize = 55;

impl TraceContext {
    /// The first span of a new trace.
    pub fn begin(rng: &mut fastrand::Rng, sampled: bool) -> Self {
        Self {
            trace_id: TraceId(rng.u128(1..)),
            span_id: SpanId(rng.u64(1..)),
            sampled,
        }
    }

    /// A new span of the same trace.
    pub fn child(&self, rng: &mut fastrand::Rng) -> Self {
        Self {
            span_id: SpanId(rng.u64(1..)),
            ..*self
        }
    }

    /// From `traceparent`; of versions after 00 the part that they must share.
    pub fn from_traceparent(value: &[u8]) -> Option<Self> {
        let (head, more) = value.split_at_checked(TRACEPARENT_LEN)?;
        let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let version = lower_hex(&head[..2])?;
        let known = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more[0] == b'-',
        };
        if !dashes || !known {
            return None;
        }
        let context = Self::new(lower_hex(&head[3..35])?, lower_hex(&head[36..52])?)?;
        let flags = lower_hex(&head[53..])?;
        Some(context.with_sampled(flags & 1 == 1))
    }

    /// From the single header `b3`: `trace-span[-sampled[-parent]]`.
    pub fn from_b3(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b'-');
        let context = Self::from_b3_ids(parts.next()?, parts.next()?)?;
        Some(context.with_sampled(matches!(parts.next(), Some(b"1" | b"d"))))
    }

    /// From `x-b3-traceid`, `x-b3-spanid` and `x-b3-sampled`.
    pub fn from_b3_multi(trace_id: &[u8], span_id: &[u8], sampled: Option<&[u8]>) -> Option<Self> {
        let context = Self::from_b3_ids(trace_id, span_id)?;
        Some(context.with_sampled(matches!(sampled, Some(b"1" | b"true"))))
    }

    /// `00-trace-span-flags`.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_LEN] {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(self.trace_id.0, &mut value[3..35]);
        write_hex(self.span_id.0.into(), &mut value[36..52]);
        value[54] = if self.sampled { b'1' } else { b'0' };
        value
    }

    /// The span of work inside this process; made only where the log asks for debug.
    pub fn span(&self) -> tracing::Span {
        tracing::debug_span!("request", trace_id = %self.trace_id, span_id = %self.span_id)
    }

    /// B3 allows trace ids of 64 bits, and upper case.
    fn from_b3_ids(trace_id: &[u8], span_id: &[u8]) -> Option<Self> {
        if !matches!(trace_id.len(), 16 | 32) || span_id.len() != 16 {
            return None;
        }
        let lower = |id: &[u8]| lower_hex(&id.to_ascii_lowercase());
        Self::new(lower(trace_id)?, lower(span_id)?)
    }

    fn new(trace_id: u128, span_id: u128) -> Option<Self> {
        let span_id = u64::try_from(span_id).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            sampled: false,
        })
    }

    fn with_sampled(self, sampled: bool) -> Self {
        Self { sampled, ..self }
    }
}

/// At most 32 digits.
fn lower_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

fn write_hex(mut value: u128, out: &mut [u8]) {
    for place in out.iter_mut().rev() {
        *place = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

impl TraceId {
    pub fn hex(self) -> [u8; 32] {
        let mut hex = [0; 32];
        write_hex(self.0, &mut hex);
        hex
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_back() {
        let context = TraceContext::from_traceparent(PARENT.as_bytes()).expect("valid");
        assert!(context.sampled);
        assert_eq!(
            context.trace_id.to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(context.trace_id.hex(), *b"4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(context.traceparent(), PARENT.as_bytes());
        let child = context.child(&mut fastrand::Rng::with_seed(1));
        assert_eq!(child.trace_id, context.trace_id);
        assert_ne!(child.span_id, context.span_id);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_shared() {
        let later = format!("01{}-more", &PARENT[2..]);
        assert!(TraceContext::from_traceparent(later.as_bytes()).is_some());
    }

    #[test]
    fn a_broken_traceparent_is_none() {
        for broken in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "0\u{ff}-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        ] {
            assert_eq!(
                TraceContext::from_traceparent(broken.as_bytes()),
                None,
                "{broken}"
            );
        }
    }

    #[test]
    fn b3_is_accepted_in_both_forms() {
        let single = TraceContext::from_b3(b"80F198EE56343BA8-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90");
        let single = single.expect("valid");
        assert_eq!(
            single.trace_id.to_string(),
            "000000000000000080f198ee56343ba8"
        );
        assert!(single.sampled);
        let multi =
            TraceContext::from_b3_multi(b"80f198ee56343ba8", b"e457b5a2e4d86bd1", Some(b"1"));
        assert_eq!(multi, Some(single));
        assert_eq!(TraceContext::from_b3(b"0"), None);
        assert_eq!(TraceContext::from_b3(b"80f198ee-e457b5a2"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_parsers(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = TraceContext::from_traceparent(&bytes);
            let _ = TraceContext::from_b3(&bytes);
        }
    }
}
