//! What the commands that talk to a registry share: where it is, how to be let in, how answers and refusals look.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::api::{self, Client, ClientError, ClientOptions};
use crate::config::{Problem, problem};

const VARIABLES: [&str; 4] = [
    "PILLION_REGISTRY",
    "PILLION_REGISTRY_TOKEN",
    "PILLION_REGISTRY_TOKEN_FILE",
    "PILLION_REGISTRY_CA",
];

/// Variables that speak to these commands, and to no bootstrap file.
pub fn is_client_variable(name: &str) -> bool {
    VARIABLES.contains(&name)
}

#[derive(clap::Args)]
pub struct Connection {
    /// The registry
    #[arg(
        long,
        value_name = "URL",
        env = "PILLION_REGISTRY",
        default_value = "http://127.0.0.1:15010",
        global = true
    )]
    registry: String,
    /// A file with the token to show
    #[arg(
        long,
        value_name = "FILE",
        env = "PILLION_REGISTRY_TOKEN_FILE",
        global = true
    )]
    token_file: Option<PathBuf>,
    /// A file with the certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE", env = "PILLION_REGISTRY_CA", global = true)]
    ca: Option<PathBuf>,
    /// How answers are written
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    pub output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// Why a command did not do what was asked; shown on standard error.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Other(String),
    #[error("{} problems", .0.len())]
    Problems(Vec<Problem>),
    /// It was said already; only the exit code is left.
    #[error("")]
    Said,
}

impl Connection {
    pub fn client(&self) -> Result<Client, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
        };
        let mut options = ClientOptions::new(&self.registry);
        options.timeout = Duration::from_secs(30);
        options.ca = self.ca.as_ref().map(read).transpose()?;
        options.token = match &self.token_file {
            Some(path) => Some(String::from_utf8_lossy(&read(path)?).trim().to_owned()),
            None => std::env::var("PILLION_REGISTRY_TOKEN")
                .ok()
                .filter(|token| !token.is_empty()),
        };
        Ok(Client::new(&options)?)
    }

    /// Runs a command to its exit code: 0 done, 1 it did not hold or failed.
    pub fn run(&self, command: impl AsyncFnOnce(Client) -> Result<(), Failure>) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let done = match runtime {
            Ok(runtime) => runtime.block_on(async { command(self.client()?).await }),
            Err(error) => Err(Failure::Other(error.to_string())),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                self.explain(&failure);
                ExitCode::FAILURE
            }
        }
    }

    /// Writes an answer as JSON, or by `text`.
    pub fn print<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) {
        match self.output {
            // Wire types always serialize.
            Output::Json => println!(
                "{}",
                serde_json::to_string_pretty(answer).unwrap_or_default()
            ),
            Output::Text => print!("{}", text(answer)),
        }
    }

    fn explain(&self, failure: &Failure) {
        if let (Output::Json, Failure::Client(ClientError::Refused { error, .. })) =
            (self.output, failure)
        {
            let body = api::ErrorBody {
                error: (**error).clone(),
            };
            eprintln!(
                "{}",
                serde_json::to_string_pretty(&body).unwrap_or_default()
            );
            return;
        }
        match failure {
            Failure::Said => {}
            Failure::Problems(problems) => eprint!("{}", problem::render(problems, false)),
            Failure::Client(ClientError::Refused { error, .. }) => {
                let problems: Vec<Problem> = error.problems.iter().map(problem_of).collect();
                eprint!("{}", problem::render(&problems, false));
                eprintln!("pillion: {}", error.message);
                if let Some(hint) = &error.hint {
                    eprintln!("hint: {hint}");
                }
            }
            Failure::Client(error @ ClientError::Unreachable { .. }) => {
                eprintln!("pillion: {error}");
                eprintln!(
                    "hint: is it running, and is the address right? --registry or PILLION_REGISTRY says where it is"
                );
            }
            other => eprintln!("pillion: {other}"),
        }
    }
}

/// A problem from the wire, to be shown as `pillion check` shows its own.
pub fn problem_of(problem: &api::Problem) -> Problem {
    Problem {
        severity: match problem.severity {
            api::Severity::Error => crate::config::Severity::Error,
            api::Severity::Warning => crate::config::Severity::Warning,
            api::Severity::Note => crate::config::Severity::Note,
        },
        file: problem.file.clone().unwrap_or_default(),
        line: problem.line.unwrap_or_default(),
        column: problem.column.unwrap_or_default(),
        path: problem.path.clone(),
        message: problem.message.clone(),
        reason: problem.reason.clone(),
        hint: problem.hint.clone(),
        snippet: problem
            .snippet
            .as_ref()
            .map(|snippet| crate::config::Snippet {
                text: snippet.text.clone(),
                from: snippet.from,
                length: snippet.length,
            }),
    }
}
