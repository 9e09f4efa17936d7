//! The fields the proxy looks at, told apart once when a head is read.

/// A field the proxy looks at, or one so common that its name should not be checked byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Known {
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Trailer,
    Upgrade,
    Expect,
    KeepAlive,
    ProxyConnection,
    Http2Settings,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    XForwardedPrefix,
    XForwardedClientCert,
    XRealIp,
    Forwarded,
    Via,
    GrpcTimeout,
    GrpcStatus,
    GrpcMessage,
    GrpcRetryPushbackMs,
    XEnvoyExpectedRqTimeoutMs,
    XMeshTimeoutMs,
    XMeshAttempt,
    XMeshClass,
    XMeshShed,
    XMeshAdmit,
    XMeshUndelivered,
    XMeshExplain,
    XRequestId,
    IdempotencyKey,
    Traceparent,
    Tracestate,
    B3,
    RetryAfter,
    ContentType,
    ContentEncoding,
    ContentRange,
    Date,
    Server,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    AcceptRanges,
    Authorization,
    ProxyAuthorization,
    Cookie,
    SetCookie,
    UserAgent,
    Referer,
    Origin,
    CacheControl,
    Etag,
    LastModified,
    IfNoneMatch,
    IfModifiedSince,
    Location,
    Vary,
    Range,
    SecWebsocketKey,
    SecWebsocketAccept,
    SecWebsocketProtocol,
    ProxyStatus,
    EndpointLoadMetrics,
    EndpointLoadMetricsBin,
}

impl Known {
    /// How many there are; each has a bit in a head's mask.
    const COUNT: u32 = Known::EndpointLoadMetricsBin as u32 + 1;

    /// The field with this name, in any case; [`Known::Other`] for all the rest, also for what is no name at all.
    #[inline]
    pub fn from_name(name: &[u8]) -> Known {
        match name.len() {
            2 => pick(name, &[(b"te", Known::Te), (b"b3", Known::B3)]),
            3 => pick(name, &[(b"via", Known::Via)]),
            4 => pick(
                name,
                &[
                    (b"host", Known::Host),
                    (b"date", Known::Date),
                    (b"vary", Known::Vary),
                    (b"etag", Known::Etag),
                ],
            ),
            5 => pick(name, &[(b"range", Known::Range)]),
            6 => pick(
                name,
                &[
                    (b"accept", Known::Accept),
                    (b"server", Known::Server),
                    (b"cookie", Known::Cookie),
                    (b"expect", Known::Expect),
                    (b"origin", Known::Origin),
                ],
            ),
            7 => pick(
                name,
                &[
                    (b"upgrade", Known::Upgrade),
                    (b"trailer", Known::Trailer),
                    (b"referer", Known::Referer),
                ],
            ),
            8 => pick(name, &[(b"location", Known::Location)]),
            9 => pick(
                name,
                &[
                    (b"forwarded", Known::Forwarded),
                    (b"x-real-ip", Known::XRealIp),
                ],
            ),
            10 => pick(
                name,
                &[
                    (b"connection", Known::Connection),
                    (b"user-agent", Known::UserAgent),
                    (b"keep-alive", Known::KeepAlive),
                    (b"set-cookie", Known::SetCookie),
                    (b"tracestate", Known::Tracestate),
                ],
            ),
            11 => pick(
                name,
                &[
                    (b"traceparent", Known::Traceparent),
                    (b"grpc-status", Known::GrpcStatus),
                    (b"retry-after", Known::RetryAfter),
                    (b"x-mesh-shed", Known::XMeshShed),
                ],
            ),
            12 => pick(
                name,
                &[
                    (b"x-mesh-class", Known::XMeshClass),
                    (b"x-mesh-admit", Known::XMeshAdmit),
                    (b"content-type", Known::ContentType),
                    (b"x-request-id", Known::XRequestId),
                    (b"grpc-timeout", Known::GrpcTimeout),
                    (b"grpc-message", Known::GrpcMessage),
                    (b"proxy-status", Known::ProxyStatus),
                ],
            ),
            13 => pick(
                name,
                &[
                    (b"authorization", Known::Authorization),
                    (b"cache-control", Known::CacheControl),
                    (b"last-modified", Known::LastModified),
                    (b"if-none-match", Known::IfNoneMatch),
                    (b"accept-ranges", Known::AcceptRanges),
                    (b"content-range", Known::ContentRange),
                ],
            ),
            14 => pick(
                name,
                &[
                    (b"content-length", Known::ContentLength),
                    (b"http2-settings", Known::Http2Settings),
                    (b"x-mesh-attempt", Known::XMeshAttempt),
                    (b"x-mesh-explain", Known::XMeshExplain),
                ],
            ),
            15 => pick(
                name,
                &[
                    (b"accept-encoding", Known::AcceptEncoding),
                    (b"x-forwarded-for", Known::XForwardedFor),
                    (b"accept-language", Known::AcceptLanguage),
                    (b"idempotency-key", Known::IdempotencyKey),
                ],
            ),
            16 => pick(
                name,
                &[
                    (b"content-encoding", Known::ContentEncoding),
                    (b"proxy-connection", Known::ProxyConnection),
                    (b"x-forwarded-host", Known::XForwardedHost),
                    (b"x-forwarded-port", Known::XForwardedPort),
                ],
            ),
            17 => pick(
                name,
                &[
                    (b"transfer-encoding", Known::TransferEncoding),
                    (b"x-forwarded-proto", Known::XForwardedProto),
                    (b"if-modified-since", Known::IfModifiedSince),
                    (b"sec-websocket-key", Known::SecWebsocketKey),
                    (b"x-mesh-timeout-ms", Known::XMeshTimeoutMs),
                ],
            ),
            18 => pick(
                name,
                &[
                    (b"x-forwarded-prefix", Known::XForwardedPrefix),
                    (b"x-mesh-undelivered", Known::XMeshUndelivered),
                ],
            ),
            19 => pick(name, &[(b"proxy-authorization", Known::ProxyAuthorization)]),
            20 => pick(
                name,
                &[(b"sec-websocket-accept", Known::SecWebsocketAccept)],
            ),
            21 => pick(
                name,
                &[(b"endpoint-load-metrics", Known::EndpointLoadMetrics)],
            ),
            22 => pick(
                name,
                &[
                    (b"sec-websocket-protocol", Known::SecWebsocketProtocol),
                    (b"grpc-retry-pushback-ms", Known::GrpcRetryPushbackMs),
                ],
            ),
            23 => pick(
                name,
                &[(b"x-forwarded-client-cert", Known::XForwardedClientCert)],
            ),
            25 => pick(
                name,
                &[(b"endpoint-load-metrics-bin", Known::EndpointLoadMetricsBin)],
            ),
            30 => pick(
                name,
                &[(
                    b"x-envoy-expected-rq-timeout-ms",
                    Known::XEnvoyExpectedRqTimeoutMs,
                )],
            ),
            _ => Known::Other,
        }
    }

