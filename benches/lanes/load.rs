//! Requests that come whether or not earlier ones were answered: each kind a Poisson process of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Before anything counts.
pub const WARM: Duration = Duration::from_secs(3);

pub struct Load {
    pub target: SocketAddr,
    pub kinds: Vec<Kind>,
    /// What comes before that does not count.
    pub warm: Duration,
}

/// Requests of one kind, by several tenants.
pub struct Kind {
    /// What the application does for it.
    path: &'static str,
    tenants: u64,
    service: Duration,
    /// Between two of them, on average.
    between: Duration,
    class: Option<&'static str>,
}

impl Kind {
    /// `share` is what they ask of all slots: 1 is all that these can do.
    pub fn new(
        path: &'static str,
        tenants: u64,
        milliseconds: f64,
        share: f64,
        class: Option<&'static str>,
    ) -> Self {
        let service = Duration::from_secs_f64(milliseconds / 1e3);
        Self {
            path,
            tenants,
            service,
            between: service.div_f64(share * super::SLOTS as f64),
            class,
        }
    }
}

/// What became of one kind.
#[derive(Default)]
pub struct Seen {
    asked: usize,
    times: Vec<Duration>,
}

impl Seen {
    pub fn done_percent(&self) -> f64 {
        100.0 * self.times.len() as f64 / self.asked.max(1) as f64
    }

    /// In milliseconds, of those that were done.
    pub fn quantile(&mut self, quantile: f64) -> f64 {
        self.times.sort_unstable();
        let place = (self.times.len() as f64 * quantile) as usize;
        let time = self.times.get(place).or(self.times.last());
        time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

type Http = Client<HttpConnector, Empty<Bytes>>;

impl Load {
    /// What was seen of each kind, of those that came in this time.
    pub async fn run(&self, time: Duration) -> Vec<Seen> {
        let client: Http = Client::builder(TokioExecutor::new()).build_http();
        let begin = Instant::now();
        let kinds = self.kinds.iter().zip(1..).map(|(kind, seed)| {
            let client = client.clone();
            run(
                self.target,
                kind,
                client,
                seed,
                begin + self.warm,
                begin + self.warm + time,
            )
        });
        futures_util::future::join_all(kinds).await
    }
}

async fn run(
    target: SocketAddr,
    kind: &Kind,
    client: Http,
    seed: u64,
    from: Instant,
    until: Instant,
) -> Seen {
    let mut rng = fastrand::Rng::with_seed(seed);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut requests = JoinSet::new();
    let mut next = Instant::now();
    while next < until {
        tokio::time::sleep_until(next).await;
        let tenant = format!("{}-{}", kind.service.as_millis(), rng.u64(..kind.tenants));
        // Service times are exponential too.
        let service = exponential(kind.service, &mut rng).as_micros();
        let mut request = Request::get(format!("http://{target}/{}/{service}", kind.path))
            .header("x-tenant", tenant);
        if let Some(class) = kind.class {
            request = request.header("x-mesh-class", class);
        }
        let request = request.body(Empty::new()).expect("a valid request");
        let (client, seen, arrived) = (client.clone(), seen.clone(), next);
        requests.spawn(async move {
            let counts = arrived >= from;
            let done = ask(client, request).await;
            let mut seen = seen.lock().expect("nothing panics while it writes");
            seen.asked += usize::from(counts);
            if counts && done {
                seen.times.push(arrived.elapsed());
            }
        });
        while requests.try_join_next().is_some() {}
        next += exponential(kind.between, &mut rng);
    }
    while requests.join_next().await.is_some() {}
    std::mem::take(&mut *seen.lock().expect("nothing panics while it writes"))
}

async fn ask(client: Http, request: Request<Empty<Bytes>>) -> bool {
    let Ok(response) = client.request(request).await else {
        return false;
    };
    response.status() == 200 && response.into_body().collect().await.is_ok()
}

fn exponential(mean: Duration, rng: &mut fastrand::Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.f64()).ln())
}
