//! Asking an instance's addresses whether anyone is there.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::expiry::Probe;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const AT_ONCE_MAX: usize = 64;

/// Probes many instances, each by all of its addresses; one that answers is enough.
pub async fn all<T>(targets: Vec<(T, Vec<String>)>) -> Vec<(T, Probe)> {
    let probes = targets
        .into_iter()
        .map(async |(target, addresses)| (target, one(&addresses).await));
    stream::iter(probes)
        .buffer_unordered(AT_ONCE_MAX)
        .collect()
        .await
}

async fn one(addresses: &[String]) -> Probe {
    let mut found = Probe::Silent;
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Probe::Answered,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                found = Probe::Refused
            }
            // No route, no name, no answer: it may as well be us.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_port_answers_and_a_closed_one_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().to_string();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shut = closed.local_addr().unwrap().to_string();
        drop(closed);
        let mut found = all(vec![
            ("shut", vec![shut.clone()]),
            ("either", vec![shut, open]),
        ])
        .await;
        found.sort_by_key(|(name, _)| *name);
        assert_eq!(
            found,
            [("either", Probe::Answered), ("shut", Probe::Refused)]
        );
    }
}
