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
use tokio::task::JoinHandle;

use super::{Process, eventually, free_address};

const NAME_VARIABLE: &str = "PILLION_TEST_SERVICE";
const ADDRESS_VARIABLE: &str = "PILLION_TEST_ADDRESS";

/// An application behind the mesh: answers every request with its name (`/slow` after a while), over HTTP/1 and HTTP/2.
pub struct Service {
    pub name: String,
    pub address: SocketAddr,
    /// `/healthz` is answered with 503.
    ill: Arc<AtomicBool>,
    runs: Runs,
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
        let task = tokio::spawn(serve(listener, name.to_owned(), ill.clone()));
        Self {
            name: name.to_owned(),
            address,
            ill,
            runs: Runs::Here(task),
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
        }
    }

    /// At its address again, after it was killed.
    pub async fn start_again(&mut self, folder: &Path) {
        self.runs = Runs::Apart(process_at(&self.name, self.address, folder).await);
    }

    /// What it says of itself at `/healthz` from now on; only one that runs inside the test can be told.
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
    let listener = TcpListener::bind(address).await.expect("a free port");
    serve(listener, name, Arc::default()).await;
}

async fn serve(listener: TcpListener, name: String, ill: Arc<AtomicBool>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (name, ill) = (name.clone(), ill.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, name.clone(), ill.clone()));
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
    ill: Arc<AtomicBool>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut response = Response::new(Full::from(name));
    if request.uri().path() == "/healthz" && ill.load(Ordering::Relaxed) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}
