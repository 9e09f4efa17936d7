//! The demo's client: plain HTTP through its sidecar as an ordinary proxy, and a count of what came back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Clients at once, and what each waits between two requests: a few hundred requests a second in all.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub answered: BTreeMap<String, u64>,
    pub failed: u64,
    pub last_failure: Option<String>,
}

impl Tally {
    pub fn total(&self) -> u64 {
        self.answered.values().sum::<u64>() + self.failed
    }

    /// In percent of all requests.
    pub fn share(&self, instance: &str) -> f64 {
        let answered = self.answered.get(instance).copied().unwrap_or(0);
        if self.total() == 0 {
            0.0
        } else {
            answered as f64 * 100.0 / self.total() as f64
        }
    }

    /// What has come since an earlier tally of the same load.
    pub fn since(&self, before: &Tally) -> Tally {
        let earlier = |instance: &String| before.answered.get(instance).copied().unwrap_or(0);
        Tally {
            answered: self
                .answered
                .iter()
                .map(|(instance, count)| (instance.clone(), count - earlier(instance)))
                .collect(),
            failed: self.failed - before.failed,
            last_failure: self
                .last_failure
                .clone()
                .filter(|_| self.failed > before.failed),
        }
    }
}

pub struct Load {
    tally: Arc<Mutex<Tally>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(proxy: SocketAddr) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let client = |_| tokio::spawn(client(proxy, tally.clone()));
        Self {
            clients: (0..CLIENTS).map(client).collect(),
            tally,
        }
    }

    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    pub async fn stop(&mut self) {
        for client in self.clients.drain(..) {
            client.abort();
            // Ended by the line above.
            let _ = client.await;
        }
    }
}

async fn client(proxy: SocketAddr, tally: Arc<Mutex<Tally>>) {
    let mut connection = None;
    loop {
        let asked = tokio::time::timeout(TIMEOUT, ask(proxy, &mut connection)).await;
        let seen = asked.unwrap_or_else(|_| Err("no answer in 10 s".to_owned()));
        {
            let mut tally = lock(&tally);
            match seen {
                Ok(instance) => *tally.answered.entry(instance).or_default() += 1,
                Err(failure) => {
                    tally.failed += 1;
                    tally.last_failure = Some(failure);
                    connection = None;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

type Connection = http1::SendRequest<Empty<Bytes>>;

/// One request; the instance that answered it with 200.
async fn ask(proxy: SocketAddr, connection: &mut Option<Connection>) -> Result<String, String> {
    let mut sender = match connection
        .take()
        .filter(|connection| !connection.is_closed())
    {
        Some(sender) => sender,
        None => connect(proxy).await?,
    };
    let request = Request::get("http://echo/demo")
        .header("host", "echo")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    if head.status != 200 {
        let text = String::from_utf8_lossy(&body);
        return Err(format!(
            "{} {}",
            head.status,
            text.lines().next().unwrap_or_default()
        ));
    }
    *connection = Some(sender);
    let instance = head
        .headers
        .get("x-instance")
        .and_then(|name| name.to_str().ok());
    instance
        .map(str::to_owned)
        .ok_or_else(|| "an answer that is not the echo service's".to_owned())
}

async fn connect(proxy: SocketAddr) -> Result<Connection, String> {
    let stream = TcpStream::connect(proxy)
        .await
        .map_err(|error| format!("sidecar: {error}"))?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(driver);
    Ok(sender)
}

/// Counts are whole after any panic.
fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_differences_are_of_what_was_counted() {
        let before = Tally {
            answered: [("a".to_owned(), 10)].into(),
            failed: 1,
            last_failure: Some("x".into()),
        };
        let mut after = before.clone();
        after.answered.insert("b".to_owned(), 30);
        *after.answered.entry("a".to_owned()).or_default() += 10;
        let since = after.since(&before);
        assert_eq!(
            (since.total(), since.failed, since.last_failure.clone()),
            (40, 0, None)
        );
        assert_eq!(
            (since.share("a"), since.share("b"), since.share("c")),
            (25.0, 75.0, 0.0)
        );
    }
}
