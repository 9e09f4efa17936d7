//! `pillion await`: an application that starts once its sidecar is there, and takes it along when it ends.

use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::admin;
use crate::config::defaults;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    pillion await -- node server.js             the process becomes node once the sidecar is there\n  \
    pillion await --quit -- python nightly.py   a job: the sidecar ends when python has ended\n  \
    pillion await --timeout 10                  only waits\n\n\
    It waits for /started of the sidecar's admin listener, which does not depend on the application. Exit code: the command's own \
    (128 and the signal's number where a signal ended it); 1 when the sidecar was not there in time, or the command cannot be run.")]
pub struct Arguments {
    /// The admin address of the sidecar
    #[arg(long, env = "PILLION_ADMIN__ADDRESS", default_value_t = defaults::ADMIN_ADDRESS)]
    admin: SocketAddr,

    /// Seconds to wait for the sidecar at most
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,

    /// Tell the sidecar to end once the command has ended
    #[arg(long, requires = "command")]
    quit: bool,

    /// The command to run then, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime
            .block_on(wait(arguments))
            .and_then(|()| match arguments.quit {
                true => runtime.block_on(run_and_quit(arguments)),
                false => become_command(&arguments.command),
            }),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    outcome.unwrap_or_else(|reason| {
        eprintln!("pillion await: {reason}");
        ExitCode::FAILURE
    })
}

/// Until the sidecar can carry traffic.
async fn wait(arguments: &Arguments) -> Result<(), String> {
    let limit = Duration::from_secs(arguments.timeout);
    let deadline = Instant::now() + limit;
    loop {
        match admin::probe(arguments.admin, "/started", ANSWER).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!(
                    "the sidecar was not there within {limit:?}: {error}"
                ));
            }
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// Returns only where there is no command, or it cannot be run.
fn become_command(command: &[String]) -> Result<ExitCode, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(ExitCode::SUCCESS);
    };
    let error = Command::new(program).args(arguments).exec();
    Err(format!("{program}: {error}"))
}

/// Runs the command as a child that gets the signals sent to us, then tells the sidecar that it is no longer needed.
async fn run_and_quit(arguments: &Arguments) -> Result<ExitCode, String> {
    let [program, rest @ ..] = &arguments.command[..] else {
        return Ok(ExitCode::SUCCESS);
    };
    let run = run_child(program, rest).await;
    if let Err(error) = admin::post(arguments.admin, "/quit").await {
        eprintln!(
            "pillion await: the sidecar at {} was not told to end: {error}",
            arguments.admin
        );
    }
    let status = run.map_err(|error| format!("{program}: {error}"))?;
    Ok(ExitCode::from(code(status)))
}

async fn run_child(program: &str, arguments: &[String]) -> std::io::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .spawn()?;
    loop {
        let signal = tokio::select! {
            status = child.wait() => return status,
            _ = terminate.recv() => Signal::TERM,
            _ = interrupt.recv() => Signal::INT,
            _ = hangup.recv() => Signal::HUP,
        };
        // Without an id it has ended, which the next turn sees.
        if let Some(child) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
            kill_process(child, signal)?;
        }
    }
}

/// As a shell says it.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}
