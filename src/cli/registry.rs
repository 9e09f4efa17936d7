//! `pillion registry`: the control plane as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::registry::RegistryProcess;
use crate::config::{Problem, RegistryBootstrap, problem};
use crate::telemetry::log;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  pillion registry --data /var/lib/pillion
  pillion registry --config registry.yaml
  curl http://127.0.0.1:15010/v1/status

Every key `a.b` of the file is also the variable PILLION_A__B. Beyond loopback it needs `tls` and `token_file`, or `insecure: true`.

Exit codes: 0 stopped by a signal, 1 it could not start or its store failed.")]
pub struct Arguments {
    /// registry.yaml; everything in it has a default
    #[arg(long, value_name = "FILE", env = "PILLION_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen, over what the file says; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<SocketAddr>,
    /// The folder of the store, over what the file says
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let bootstrap = match read(arguments) {
        Ok(bootstrap) => bootstrap,
        Err(problems) => {
            eprint!("{}", problem::render(&problems, false));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = log::install(&bootstrap.log.level, bootstrap.log.format) {
        return fail(&error);
    }
    // One thread is enough, and small; blocking work is name resolution and little else.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(&bootstrap)),
        Err(error) => fail(&error),
    }
}

fn read(arguments: &Arguments) -> Result<RegistryBootstrap, Vec<Problem>> {
    // The flags are variables that come last, so that what they change is checked with the rest.
    let flags = [
        arguments
            .address
            .map(|address| ("PILLION_ADDRESS".to_owned(), address.to_string())),
        arguments
            .data
            .as_ref()
            .map(|data| ("PILLION_DATA".to_owned(), data.display().to_string())),
    ];
    let flags: Vec<(String, String)> = flags.into_iter().flatten().collect();
    let overridden = |name: &str| flags.iter().any(|(flag, _)| flag == name);
    let variables: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| !overridden(name) && !super::client::is_client_variable(name))
        .chain(flags.clone())
        .collect();
    RegistryBootstrap::read(arguments.config.as_deref(), variables)
}

async fn serve(bootstrap: &RegistryBootstrap) -> ExitCode {
    let process = match RegistryProcess::open(bootstrap).await {
        Ok(process) => process,
        Err(error) => return fail(&error),
    };
    println!("{}", process.greeting());
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return fail(&"signals cannot be received");
    };
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("Stopping");
    };
    match process.run(stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("pillion registry: {error}");
    ExitCode::FAILURE
}
