//! `pillion health`: the health check of a container that has no shell.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::admin;
use crate::config::defaults;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  pillion health --admin 127.0.0.1:15000\n\n\
    Exit code 0 when the process says it is ready, 1 otherwise, with the reasons on standard error.")]
pub struct Arguments {
    /// The admin address of the process to ask
    #[arg(long, env = "PILLION_ADMIN__ADDRESS", default_value_t = defaults::ADMIN_ADDRESS)]
    admin: SocketAddr,

    /// Seconds until no answer counts as not ready
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Ask again until it is ready or this many seconds have passed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
}

/// Between two questions of `--wait`.
const ASK_AGAIN: Duration = Duration::from_millis(200);

pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(ask(arguments)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match outcome {
        Ok(()) => {
            println!("ready");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

async fn ask(arguments: &Arguments) -> Result<(), String> {
    let timeout = Duration::from_secs(arguments.timeout);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(arguments.wait.unwrap_or(0));
    loop {
        match admin::probe(arguments.admin, "/ready", timeout).await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}
