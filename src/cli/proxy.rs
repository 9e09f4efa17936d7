//! `pillion proxy`: run a sidecar or a gateway.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::proxy::{self, StartError};
use crate::config::{Problem, problem};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  pillion proxy --config sidecar.yaml\n  \
    PILLION_MESH=gateway.yaml PILLION_ADMIN__ADDRESS=127.0.0.1:15000 pillion proxy\n\n\
    Every key a.b of the file is also the environment variable PILLION_A__B.\n\
    SIGTERM drains and exits 0; SIGHUP reads the mesh documents again and reopens the access log.")]
pub struct Arguments {
    /// The bootstrap file; without one, the environment alone says what to be
    #[arg(long, short)]
    config: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let bootstrap = match proxy::read_bootstrap(arguments.config.as_deref()) {
        Ok(bootstrap) => bootstrap,
        Err(problems) => return refuse(&problems),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(proxy::run(bootstrap)),
        Err(error) => Err(StartError::Io(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Documents(problems)) => refuse(&problems),
        Err(error) => {
            eprintln!("pillion proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(problems: &[Problem]) -> ExitCode {
    eprint!(
        "{}",
        problem::render(problems, std::io::stderr().is_terminal())
    );
    ExitCode::FAILURE
}
