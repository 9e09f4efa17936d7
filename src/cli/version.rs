//! `pillion version`.

use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  pillion version")]
pub struct Arguments {}

pub fn run(_: &Arguments) -> ExitCode {
    println!(
        "pillion {} ({}, {})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    );
    ExitCode::SUCCESS
}
