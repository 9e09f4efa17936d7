//! The process that a sidecar is there for: a job's sidecar ends when the job has.
//!
//! It is looked for by name in `/proc`, so both must share their process ids (`shareProcessNamespace` of a pod). Where they do
//! not, `pillion await --quit` or `/quit` of the admin listener does the same.

use std::fs;
use std::time::Duration;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);
/// The kernel keeps so many bytes of a process's name.
const COMM_MAX: usize = 15;

/// Waits until a process of this name has been seen, and then until none is there any more.
pub async fn ended(name: &str) {
    until(|| runs(name)).await;
    tracing::info!(process = name, "Main process is there");
    until(|| !runs(name)).await;
    tracing::info!(process = name, "Main process has ended");
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(PERIOD).await;
    }
}

fn runs(name: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|entry| {
        let folder = entry.file_name();
        folder
            .to_str()
            .and_then(|id| id.parse().ok())
            .is_some_and(|id| id != std::process::id() && is_called(id, name))
    })
}

/// By its own name for itself, or by the file it was started from. A zombie has ended.
fn is_called(id: u32, name: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else {
        return false;
    };
    let Some((comm, state)) = comm_and_state(&stat) else {
        return false;
    };
    if matches!(state, 'Z' | 'X') {
        return false;
    }
    let kept = name.len().min(COMM_MAX);
    comm.as_bytes() == &name.as_bytes()[..kept] || program(id).as_deref() == Some(name)
}

/// `42 (name) S …`; a name may have anything in it, also `)`.
fn comm_and_state(stat: &str) -> Option<(&str, char)> {
    let (_, rest) = stat.split_once('(')?;
    let (comm, rest) = rest.rsplit_once(')')?;
    Some((comm, rest.trim_start().chars().next()?))
}

fn program(id: u32) -> Option<String> {
    let words = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let first = words.split(|byte| *byte == 0).next()?;
    let path = std::str::from_utf8(first).ok()?;
    path.rsplit('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_may_look_like_anything() {
        assert_eq!(
            comm_and_state("7 (a) b) (c) R 1 2"),
            Some(("a) b) (c", 'R'))
        );
        assert_eq!(comm_and_state("7 a R"), None);
        assert_eq!(comm_and_state("7 (a)"), None);
    }

    #[tokio::test]
    async fn it_is_waited_for_and_then_for_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let name = "pillion-test-of-a-job";
        let program = folder.path().join(name);
        fs::copy("/bin/sleep", &program).unwrap();
        let ending = tokio::spawn(ended(name));
        tokio::time::sleep(PERIOD).await;
        assert!(!ending.is_finished());
        let mut job = Command::new(&program).arg("60").spawn().unwrap();
        while !runs(name) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(2 * PERIOD).await;
        assert!(!ending.is_finished());
        job.kill().unwrap();
        // A zombie until it is waited for, which nobody need do.
        ending.await.unwrap();
        job.wait().unwrap();
    }
}