    /// What the proxy or an application behind it believes without asking who wrote it.
    pub fn is_trusted(self) -> bool {
        matches!(
            self,
            Known::Host
                | Known::Connection
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::XForwardedFor
                | Known::XForwardedProto
                | Known::XForwardedHost
                | Known::XForwardedPort
                | Known::XForwardedPrefix
                | Known::XForwardedClientCert
                | Known::XRealIp
                | Known::Forwarded
                | Known::XEnvoyExpectedRqTimeoutMs
                | Known::XMeshTimeoutMs
                | Known::XMeshAttempt
                | Known::XMeshClass
                | Known::XMeshShed
                | Known::XMeshAdmit
                | Known::XMeshUndelivered
                | Known::XMeshExplain
        )
    }

    /// A connection must not be able to have these removed by naming them in `Connection`.
    pub fn is_protected_from_connection(self) -> bool {
        self.is_trusted() && !matches!(self, Known::Connection | Known::Upgrade)
    }

    /// Fields that mean nothing good behind a body (RFC 9110, 6.5.1): framing, routing, credentials, payload processing.
    pub fn is_forbidden_in_trailers(self) -> bool {
        self.is_trusted()
            || matches!(
                self,
                Known::Te
                    | Known::Trailer
                    | Known::Expect
                    | Known::KeepAlive
                    | Known::ProxyConnection
                    | Known::Http2Settings
                    | Known::Authorization
                    | Known::ProxyAuthorization
                    | Known::Cookie
                    | Known::SetCookie
                    | Known::ContentType
                    | Known::ContentEncoding
                    | Known::ContentRange
                    | Known::CacheControl
                    | Known::Range
            )
    }
}

const _: () = assert!(Known::COUNT <= 128, "a head's mask has a bit for each");

/// `x_forwarded_for` and the like: many applications cannot tell them from the field with dashes.
pub fn collides_with_trusted(name: &[u8]) -> bool {
    const LONGEST: usize = 32;
    if name.len() > LONGEST || memchr::memchr(b'_', name).is_none() {
        return false;
    }
    let mut dashed = [0u8; LONGEST];
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    Known::from_name(&dashed[..name.len()]).is_trusted()
}

/// The first candidate that is this name in any case. All candidates have the name's length.
#[inline(always)]
fn pick<const N: usize, const COUNT: usize>(
    name: &[u8],
    candidates: &[(&[u8; N], Known); COUNT],
) -> Known {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return Known::Other;
    };
    for (lower, known) in candidates {
        if same(name, lower) {
            return *known;
        }
    }
    Known::Other
}

/// Letters compare without case and all else exactly; without branches, so that it becomes a few wide instructions.
#[inline(always)]
fn same<const N: usize>(name: &[u8; N], lower: &[u8; N]) -> bool {
    let mut difference = 0;
    for index in 0..N {
        let case_bit = if lower[index].is_ascii_lowercase() {
            0x20
        } else {
            0
        };
        difference |= (name[index] | case_bit) ^ lower[index];
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for name in [
            "transfer-encoding",
            "Transfer-Encoding",
            "TRANSFER-ENCODING",
        ] {
            assert_eq!(Known::from_name(name.as_bytes()), Known::TransferEncoding);
        }
        assert_eq!(Known::from_name(b"HOST"), Known::Host);
        assert_eq!(
            Known::from_name(b"X-Envoy-Expected-Rq-Timeout-Ms"),
            Known::XEnvoyExpectedRqTimeoutMs
        );
    }

    #[test]
    fn a_control_character_is_not_a_dash_in_another_case() {
        assert_eq!(Known::from_name(b"content\rlength"), Known::Other);
        assert_eq!(Known::from_name(b"b\x13"), Known::Other);
        assert_eq!(Known::from_name(b"h\x0fst"), Known::Other);
    }

    #[test]
    fn underscores_that_imitate_a_trusted_name_are_seen() {
        for name in [
            "x_forwarded_for",
            "X_Forwarded-For",
            "content_length",
            "TRANSFER_ENCODING",
        ] {
            assert!(collides_with_trusted(name.as_bytes()), "{name}");
        }
        for name in ["x-forwarded-for", "my_field", "user_agent", "_"] {
            assert!(!collides_with_trusted(name.as_bytes()), "{name}");
        }
    }
}
