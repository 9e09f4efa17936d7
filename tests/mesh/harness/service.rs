use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Process, eventually, free_address};

const NAME_VARIABLE: &str = "PILLION_TEST_SERVICE";
const ADDRESS_VARIABLE: &str = "PILLION_TEST_ADDRESS";

/// An application behind the mesh: answers every request with its name, over HTTP/1 and HTTP/2. `/slow` takes a while, `/work/40`
/// takes 40 ms, and `/hold` takes until [`Service::release`].
pub struct Service {
    pub name: String,
    pub address: SocketAddr,
    /// `/healthz` and `/hold` are answered with 503.
    ill: Arc<AtomicBool>,
    runs: Runs,
    released: watch::Sender<bool>,
}

enum Runs {
    Here(JoinHandle<()>),
    Apart(Process),
}

impl Service {
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
        };
        let task = tokio::spawn(serve(listener, name.to_owned(), mood));
        Self {
            name: name.to_owned(),
            address,
            ill,
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
    let ill = Arc::default();
    let listener = TcpListener::bind(address).await.expect("a free port");
    serve(listener, name, Mood { ill, holds }).await;
}

/// How a service answers, as its scenario says.
#[derive(Clone)]
struct Mood {
    /// `/healthz` and `/hold` are answered with 503.
    ill: Arc<AtomicBool>,
    /// `/hold` is answered once this is true.
    holds: watch::Receiver<bool>,
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
    let mut response = Response::new(Full::from(name));
    if matches!(request.uri().path(), "/healthz" | "/hold") && mood.ill.load(Ordering::Relaxed) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}
