//! Whether the application beside a sidecar can be reached: what its readiness and its instances' state in the registry go by.
//!
//! Each port is probed on the control thread. Until it is reachable, and after a failure, it is looked at often, so that it
//! gets traffic as soon as it can take some; one failure alone changes nothing. Probing the endpoints of other services is
//! not done here.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::InstanceState;
use crate::base::backoff::Backoff;
use crate::base::listening::is_listening;
use crate::model::{AppPort, AppProbe};
use crate::telemetry::metrics::Registry;

/// Between two probes of a port that is not reachable.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// Failures in a row after which a port that was reachable is so no longer.
const FAILURES: u32 = 2;

/// Why a port is not reachable; None when it is.
type Obstacle = Option<String>;

/// The application of one sidecar; dropping it ends the probes.
pub struct Application {
    obstacles: watch::Receiver<Vec<Obstacle>>,
    _probes: JoinSet<()>,
}

impl Application {
    /// Probes these ports from now on; what they say is known when this returns.
    pub async fn follow(apps: &[AppPort]) -> Self {
        let mut first = Vec::new();
        for app in apps {
            first.push(probe(app).await.err());
        }
        let (sender, obstacles) = watch::channel(first);
        let mut probes = JoinSet::new();
        for (index, app) in apps.iter().enumerate() {
            if app.health.probe != AppProbe::None {
                probes.spawn(follow(app.clone(), index, sender.clone()));
            }
        }
        Self {
            obstacles,
            _probes: probes,
        }
    }

    /// Whether each port can be reached, as a gauge.
    pub fn register_metrics(&self, metrics: &Registry, apps: &[AppPort]) {
        let obstacles = self.obstacles.clone();
        let ports: Vec<(String, String)> = apps
            .iter()
            .map(|app| (app.service.to_string(), app.port.to_string()))
            .collect();
        metrics.collect(move |scrape| {
            for ((service, port), obstacle) in ports.iter().zip(&*obstacles.borrow()) {
                scrape.gauge(
                    "pillion_app_reachable",
                    "1 while the application beside this sidecar can be reached at the port that serves this port of the service.",
                    &[("service", service), ("port", port)],
                    f64::from(u8::from(obstacle.is_none())),
                );
            }
        });
    }

    /// What keeps traffic from it, one line a port.
    pub fn obstacles(&self) -> impl Fn() -> Vec<String> + Send + Sync + use<> {
        let obstacles = self.obstacles.clone();
        move || obstacles.borrow().iter().flatten().cloned().collect()
    }

    /// The state of its instances.
    pub fn state(&self) -> InstanceState {
        match self.obstacles.borrow().iter().all(Option::is_none) {
            true => InstanceState::Passing,
            false => InstanceState::Critical,
        }
    }

    /// Waits until something else keeps traffic from it than before; for ever where nothing is probed.
    pub async fn changed(&mut self) {
        if self.obstacles.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn follow(app: AppPort, index: usize, obstacles: watch::Sender<Vec<Obstacle>>) {
    let mut failures = u32::from(obstacles.borrow()[index].is_some()) * FAILURES;
    loop {
        let wait = match failures {
            0 => app.health.interval,
            failures => app.health.interval.min(AGAIN.least(failures)),
        };
        tokio::time::sleep(wait).await;
        let obstacle = probe(&app).await.err();
        failures = match obstacle {
            None => 0,
            Some(_) => failures.saturating_add(1),
        };
        if failures == 0 || failures >= FAILURES {
            obstacles.send_if_modified(|all| note(&mut all[index], obstacle, &app));
        }
    }
}

/// Keeps what is said of a port; whether that is news.
fn note(known: &mut Obstacle, seen: Obstacle, app: &AppPort) -> bool {
    if *known == seen {
        return false;
    }
    match &seen {
        None => tracing::info!(service = %app.service, app = %app.app, "Application is reachable"),
        Some(reason) => {
            tracing::warn!(service = %app.service, app = %app.app, %reason, "Application")
        }
    }
    *known = seen;
    true
}

/// Looks at a port once; the error says why it is not reachable.
async fn probe(app: &AppPort) -> Result<(), String> {
    let asked = match &app.health.probe {
        AppProbe::None => return Ok(()),
        AppProbe::Listening if is_local(app.app) => return listening(app),
        AppProbe::Listening | AppProbe::Tcp => {
            tokio::time::timeout(app.health.timeout, connect(app.app))
                .await
                .map(drop_stream)
        }
        AppProbe::Http { path } => {
            tokio::time::timeout(app.health.timeout, get(app.app, path)).await
        }
    };
    let limit = app.health.timeout;
    let answered = asked.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
    answered.map_err(|reason| obstacle(app, &reason))
}

fn drop_stream(connected: Result<TcpStream, String>) -> Result<(), String> {
    connected.map(drop)
}

fn listening(app: &AppPort) -> Result<(), String> {
    match is_listening(app.app) {
        Ok(true) => Ok(()),
        Ok(false) => Err(obstacle(app, "nothing listens there")),
        Err(error) => Err(obstacle(
            app,
            &format!("cannot tell whether it listens: {error}"),
        )),
    }
}

fn obstacle(app: &AppPort, reason: &str) -> String {
    format!("application of {} at {}: {reason}", app.service, app.app)
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())
}

/// Succeeds with a status of 200 to 399; the body is not waited for.
async fn get(address: SocketAddr, path: &str) -> Result<(), String> {
    let stream = connect(address).await?;
    let said = |error: &dyn std::error::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| said(&error))?;
    let request = Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "pillion")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| said(&error))?;
    let exchange = sender.send_request(request);
    tokio::pin!(exchange);
    let answered = tokio::select! {
        answered = &mut exchange => answered,
        // The connection may end as soon as the answer is read off the wire; the answer is then at hand.
        _ = connection => exchange.await,
    };
    let status = answered.map_err(|error| said(&error))?.status();
    match status.as_u16() {
        200..400 => Ok(()),
        code => Err(format!("GET {path} was answered with {code}")),
    }
}

