//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 the thing asked for did not hold or failed (the message says why), 2 the command line is wrong.

mod await_ready;
mod check;
mod client;
mod config;
mod demo;
mod events;
mod explain;
mod health;
mod inject;
mod intercept;
mod lanes;
mod leave;
mod proxy;
mod registry;
mod services;
mod tasks;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A service mesh in one binary: sidecar proxy, gateway and registry.
#[derive(Parser)]
#[command(
    name = "pillion",
    version,
    about,
    propagate_version = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One variant a subcommand, one file a variant; each file has an `Arguments` struct and a `run`.
#[derive(Subcommand)]
enum Command {
    /// Wait until the sidecar is there, then run a command
    Await(await_ready::Arguments),
    /// Report every problem of configuration files, with its place
    Check(check::Arguments),
    /// See a mesh at work: registry, sidecars, traffic, a canary and failures, on this machine
    Demo(demo::Arguments),
    /// The mesh documents in the registry, by revision
    Config(config::Arguments),
    /// What proxies have detected, and what they did about it
    Events(events::Arguments),
    /// Why a request goes where it goes: listener, rules, filters, endpoints
    Explain(explain::Arguments),
    /// Ask a running process whether it is ready
    Health(health::Arguments),
    /// Put sidecars beside Kubernetes pods, in files or by an admission webhook
    Inject(Box<inject::Arguments>),
    /// Redirect an application's traffic to its sidecar, or stop doing so
    Intercept(intercept::Arguments),
    /// The queues in front of a sidecar's application: who waits and what was refused
    Lanes(lanes::Arguments),
    /// Have peers stop sending to a sidecar's application while it serves on
    Leave(leave::Arguments),
    /// Run a sidecar or a gateway
    Proxy(proxy::Arguments),
    /// Run the control plane: instances, documents, watches
    Registry(registry::Arguments),
    /// List services and their instances
    Services(services::Arguments),
    /// Requests that the registry keeps until an instance has done them
    Tasks(tasks::Arguments),
    /// Print the version and how this binary was built
    Version(version::Arguments),
}

/// Parses the process's arguments and runs the chosen subcommand.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Await(arguments) => await_ready::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Intercept(arguments) => intercept::run(&arguments),
        Command::Lanes(arguments) => lanes::run(&arguments),
        Command::Leave(arguments) => leave::run(&arguments),
        Command::Proxy(arguments) => proxy::run(&arguments),
        Command::Registry(arguments) => registry::run(&arguments),
        Command::Services(arguments) => services::run(&arguments),
        Command::Tasks(arguments) => tasks::run(&arguments),
        Command::Version(arguments) => version::run(&arguments),
    }
}
