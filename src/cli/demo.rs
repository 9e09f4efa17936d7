//! `pillion demo`: see a mesh at work.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::app::demo;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pillion demo\n  pillion demo --once && echo every claim held\n\n\
    Exit code 0 only if every claim held."
)]
pub struct Arguments {
    /// End after the story instead of leaving the mesh up until Ctrl-C
    #[arg(long)]
    once: bool,

    /// Be the demo's application on this address
    #[arg(long, hide = true, requires = "name")]
    echo: Option<SocketAddr>,

    /// The application's name
    #[arg(long, hide = true)]
    name: Option<String>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    if let (Some(listen), Some(name)) = (arguments.echo, &arguments.name) {
        return match runtime.block_on(demo::serve_echo(listen, name)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    match runtime.block_on(demo::run(arguments.once)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("pillion demo: {error}");
    ExitCode::FAILURE
}
