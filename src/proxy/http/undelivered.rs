//! What a sidecar tells the proxy that sent it a request when it answers in its application's place: whether the request
//! may have reached the application. The caller can then try another instance, as if it had not reached the sidecar either.
//!
//! The field `x-mesh-undelivered` says so. It ends at the next proxy: no application sees it, and none is believed.

use super::head::{Fields, Known, ResponseHead};
use crate::proxy::failure::Failure;

const FIELD: &[u8] = b"x-mesh-undelivered";

/// Whether a request that a sidecar could not get answered has reached its application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undelivered {
    Certainly,
    /// The connection was lost: it may have been worked on.
    Perhaps,
}

impl Undelivered {
    /// None where the request was refused for another reason than the application.
    fn of(failure: &Failure) -> Option<Self> {
        match failure {
            Failure::ConnectFailed { .. } | Failure::NoEndpoint { .. } => Some(Self::Certainly),
            Failure::UpstreamGone { .. } => Some(Self::Perhaps),
            _ => None,
        }
    }

    fn as_bytes(self) -> &'static [u8] {
        match self {
            Undelivered::Certainly => b"certainly",
            Undelivered::Perhaps => b"perhaps",
        }
    }
}

/// Says it in the answer for a failure.
pub fn say(failure: &Failure, fields: &mut Fields) {
    if let Some(undelivered) = Undelivered::of(failure) {
        fields.push(FIELD, undelivered.as_bytes());
    }
}

/// Takes it out of an answer.
pub fn take(response: &mut ResponseHead) -> Option<Undelivered> {
    let said = response.fields.get(Known::XMeshUndelivered)?;
    let undelivered = [Undelivered::Certainly, Undelivered::Perhaps]
        .into_iter()
        .find(|undelivered| undelivered.as_bytes() == said);
    response.fields.remove(Known::XMeshUndelivered);
    undelivered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::failure::ConnectError;

    #[test]
    fn what_is_said_is_taken_out_again() {
        let endpoint = || "10.0.0.1:80".to_owned();
        let error = ConnectError::Refused;
        for (failure, undelivered) in [
            (
                Failure::ConnectFailed {
                    endpoint: endpoint(),
                    error,
                },
                Some(Undelivered::Certainly),
            ),
            (
                Failure::UpstreamGone {
                    endpoint: endpoint(),
                    reset: true,
                },
                Some(Undelivered::Perhaps),
            ),
            (
                Failure::UpstreamCut {
                    endpoint: endpoint(),
                    reset: true,
                },
                None,
            ),
            (Failure::NoRoute { host: true }, None),
        ] {
            let mut head = ResponseHead::new(503);
            say(&failure, &mut head.fields);
            assert_eq!(take(&mut head), undelivered, "{failure}");
            assert!(!head.fields.contains(Known::XMeshUndelivered));
        }
        let mut forged = ResponseHead::new(200);
        forged.fields.push(FIELD, b"nonsense");
        assert_eq!(take(&mut forged), None);
        assert!(!forged.fields.contains(Known::XMeshUndelivered));
    }
}
