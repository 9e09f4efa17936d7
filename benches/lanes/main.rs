//! The table by which the disciplines were chosen, from the real proxy in real time: an application behind a lane of sixteen slots,
//! one tenant with long requests against forty with short ones, each half of what is asked; and what a limit that nobody has
//! set makes of an application that can do sixteen at once and is asked for twice as much.
//!
//! `cargo bench --bench lanes [-- SECONDS] [table|adaptive]` measures each case for so long (10), after three more to get going.

mod application;
mod load;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use load::{Kind, Load, Seen, WARM};

/// Of the lane, and what the application can do at once where it limits itself.
pub const SLOTS: usize = 16;

struct Case {
    name: &'static str,
    load: f64,
    lane: &'static str,
    /// The class that the long requests say they have.
    bulk_class: Option<&'static str>,
}

const NO_FLOORS: &str = "floors: {batch: 0%, best-effort: 0%, lowest-level: 0%}";

const CASES: [Case; 11] = [
    case("fifo", 0.95, "discipline: fifo", None),
    case(
        "priority, labelled",
        0.95,
        "discipline: priority",
        Some("batch"),
    ),
    case("mlfq", 0.95, "discipline: mlfq", None),
    case("fifo", 1.3, "discipline: fifo", None),
    case(
        "priority, labelled",
        1.3,
        "discipline: priority, NO_FLOORS",
        Some("batch"),
    ),
    case("mlfq", 1.3, "discipline: mlfq", None),
    case("auto", 1.3, "discipline: auto", None),
    case("fifo", 2.2, "discipline: fifo", None),
    case(
        "priority, labelled",
        2.2,
        "discipline: priority, NO_FLOORS",
        Some("batch"),
    ),
    case("mlfq", 2.2, "discipline: mlfq", None),
    case(
        "priority, labelled, floor 15 %",
        2.2,
        "discipline: priority, floors: {batch: 15%}",
        Some("batch"),
    ),
];

const fn case(
    name: &'static str,
    load: f64,
    lane: &'static str,
    bulk_class: Option<&'static str>,
) -> Case {
    Case {
        name,
        load,
        lane,
        bulk_class,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(10));
    let only = |part: &str| arguments.iter().any(|argument| argument == part);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let app = application::start();
        if !only("adaptive") {
            table(folder.path(), app, time).await;
        }
        if !only("table") {
            adaptive(folder.path(), app, time).await;
        }
    });
}

async fn table(folder: &Path, app: SocketAddr, time: Duration) {
    println!("| load | discipline | short: done, p50, p99 | bulk: done |\n|---|---|---|---|");
    for case in &CASES {
        let lane = case.lane.replace("NO_FLOORS", NO_FLOORS);
        let lane = format!(
            "{{limit: {SLOTS}, {lane}, queue: {{max: 10000, timeout: 1s}}, tenant: {{header: x-tenant}}}}"
        );
        let sidecar = Sidecar::start(folder, app, &lane).await;
        let load = Load {
            target: sidecar.inbound,
            kinds: vec![
                Kind::new("work", 40, 20.0, case.load / 2.0, None),
                Kind::new("work", 1, 200.0, case.load / 2.0, case.bulk_class),
            ],
            warm: WARM,
        };
        let mut seen = load.run(time).await;
        let bulk = seen.pop().expect("two kinds");
        let short = seen.pop().expect("two kinds");
        println!(
            "| {:.2} | {} | {} | {:.0} % |",
            case.load,
            case.name,
            row(short),
            bulk.done_percent()
        );
    }
}

async fn adaptive(folder: &Path, app: SocketAddr, time: Duration) {
    let lane = "{limit: adaptive, queue: {timeout: 1s}}";
    let sidecar = Sidecar::start(folder, app, lane).await;
    let asked = |share: f64, warm: Duration| Load {
        target: sidecar.inbound,
        kinds: vec![Kind::new("limited", 40, 50.0, share, None)],
        warm,
    };
    let seen = asked(2.0, WARM).run(time).await.pop().expect("one kind");
    let goodput = 2.0 * seen.done_percent();
    println!(
        "\nadaptive limit at twice the capacity: goodput {goodput:.0} % of the capacity; {}\n{}",
        row(seen),
        sidecar.lanes()
    );
    // Half of what the application can do goes on all the time, and three times as much for a while besides.
    let (more, half) = (asked(1.5, WARM), asked(0.5, WARM + time + RECOVERY));
    let (_, mut after) = tokio::join!(more.run(time), half.run(AFTERWARDS));
    println!(
        "from {} s after the overload at half the capacity: {}\n{}",
        RECOVERY.as_secs(),
        row(after.pop().expect("one kind")),
        sidecar.lanes()
    );
}

/// By then, all is to be as if there had been no overload; and how long that is looked at.
const RECOVERY: Duration = Duration::from_secs(2);
const AFTERWARDS: Duration = Duration::from_secs(5);

fn row(mut seen: Seen) -> String {
    format!(
        "{:.0} %, {:.0} ms, {:.0} ms",
        seen.done_percent(),
        seen.quantile(0.5),
        seen.quantile(0.99)
    )
}

/// A `pillion proxy` in front of the application; it ends with this value.
struct Sidecar {
    process: Child,
    admin: SocketAddr,
    inbound: SocketAddr,
}

impl Sidecar {
    async fn start(folder: &Path, app: SocketAddr, lane: &str) -> Self {
        let [admin, outbound, intercepted, inbound] = [(); 4].map(|()| free_address());
        let documents = format!(
            "kind: Service\nname: app\nports: [{{port: 80, protocol: http}}]\nlane: {lane}\n"
        );
        fs::write(folder.join("mesh.yaml"), documents).expect("a file");
        let config = format!(
            "admin: {{address: \"{admin}\"}}\noutbound: {{address: \"{outbound}\"}}\ninbound: {{address: \"{intercepted}\"}}\n\
             mesh: mesh.yaml\napps: [{{service: app, port: 80, app: \"{app}\", protocol: http, listen: \"{inbound}\"}}]\n"
        );
        fs::write(folder.join("sidecar.yaml"), config).expect("a file");
        let process = Command::new(env!("CARGO_BIN_EXE_pillion"))
            .args(["proxy", "--config", "sidecar.yaml"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        let sidecar = Self {
            process,
            admin,
            inbound,
        };
        while tokio::net::TcpStream::connect(inbound).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sidecar
    }

    /// What `pillion lanes` shows.
    fn lanes(&self) -> String {
        let shown = Command::new(env!("CARGO_BIN_EXE_pillion"))
            .args(["lanes", "--admin", &self.admin.to_string()])
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&shown.stdout).into_owned()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Free a moment ago, which is enough here.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
}
