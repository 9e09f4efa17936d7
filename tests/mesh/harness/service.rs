use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Client, Process, Target, eventually, free_address};

const NAME_VARIABLE: &str = "PILLION_TEST_SERVICE";
const ADDRESS_VARIABLE: &str = "PILLION_TEST_ADDRESS";

/// An application behind the mesh: answers every request with its name, over HTTP/1 and HTTP/2. `/slow` takes a while, `/work/40`
/// takes 40 ms, and `/hold` takes until [`Service::release`]. `/busy` says that it is at its limit. A request with `x-echo` is answered
/// with itself: method and target, then a line for each field, then its body.
pub struct Service {
    pub name: String,
    pub address: SocketAddr,
    /// `/healthz` and `/hold` are answered with 503.
    ill: Arc<AtomicBool>,
    /// Everything is answered with 503.
    failing: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    echoed: Arc<Mutex<String>>,
    relay: Arc<OnceLock<Relay>>,
    runs: Runs,
    released: watch::Sender<bool>,
}

enum Runs {
    Here(JoinHandle<()>),
    Apart(Process),
}

impl Service {
    /// What it says of its load at `/busy`, in `endpoint-load-metrics`.
    pub const BUSY: &str = "TEXT application_utilization=1.0,named_metrics.mood=7";

    /// In this process.
    pub async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let ill = Arc::new(AtomicBool::new(false));
        let (released, holds) = watch::channel(false);
        let mood = Mood {
            ill: ill.clone(),
            holds,
            ..Mood::default()
        };
        let (failing, asked) = (mood.failing.clone(), mood.asked.clone());
        let echoed = mood.echoed.clone();
        let relay = mood.relay.clone();
        let task = tokio::spawn(serve(listener, name.to_owned(), mood));
        Self {
            name: name.to_owned(),
            address,
            ill,
            failing,
            asked,
            echoed,
            relay,
            runs: Runs::Here(task),
            released,
        }
    }

    /// In a process of its own, which can be killed.
    pub async fn spawn(name: &str, folder: &Path) -> Self {
        let address = free_address();
        let runs = Runs::Apart(process_at(name, address, folder).await);
        Self {
            name: name.to_owned(),
            address,
            ill: Arc::default(),
            failing: Arc::default(),
            asked: Arc::default(),
            echoed: Arc::default(),
            relay: Arc::default(),
            runs,
            released: watch::channel(false).0,
        }
    }

    /// Requests for `/hold` are answered from now on; only one in this process can be told.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// At its address again, after it was killed.
    pub async fn start_again(&mut self, folder: &Path) {
        self.runs = Runs::Apart(process_at(&self.name, self.address, folder).await);
    }

    /// What it says of itself at `/healthz`, and at `/hold`, from now on; only one that runs inside the test can be told.
    pub fn is_ill(&self, ill: bool) {
        self.ill.store(ill, Ordering::Relaxed);
    }

    /// Whether everything is answered with 503 from now on; only one that runs inside the test can be told.
    pub fn fails(&self, fails: bool) {
        self.failing.store(fails, Ordering::Relaxed);
    }

    /// How many requests it has got; only one that runs inside the test tells.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// The last request with `x-echo`, as it was answered; only one that runs inside the test tells.
    pub fn echoed(&self) -> String {
        let echoed = self.echoed.lock();
        echoed.expect("nothing panics while it is held").clone()
    }

    /// It answers what this one answers from now on, and passes on or not what the mesh has added to a request; only one that runs
    /// inside the test can be told.
    pub fn relays_to(&self, target: Target, passes_on: bool) {
        let clients = Mutex::default();
        let relay = Relay {
            target,
            passes_on,
            clients,
        };
        assert!(self.relay.set(relay).is_ok(), "it has been told before");
    }

    /// Whether it stands still (SIGSTOP, SIGCONT); only one that was spawned has a process that can.
    pub fn stands_still(&self, still: bool) {
        match &self.runs {
            Runs::Apart(process) => {
                process.signal(if still { libc::SIGSTOP } else { libc::SIGCONT })
            }
            Runs::Here(_) => panic!("{} runs inside the test", self.name),
        }
    }

    /// `kill -9`; only one that was spawned has a process to kill.
    pub fn kill(&mut self) {
        match &mut self.runs {
            Runs::Apart(process) => process.kill(),
            Runs::Here(_) => panic!("{} runs inside the test", self.name),
        }
    }
}

async fn process_at(name: &str, address: SocketAddr, folder: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("this test binary"));
    command
        .args([
            "--exact",
            "harness::service::a_service_in_a_process_of_its_own",
            "--nocapture",
        ])
        .env(NAME_VARIABLE, name)
        .env(ADDRESS_VARIABLE, address.to_string());
    let mut process = Process::spawn(name, &mut command, folder);
    eventually("the service listens", async || {
        process.expect_running();
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
    process
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Runs::Here(task) = &self.runs {
            task.abort();
        }
    }
}

