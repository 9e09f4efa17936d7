//! RateLimit: no more requests come through than the route allows, counted by this proxy alone.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::{RateLimit, RateLimitKey};
use crate::proxy::http::head::RequestHead;

/// Lets a request through, or says how long until another one would be. `now` is in nanoseconds.
pub fn take(
    limit: &RateLimit,
    request: &RequestHead,
    source: IpAddr,
    now: u64,
) -> Result<(), Duration> {
    match &limit.key {
        RateLimitKey::All => limit.buckets.take(now),
        RateLimitKey::Header(name) => {
            let value = request.fields.find(name.as_bytes());
            limit.buckets.take_of(value.unwrap_or_default(), now)
        }
        RateLimitKey::Source => {
            let address = source.to_canonical();
            // One customer of a provider has all addresses of a /64.
            match address {
                IpAddr::V4(address) => limit.buckets.take_of(&address.octets(), now),
                IpAddr::V6(address) => limit.buckets.take_of(&address.octets()[..8], now),
            }
        }
    }
}
