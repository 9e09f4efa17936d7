use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Field;
use super::json::{push_integer, push_millis, push_string, push_three_digits};
use crate::telemetry::flags::Flags;
use crate::telemetry::trace::TraceId;

/// The facts of one request, borrowed from whoever gathered them. Empty strings and None are written as `null`.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub start: SystemTime,
    pub listener: &'a str,
    pub downstream: Option<SocketAddr>,
    pub method: &'a [u8],
    pub authority: &'a [u8],
    /// With the query.
    pub path: &'a [u8],
    /// `HTTP/1.1`, `HTTP/2`, `TCP`.
    pub protocol: &'a str,
    /// 0 where the client went before it got one.
    pub status: u16,
    pub flags: Flags,
    pub details: &'a str,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration: Duration,
    pub upstream_first_byte: Option<Duration>,
    pub route: &'a str,
    pub service: &'a str,
    pub endpoint: Option<SocketAddr>,
    pub attempts: u32,
    pub request_id: Option<&'a [u8]>,
    pub trace_id: Option<TraceId>,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            start: UNIX_EPOCH,
            listener: "",
            downstream: None,
            method: b"",
            authority: b"",
            path: b"",
            protocol: "",
            status: 0,
            flags: Flags::NONE,
            details: "",
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream_first_byte: None,
            route: "",
            service: "",
            endpoint: None,
            attempts: 0,
            request_id: None,
            trace_id: None,
        }
    }
}

impl Record<'_> {
    /// Whether it is written whatever the sampling: refused or failed here.
    pub(super) fn is_failure(&self) -> bool {
        !self.flags.is_empty() || self.status >= 500
    }

    /// Appends `{...}` and a line's end.
    pub(super) fn format(&self, fields: &[Field], clock: &mut Clock, out: &mut Vec<u8>) {
        out.push(b'{');
        for (place, field) in fields.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(field.key().as_bytes());
            self.push_value(*field, clock, out);
        }
        out.extend_from_slice(b"}\n");
    }

    fn push_value(&self, field: Field, clock: &mut Clock, out: &mut Vec<u8>) {
        match field {
            Field::Start => clock.push(self.start, out),
            Field::Method => push_text(out, self.method),
            Field::Authority => push_text(out, self.authority),
            Field::Path => push_text(out, self.path),
            Field::Protocol => push_text(out, self.protocol.as_bytes()),
            Field::Status => push_integer(out, self.status.into()),
            Field::Flags => push_flags(out, self.flags),
            Field::Details => push_text(out, self.details.as_bytes()),
            Field::BytesIn => push_integer(out, self.bytes_in),
            Field::BytesOut => push_integer(out, self.bytes_out),
            Field::DurationMs => push_millis(out, self.duration),
            Field::UpstreamFirstByteMs => match self.upstream_first_byte {
                Some(duration) => push_millis(out, duration),
                None => push_null(out),
            },
            Field::Listener => push_text(out, self.listener.as_bytes()),
            Field::Route => push_text(out, self.route.as_bytes()),
            Field::Service => push_text(out, self.service.as_bytes()),
            Field::Endpoint => push_address(out, self.endpoint),
            Field::Attempts => push_integer(out, self.attempts.into()),
            Field::Downstream => push_address(out, self.downstream),
            Field::RequestId => push_text(out, self.request_id.unwrap_or_default()),
            Field::TraceId => match self.trace_id {
                Some(id) => push_text(out, &id.hex()),
                None => push_null(out),
            },
        }
    }
}

fn push_null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_empty() {
        push_null(out);
    } else {
        push_string(out, text);
    }
}

fn push_flags(out: &mut Vec<u8>, flags: Flags) {
    if flags.is_empty() {
        return push_null(out);
    }
    out.push(b'"');
    for (place, flag) in flags.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(flag.as_str().as_bytes());
    }
    out.push(b'"');
}

/// Digits of a v4 address by hand: the standard formatter costs more than the rest of the line.
fn push_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address {
        None => push_null(out),
        Some(SocketAddr::V4(address)) => {
            out.push(b'"');
            for (place, octet) in address.ip().octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                push_integer(out, octet.into());
            }
            out.push(b':');
            push_integer(out, address.port().into());
            out.push(b'"');
        }
        // Writing to a vector cannot fail.
        Some(address) => drop(write!(out, "\"{address}\"")),
    }
}

/// Wall-clock text; the part down to the second is kept, since most lines share it.
#[derive(Debug, Default)]
pub struct Clock {
    second: Option<u64>,
    /// `2026-08-01T12:34:56`
    text: String,
}

impl Clock {
    fn push(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            self.text = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.push(b'"');
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        push_three_digits(out, since.subsec_millis());
        out.extend_from_slice(b"Z\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::flags::Flag;
    use crate::telemetry::trace::TraceContext;

    fn line(record: &Record, fields: &[Field]) -> String {
        let mut out = Vec::new();
        record.format(fields, &mut Clock::default(), &mut out);
        String::from_utf8(out).expect("lines are UTF-8")
    }

    #[test]
    fn a_line_has_every_field_in_order() {
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let record = Record {
            start: UNIX_EPOCH + Duration::from_millis(1_785_587_696_007),
            listener: "default/edge/http",
            downstream: Some("192.0.2.200:54321".parse().expect("an address")),
            method: b"GET",
            authority: b"shop",
            path: b"/a?b=\"c\"",
            protocol: "HTTP/1.1",
            status: 503,
            flags: Flags::from(Flag::UpstreamConnectionFailure).with(Flag::RetryLimitExceeded),
            details: "connect refused",
            bytes_in: 1,
            bytes_out: 22,
            duration: Duration::from_micros(1_234_567),
            upstream_first_byte: None,
            route: "default/shop/0",
            service: "default/shop",
            endpoint: Some("[::1]:80".parse().expect("an address")),
            attempts: 2,
            request_id: None,
            trace_id: TraceContext::from_traceparent(parent).map(|context| context.trace_id),
        };
        let expected = concat!(
            r#"{"start":"2026-08-01T12:34:56.007Z","method":"GET","authority":"shop","path":"/a?b=\"c\"","#,
            r#""protocol":"HTTP/1.1","status":503,"flags":"UF,URX","details":"connect refused","bytes_in":1,"#,
            r#""bytes_out":22,"duration_ms":1234.567,"upstream_first_byte_ms":null,"listener":"default/edge/http","#,
            r#""route":"default/shop/0","service":"default/shop","endpoint":"[::1]:80","attempts":2,"#,
            r#""downstream":"192.0.2.200:54321","request_id":null,"#,
            r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
            "\n"
        );
        assert_eq!(line(&record, Field::ALL), expected);
        serde_json::from_str::<serde_json::Value>(expected).expect("JSON");
    }

    #[test]
    fn only_the_chosen_fields_are_written() {
        let record = Record {
            status: 200,
            ..Record::default()
        };
        let fields: Vec<Field> = ["status", "route"]
            .map(|name| name.parse().expect("known"))
            .into();
        assert_eq!(line(&record, &fields), "{\"status\":200,\"route\":null}\n");
        let error = "statu".parse::<Field>().expect_err("unknown");
        assert!(error.to_string().contains("there are start, method"));
    }
}