/// Not a scenario: the body of the process that [`Service::spawn`] starts; without its variables it has nothing to do.
#[tokio::test]
async fn a_service_in_a_process_of_its_own() {
    let (Ok(name), Ok(address)) = (
        std::env::var(NAME_VARIABLE),
        std::env::var(ADDRESS_VARIABLE),
    ) else {
        return;
    };
    let (_released, holds) = watch::channel(false);
    let listener = TcpListener::bind(address).await.expect("a free port");
    let mood = Mood {
        holds,
        ..Mood::default()
    };
    serve(listener, name, mood).await;
}

/// How a service answers, as its scenario says.
#[derive(Clone)]
struct Mood {
    /// Everything is answered with 503.
    failing: Arc<AtomicBool>,
    /// Requests that have come.
    asked: Arc<AtomicUsize>,
    /// The last request that was answered with itself.
    echoed: Arc<Mutex<String>>,
    /// Everything is asked of another service.
    relay: Arc<OnceLock<Relay>>,
    /// `/healthz` and `/hold` are answered with 503.
    ill: Arc<AtomicBool>,
    /// `/hold` is answered once this is true.
    holds: watch::Receiver<bool>,
}

impl Default for Mood {
    fn default() -> Self {
        Self {
            failing: Arc::default(),
            asked: Arc::default(),
            echoed: Arc::default(),
            relay: Arc::default(),
            ill: Arc::default(),
            holds: watch::channel(false).1,
        }
    }
}

/// How an application asks another one.
struct Relay {
    target: Target,
    passes_on: bool,
    /// Those that nobody uses just now.
    clients: Mutex<Vec<Client>>,
}

impl Relay {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let added = request.headers().iter().filter_map(|(name, value)| {
            let name_of_mesh = name.as_str().starts_with("x-mesh-") || name == "baggage";
            let added = self.passes_on && name_of_mesh;
            added.then_some((name.as_str(), value.to_str().ok()?))
        });
        let added: Vec<_> = added.collect();
        let idle = self.clients().pop();
        let mut client = idle.unwrap_or_else(|| Client::new(self.target.clone()));
        let asked = client.get_with(request.uri().path(), &added).await;
        self.clients().push(client);
        let (status, body) = match asked {
            Ok(answer) => (answer.status, answer.body),
            Err(error) => (502, error),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status of HTTP");
        response
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients
            .lock()
            .expect("nothing panics while it is held")
    }
}

async fn serve(listener: TcpListener, name: String, mood: Mood) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (name, mood) = (name.clone(), mood.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, name.clone(), mood.clone()));
            // How a connection ends is the proxy's business.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    name: String,
    mut mood: Mood,
) -> Result<Response<Full<Bytes>>, Infallible> {
    match request.uri().path() {
        "/slow" => tokio::time::sleep(Duration::from_millis(500)).await,
        "/hold" => {
            // It ends without a release when the scenario does.
            let _ = mood.holds.wait_for(|released| *released).await;
        }
        path => {
            let work = path.strip_prefix("/work/");
            if let Some(milliseconds) = work.and_then(|work| work.parse().ok()) {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            }
        }
    }
    mood.asked.fetch_add(1, Ordering::Relaxed);
    if let Some(relay) = mood.relay.get() {
        return Ok(relay.answer(&request).await);
    }
    let (path, echoes) = (
        request.uri().path().to_owned(),
        request.headers().contains_key("x-echo"),
    );
    let body = match echoes {
        true => as_text(request).await,
        false => name,
    };
    if echoes {
        let mut echoed = mood.echoed.lock().expect("nothing panics while it is held");
        echoed.clone_from(&body);
    }
    let mut response = Response::new(Full::from(body));
    if path == "/busy" {
        let says = HeaderValue::from_static(Service::BUSY);
        response.headers_mut().insert("endpoint-load-metrics", says);
    }
    let ill = matches!(&*path, "/healthz" | "/hold");
    if ill && mood.ill.load(Ordering::Relaxed) || mood.failing.load(Ordering::Relaxed) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

async fn as_text(request: Request<Incoming>) -> String {
    let fields = request.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        format!("{name}: {value}\n")
    });
    let fields: String = fields.collect();
    let head = format!("{} {}\n{fields}", request.method(), request.uri());
    let body = request.into_body().collect().await;
    let body = body.map_or_else(|error| error.to_string().into(), Collected::to_bytes);
    head + &String::from_utf8_lossy(&body)
}
