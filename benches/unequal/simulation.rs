//! The simulation itself: arrivals, endpoints with slots and a queue, and proxies with real clusters.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use pillion::load::orca;
use pillion::model::{
    Address, Balance, Circuit, ClusterKey, Endpoint, Name, Outlier, Policy, Service,
};
use pillion::proxy::cluster::{Cluster, Lease, Outcome};
use tokio::time::Instant;

const PROXIES: usize = 50;
const ENDPOINTS: usize = 20;
/// How long a request holds a slot on average.
const FAST: f64 = 0.010;
const SLOTS: usize = 8;
/// Before it is looked at.
const WARM_UP: Duration = Duration::from_secs(15);
/// How long of that little is asked, until reports count: what queues up before would be measured instead of the policy.
const CALM: Duration = Duration::from_secs(12);
const CALM_LOAD: f64 = 0.2;

/// A time since the begin, in nanoseconds.
type Nanos = u64;

/// Who says where a request goes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Chooser {
    Policy(Policy),
    /// Knows every queue and every speed.
    Best,
}

pub struct Case {
    pub chooser: Chooser,
    /// Requests that come, as a share of what all endpoints together can do.
    pub load: f64,
    /// Between two reports.
    pub reports: Duration,
    /// How long it is looked at.
    pub length: Duration,
}

/// Times of requests, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub p50: f64,
    pub p99: f64,
}

/// How much slower than the fast ones an endpoint is.
fn slowness(endpoint: usize) -> f64 {
    match endpoint {
        0..10 => 1.0,
        10..19 => 2.0,
        _ => 5.0,
    }
}

struct Request {
    proxy: usize,
    lease: Option<Lease>,
    arrived: Nanos,
}

#[derive(Default)]
struct Server {
    serving: usize,
    queue: VecDeque<Request>,
    /// Nanoseconds of slots in use, and answers, since the last report.
    busy: u64,
    done: u64,
    since: Nanos,
    report: Option<(u64, orca::Report)>,
    told: Vec<u64>,
}

/// What happens next; of those at one time, in the order in which they were planned.
enum Event {
    Arrival,
    Answer { endpoint: usize, request: Request },
    Report,
}

/// Events by their time.
struct Agenda {
    times: BinaryHeap<Reverse<(Nanos, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
}

impl Agenda {
    fn plan(&mut self, at: Nanos, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.times.push(Reverse((at, place)));
    }

