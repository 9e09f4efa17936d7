//! `pillion lanes`: what stands in front of the application of a sidecar, and who waits.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::client::Output;
use crate::admin;
use crate::config::defaults;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pillion lanes\n  pillion lanes --admin 127.0.0.1:15000 --output json\n\n\
    Exit codes: 0 done, 1 the sidecar does not answer."
)]
pub struct Arguments {
    /// The admin address of the sidecar to ask
    #[arg(long, env = "PILLION_ADMIN__ADDRESS", default_value_t = defaults::ADMIN_ADDRESS)]
    admin: SocketAddr,

    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let page = match arguments.output {
        Output::Json => "/lanes?format=json",
        Output::Text => "/lanes?format=text",
    };
    let shown = match runtime {
        Ok(runtime) => runtime.block_on(admin::get(arguments.admin, page)),
        Err(error) => Err(error.into()),
    };
    match shown {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let admin = arguments.admin;
            eprintln!(
                "pillion lanes: nothing answers on {admin}: {error}; is the sidecar running, and is its admin address this one?"
            );
            ExitCode::FAILURE
        }
    }
}
