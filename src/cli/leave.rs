//! `pillion leave`: the first step of an end, for a `preStop` hook in a container that has no shell.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::admin;
use crate::config::defaults;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  pillion leave --admin 127.0.0.1:15000\n\n\
    The sidecar deregisters its instances and serves on until a signal or /drain ends it. Exit code 0 when it has begun to, 1 when it \
    could not be told.")]
pub struct Arguments {
    /// The admin address of the sidecar
    #[arg(long, env = "PILLION_ADMIN__ADDRESS", default_value_t = defaults::ADMIN_ADDRESS)]
    admin: SocketAddr,
}

const TIMEOUT: Duration = Duration::from_secs(2);

pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let told = match runtime {
        Ok(runtime) => runtime.block_on(tell(arguments.admin)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match told {
        Ok(()) => {
            println!("leaving");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!(
                "pillion leave: the sidecar at {} was not told: {reason}",
                arguments.admin
            );
            ExitCode::FAILURE
        }
    }
}

async fn tell(admin: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, admin::post(admin, "/leave")).await {
        Ok(told) => told.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
    }
}