    fn next(&mut self) -> Option<(Nanos, Event)> {
        let Reverse((at, place)) = self.times.pop()?;
        self.free.push(place);
        Some((at, self.events[place].take()?))
    }
}

struct Scene {
    case: Case,
    clusters: Vec<Arc<Cluster>>,
    servers: Vec<Server>,
    agenda: Agenda,
    rng: fastrand::Rng,
    began: Instant,
    /// What all endpoints together can do, in requests a second.
    can: f64,
    times: Vec<f64>,
}

impl Case {
    pub fn run(self, seed: u64) -> Figures {
        let can: f64 = (0..ENDPOINTS)
            .map(|n| SLOTS as f64 / (FAST * slowness(n)))
            .sum();
        let policy = match self.chooser {
            Chooser::Policy(policy) => policy,
            Chooser::Best => Policy::RoundRobin,
        };
        let mut scene = Scene {
            clusters: (0..PROXIES).map(|_| cluster(policy)).collect(),
            servers: (0..ENDPOINTS)
                .map(|_| Server {
                    told: vec![0; PROXIES],
                    ..Server::default()
                })
                .collect(),
            agenda: Agenda {
                times: BinaryHeap::new(),
                events: Vec::new(),
                free: Vec::new(),
            },
            rng: fastrand::Rng::with_seed(seed),
            began: Instant::now(),
            can,
            times: Vec::new(),
            case: self,
        };
        scene.run();
        scene.times.sort_by(f64::total_cmp);
        let at = |share: f64| scene.times[(scene.times.len() as f64 * share) as usize] * 1e3;
        Figures {
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}

impl Scene {
    fn run(&mut self) {
        let end = nanos(WARM_UP + self.case.length);
        self.agenda.plan(0, Event::Arrival);
        self.agenda.plan(nanos(self.case.reports), Event::Report);
        while let Some((now, event)) = self.agenda.next() {
            match event {
                Event::Arrival if now < end => {
                    let gap = self.gap(now);
                    self.agenda.plan(now + gap, Event::Arrival);
                    self.arrive(now);
                }
                Event::Arrival => {}
                Event::Answer { endpoint, request } => self.answer(endpoint, request, now),
                Event::Report if now < end => {
                    self.report(now);
                    self.agenda
                        .plan(now + nanos(self.case.reports), Event::Report);
                }
                Event::Report => {}
            }
        }
    }

    fn arrive(&mut self, now: Nanos) {
        let proxy = self.rng.usize(..PROXIES);
        let (endpoint, lease) = match self.case.chooser {
            Chooser::Best => (self.best(), None),
            Chooser::Policy(_) => {
                let at = self.instant(now);
                let picked = self.clusters[proxy].pick(&[], at, &mut self.rng);
                let lease = picked.expect("nobody is ever out");
                let endpoint = usize::from(lease.endpoint().address.port()) - 1;
                (endpoint, Some(lease))
            }
        };
        let request = Request {
            proxy,
            lease,
            arrived: now,
        };
        if self.servers[endpoint].serving < SLOTS {
            self.serve(endpoint, request, now);
        } else {
            self.servers[endpoint].queue.push_back(request);
        }
    }

    fn serve(&mut self, endpoint: usize, request: Request, now: Nanos) {
        let takes = self.exponential(FAST * slowness(endpoint));
        let server = &mut self.servers[endpoint];
        server.serving += 1;
        server.busy += takes;
        self.agenda
            .plan(now + takes, Event::Answer { endpoint, request });
    }

    fn answer(&mut self, endpoint: usize, request: Request, now: Nanos) {
        let took = Duration::from_nanos(now - request.arrived);
        if request.arrived >= nanos(WARM_UP) {
            self.times.push(took.as_secs_f64());
        }
        let at = self.instant(now);
        let server = &mut self.servers[endpoint];
        server.serving -= 1;
        server.done += 1;
        if let Some(lease) = request.lease {
            if let Some((version, report)) = &server.report
                && server.told[request.proxy] < *version
            {
                server.told[request.proxy] = *version;
                lease.endpoint().reported(report, at);
            }
            lease.settle(Outcome::Success, took, at);
        }
        if let Some(next) = self.servers[endpoint].queue.pop_front() {
            self.serve(endpoint, next, now);
        }
    }

    /// Each endpoint makes its report, and each proxy weighs anew what it has heard so far.
    fn report(&mut self, now: Nanos) {
        for server in &mut self.servers {
            let nanos = (now - server.since) as f64;
            let version = server.report.map_or(0, |(version, _)| version) + 1;
            let report = orca::Report {
                application: Some((server.busy as f64 / nanos / SLOTS as f64).min(1.0)),
                rps: Some(server.done as f64 * 1e9 / nanos),
                eps: Some(0.0),
                ..orca::Report::default()
            };
            server.report = Some((version, report));
            (server.busy, server.done, server.since) = (0, 0, now);
        }
        let at = self.instant(now);
        self.clusters.iter().for_each(|cluster| cluster.reweigh(at));
    }

    /// Until the next arrival.
    fn gap(&mut self, now: Nanos) -> Nanos {
        let load = if now < nanos(CALM) {
            CALM_LOAD
        } else {
            self.case.load
        };
        self.exponential(1.0 / (self.can * load))
    }

    /// Where the next request would be done first.
    fn best(&self) -> usize {
        let expected = |endpoint: usize| {
            let server = &self.servers[endpoint];
            let before = (server.serving + server.queue.len() + 1).saturating_sub(SLOTS);
            (1.0 + before as f64 / SLOTS as f64) * slowness(endpoint)
        };
        let all = (0..ENDPOINTS).map(|endpoint| (expected(endpoint), endpoint));
        all.min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(0, |(_, endpoint)| endpoint)
    }

    fn exponential(&mut self, mean: f64) -> Nanos {
        (-(1.0 - self.rng.f64()).ln() * mean * 1e9) as Nanos
    }

    fn instant(&self, now: Nanos) -> Instant {
        self.began + Duration::from_nanos(now)
    }
}

fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

/// Without limits and ejections, so that only the policy is seen.
fn cluster(policy: Policy) -> Arc<Cluster> {
    let service = Service {
        balance: Balance {
            policy,
            ..Balance::default()
        },
        outlier: Outlier::none(),
        circuit: Circuit {
            requests_max: u32::MAX,
            ..Circuit::default()
        },
        ..Service::new(Name::local("bench"))
    };
    let key = ClusterKey {
        service: service.name.clone(),
        subset: None,
        port: None,
    };
    let cluster = Cluster::new(key, &Arc::new(service), None);
    cluster.set_endpoints((0..ENDPOINTS).map(endpoint).collect());
    cluster
}

fn endpoint(number: usize) -> Endpoint {
    Endpoint::new(Address::Socket(
        (Ipv4Addr::LOCALHOST, number as u16 + 1).into(),
    ))
}
