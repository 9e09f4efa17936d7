//! The programs that change the machine: run with a text on their standard input, heard out, and their failures understood.

use std::io::{self, Write};
use std::process::{Child, Command, Output, Stdio};

use super::error::{InterceptError, failure};

/// Where programs for administrators are when an unprivileged PATH leaves them out.
const FOLDERS: [&str; 3] = ["", "/usr/sbin/", "/sbin/"];

/// Runs a program with this on its standard input and returns what it printed.
pub fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, InterceptError> {
    let output = finish(program, arguments, input).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => InterceptError::Missing { program },
        _ => InterceptError::Io {
            doing: format!("running {program}"),
            error,
        },
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failure(program, said.trim()))
}

fn finish(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = first_found(program, arguments)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe means that the program gave up before reading; its own message says why.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}

fn first_found(program: &str, arguments: &[&str]) -> io::Result<Child> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for folder in FOLDERS {
        result = Command::new(format!("{folder}{program}"))
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result
}
