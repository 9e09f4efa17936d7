//! `pillion inject`: sidecars beside Kubernetes pods, in files and by an admission webhook.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::webhook::Webhook;
use crate::config::{Problem, problem};
use crate::inject::{Injection, Settings, Style, init_image_of, inject_text};
use crate::model::{Certificate, Pem};
use crate::telemetry::log;

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  pillion inject app.yaml | kubectl apply -f -
  kustomize build overlay | pillion inject --image registry.example.com/pillion:0.1.0 - > injected.yaml
  pillion inject --style plain app.yaml | podman kube play -
  pillion inject serve --cert tls.crt --key tls.key

Pods, and templates of pods, with the label `pillion.dev/inject: enabled` get a sidecar; injecting again changes nothing. Their \
annotations may say more: pillion.dev/service (else the label app.kubernetes.io/name, the label app, or the first container's name), \
pillion.dev/ports (PORT[:APP_PORT][/PROTOCOL],... else the containers' TCP ports), pillion.dev/exclude-inbound-ports, \
pillion.dev/exclude-outbound-ports, pillion.dev/exclude-outbound-cidrs.

Documents that get no sidecar are passed on to the letter; in the others, comments stay only above the first line.

Exit codes: 0 done, 1 something in the files is wrong (nothing is printed then), or the webhook could not start."
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Kubernetes YAML, files or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    sidecar: Sidecar,
}

#[derive(Subcommand)]
enum Action {
    /// Answer a Kubernetes API server, so that pods get their sidecar when they are created
    #[command(after_help = "Example:
  pillion inject serve --cert /run/secrets/webhook/tls.crt --key /run/secrets/webhook/tls.key --registry https://pillion-registry.pillion:15010

POST /mutate takes AdmissionReviews, GET /healthz says that it runs; both over TLS. Renewed certificates are used within a second.")]
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// The certificate and those it is signed by (PEM), for the Service's name
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    sidecar: Sidecar,
}

/// What all sidecars have in common.
#[derive(clap::Args)]
struct Sidecar {
    /// The sidecar's image
    #[arg(long, default_value = concat!("pillion:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The image with nft, for the redirect rules [default: the image with -init after its name]
    #[arg(long, value_name = "IMAGE")]
    init_image: Option<String>,
    /// The registry, as pods reach it
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://pillion-registry.pillion:15010"
    )]
    registry: String,
    /// A Secret in the pod's namespace with `token` and `ca.crt` of the registry; "" where it needs none
    #[arg(long, value_name = "NAME", default_value = "pillion-registry-client")]
    registry_secret: String,
    /// How the sidecar stands in the pod
    #[arg(long, value_enum, default_value_t = Style::Native)]
    style: Style,
    /// CPU that is set aside for the sidecar
    #[arg(long, value_name = "QUANTITY", default_value = "10m")]
    cpu_request: String,
    /// Memory that is set aside for the sidecar
    #[arg(long, value_name = "QUANTITY", default_value = "32Mi")]
    memory_request: String,
    /// Memory that the sidecar may use
    #[arg(long, value_name = "QUANTITY", default_value = "256Mi")]
    memory_limit: String,
}

impl Sidecar {
    fn settings(&self) -> Settings {
        let init_image = self.init_image.clone();
        Settings {
            image: self.image.clone(),
            init_image: init_image.unwrap_or_else(|| init_image_of(&self.image)),
            registry: self.registry.clone(),
            registry_secret: Some(self.registry_secret.clone()).filter(|name| !name.is_empty()),
            style: self.style,
            cpu_request: self.cpu_request.clone(),
            memory_request: self.memory_request.clone(),
            memory_limit: self.memory_limit.clone(),
        }
    }
}

pub fn run(arguments: &Arguments) -> ExitCode {
    match &arguments.action {
        Some(Action::Serve(serve)) => self::serve(serve),
        None => inject(&arguments.files, &arguments.sidecar.settings()),
    }
}

fn inject(files: &[PathBuf], settings: &Settings) -> ExitCode {
    let mut texts = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match inject_file(file, settings) {
            Ok(injection) => {
                report(&injection);
                texts.push(injection.text);
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        print!("{}", texts.join("---\n"));
        return ExitCode::SUCCESS;
    }
    eprint!("{}", problem::render(&problems, false));
    ExitCode::FAILURE
}

fn inject_file(file: &Path, settings: &Settings) -> Result<Injection, Vec<Problem>> {
    let (name, text) = match file.to_str() {
        Some("-") => ("standard input".to_owned(), io::read_to_string(io::stdin())),
        _ => (file.display().to_string(), std::fs::read_to_string(file)),
    };
    match text {
        Ok(text) => inject_text(&name, &text, settings),
        Err(error) => {
            let message = format!("cannot be read: {error}");
            Err(vec![Problem::of_file(name, message, "check the path")])
        }
    }
}

/// What was done goes to standard error: standard output is the file.
fn report(injection: &Injection) {
    if injection.workloads.is_empty() {
        eprintln!("pillion inject: no pods in it");
    }
    for workload in &injection.workloads {
        match workload.left {
            None => eprintln!("{}: with a sidecar", workload.name),
            Some(left) => eprintln!("{}: as it was, {left}", workload.name),
        }
    }
}

fn serve(arguments: &Serve) -> ExitCode {
    if let Err(error) = log::install("info", log::Format::Text) {
        return fail(&error);
    }
    // One thread is enough: an answer takes a fraction of a millisecond.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run_webhook(arguments)),
        Err(error) => fail(&error),
    }
}

async fn run_webhook(arguments: &Serve) -> ExitCode {
    let certificate = Certificate {
        chain: Pem::File(arguments.cert.clone()),
        key: Pem::File(arguments.key.clone()),
    };
    let settings = arguments.sidecar.settings();
    let webhook = match Webhook::open(arguments.listen, certificate, settings).await {
        Ok(webhook) => webhook,
        Err(error) => return fail(&error),
    };
    println!("pillion inject: webhook on https://{}", webhook.address());
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return fail(&"signals cannot be received");
    };
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("Stopping");
    };
    webhook.run(stop).await;
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("pillion inject: {error}");
    ExitCode::FAILURE
}
