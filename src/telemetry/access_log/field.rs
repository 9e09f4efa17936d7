use std::fmt;
use std::str::FromStr;

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)+) => {
        /// What a line can have.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Field { $($(#[$doc])* $field,)+ }

        impl Field {
            pub const ALL: &[Field] = &[$(Field::$field,)+];

            /// Its key in the line and in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Field::$field => $name,)+ }
            }

            /// The key as it stands in the line, with quotes and colon.
            pub(super) const fn key(self) -> &'static str {
                match self { $(Field::$field => concat!("\"", $name, "\":"),)+ }
            }
        }
    };
}

fields! {
    /// When the head was read: RFC 3339, UTC, milliseconds.
    Start = "start",
    Method = "method",
    Authority = "authority",
    /// With the query.
    Path = "path",
    Protocol = "protocol",
    Status = "status",
    Flags = "flags",
    /// Why, in words, where the proxy answered by itself.
    Details = "details",
    /// Of the request's body.
    BytesIn = "bytes_in",
    /// Of the answer's body.
    BytesOut = "bytes_out",
    /// From the request's head to the answer's last byte.
    DurationMs = "duration_ms",
    /// From the request's head to the first byte of the upstream's answer.
    UpstreamFirstByteMs = "upstream_first_byte_ms",
    Listener = "listener",
    Route = "route",
    Service = "service",
    Endpoint = "endpoint",
    Attempts = "attempts",
    /// The address of the client's connection.
    Downstream = "downstream",
    RequestId = "request_id",
    TraceId = "trace_id",
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown access log field {0:?}; there are {all}", all = AllNames)]
pub struct UnknownField(pub String);

struct AllNames;

impl fmt::Display for AllNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
        f.write_str(&names.join(", "))
    }
}

impl FromStr for Field {
    type Err = UnknownField;

    fn from_str(name: &str) -> Result<Self, UnknownField> {
        let mut all = Field::ALL.iter().copied();
        all.find(|field| field.name() == name)
            .ok_or_else(|| UnknownField(name.to_owned()))
    }
}