/// An address of this machine: others cannot be bound to.
fn is_local(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::model::{AppHealth, Name};
    use crate::telemetry::metrics::Format;

    fn app(address: SocketAddr, probe: AppProbe) -> AppPort {
        AppPort {
            service: Name::local("cart"),
            app: address,
            port: 80,
            protocol: None,
            listen: None,
            health: AppHealth {
                probe,
                interval: Duration::from_millis(20),
                timeout: Duration::from_secs(5),
            },
        }
    }

    fn gauge(metrics: &Registry) -> String {
        let text = metrics.encode(Format::Prometheus);
        let sample = "pillion_app_reachable{service=\"default/cart\",port=\"80\"}";
        let line = text.lines().find(|line| line.starts_with(sample));
        line.expect("the gauge is there").to_owned()
    }

    /// A loopback address that nothing listens on.
    fn free() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    async fn serve(status: u16) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn it_is_reachable_once_it_listens_and_no_longer_when_it_does_not() {
        for probe in [AppProbe::Listening, AppProbe::Tcp] {
            let address = free();
            let apps = [app(address, probe)];
            let mut application = Application::follow(&apps).await;
            let metrics = Registry::default();
            application.register_metrics(&metrics, &apps);
            assert_eq!(application.state(), InstanceState::Critical);
            let [reason] = &application.obstacles()()[..] else {
                panic!("one port, one reason");
            };
            assert!(reason.contains(&address.to_string()), "{reason}");
            let listener = TcpListener::bind(address).unwrap();
            application.changed().await;
            assert_eq!(application.state(), InstanceState::Passing);
            assert!(application.obstacles()().is_empty());
            assert!(gauge(&metrics).ends_with(" 1"), "{}", gauge(&metrics));
            drop(listener);
            application.changed().await;
            assert_eq!(application.state(), InstanceState::Critical);
            assert!(gauge(&metrics).ends_with(" 0"), "{}", gauge(&metrics));
        }
    }

    #[tokio::test]
    async fn the_answer_to_a_get_decides() {
        let path = || AppProbe::Http {
            path: "/healthz".into(),
        };
        for (status, state) in [
            (200, InstanceState::Passing),
            (302, InstanceState::Passing),
            (404, InstanceState::Critical),
            (503, InstanceState::Critical),
        ] {
            let address = serve(status).await;
            let application = Application::follow(&[app(address, path())]).await;
            assert_eq!(application.state(), state, "{status}");
        }
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut app = app(silent.local_addr().unwrap(), path());
        app.health.timeout = Duration::from_millis(50);
        let application = Application::follow(&[app]).await;
        assert!(application.obstacles()()[0].contains("no answer within 50ms"));
    }

    #[tokio::test]
    async fn one_port_that_is_not_reachable_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reachable = app(listener.local_addr().unwrap(), AppProbe::Listening);
        let ignored = app(free(), AppProbe::None);
        let both = [reachable.clone(), ignored.clone()];
        assert_eq!(
            Application::follow(&both).await.state(),
            InstanceState::Passing
        );
        let other = app(free(), AppProbe::Listening);
        let application = Application::follow(&[reachable, other]).await;
        assert_eq!(application.state(), InstanceState::Critical);
    }
}
