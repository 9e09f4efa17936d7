//! What keeps retries from multiplying from hop to hop: a repetition says that it is one, and a server is heard that asks
//! not to be tried again so soon.
//!
//! The field `x-mesh-attempt` marks a request that a route's retry has sent again. Whoever gets it leaves further retries to
//! whoever has marked it; connections that cannot be made still lead to another endpoint. The mark reaches the application, whose
//! own requests carry it on where it passes it on. Attempts that have replaced a connect failure or a connection that was just
//! being closed are not marked, because no application has been asked twice.

use std::time::Duration;

use super::head::{Fields, Known, ResponseHead};

const FIELD: &[u8] = b"x-mesh-attempt";

/// Who asks for a longer pause than this is not tried again.
pub const PUSHBACK_MAX: Duration = Duration::from_secs(10);

/// Somebody else repeats this request already.
pub fn is_marked(fields: &Fields) -> bool {
    fields.contains(Known::XMeshAttempt)
}

/// `attempt` counts from 1, so a repetition is at least the second.
pub fn mark(fields: &mut Fields, attempt: u32) {
    fields.set(FIELD, attempt.to_string().as_bytes());
}

/// The least wait before the request may be sent again, as its answer asks; None: not at all.
pub fn pause(response: &ResponseHead) -> Option<Duration> {
    let pause = match response.fields.get(Known::GrpcRetryPushbackMs) {
        // gRFC A6, "Pushback": what is negative, or no number, means not at all.
        Some(value) => Duration::from_millis(std::str::from_utf8(value).ok()?.parse().ok()?),
        None => retry_after(response).unwrap_or_default(),
    };
    (pause <= PUSHBACK_MAX).then_some(pause)
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); a date is not looked at.
pub fn retry_after(response: &ResponseHead) -> Option<Duration> {
    let seconds = std::str::from_utf8(response.fields.get(Known::RetryAfter)?)
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, value: &str) -> Option<u128> {
        let mut head = ResponseHead::new(503);
        head.fields.push(name.as_bytes(), value.as_bytes());
        pause(&head).map(|pause| pause.as_millis())
    }

    #[test]
    fn a_server_says_when_it_may_be_tried_again_or_that_it_must_not_be() {
        assert_eq!(asked("x-other", "1"), Some(0));
        assert_eq!(asked("Retry-After", "2"), Some(2_000));
        assert_eq!(asked("retry-after", "11"), None);
        assert_eq!(
            asked("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"),
            Some(0)
        );
        assert_eq!(asked("grpc-retry-pushback-ms", "250"), Some(250));
        for never in ["-1", "soon", "", "10001"] {
            assert_eq!(asked("grpc-retry-pushback-ms", never), None, "{never}");
        }
    }

    #[test]
    fn there_is_one_mark_and_it_counts_the_attempts() {
        let mut fields = Fields::new();
        assert!(!is_marked(&fields));
        mark(&mut fields, 2);
        mark(&mut fields, 3);
        assert!(is_marked(&fields));
        assert_eq!(
            fields.get_all(Known::XMeshAttempt).collect::<Vec<_>>(),
            [b"3"]
        );
    }
}
