//! Child processes that end with the test, and commands whose failure shows what they said.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long anything that should happen soon may take before a test calls it hanging.
pub const HANG: Duration = Duration::from_secs(60);

/// A child process; dropping it kills it and waits for its end.
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        // A test that is killed takes its children with it. Setting the same again after a change of user is setpriv's part.
        // SAFETY: prctl is called between fork and exec, and touches no memory of this process.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Process(child)
    }

    /// Asks it to end, as an operator or an engine does.
    pub fn terminate(&self) {
        // A process of this test has an id that fits, and it is not reused before it was waited for.
        let id = libc::pid_t::try_from(self.0.id()).expect("a process id fits");
        // SAFETY: kill takes any id and signal.
        unsafe { libc::kill(id, libc::SIGTERM) };
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a command that ran to its end left behind.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(command: &mut Command) -> Finished {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command that must succeed and returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let finished = run(command);
    assert_eq!(
        finished.code,
        Some(0),
        "{command:?} failed\n--- stdout\n{}\n--- stderr\n{}",
        finished.stdout,
        finished.stderr
    );
    finished.stdout
}

/// Polls until there is something, or fails saying what it waited for.
pub fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(began.elapsed() < HANG, "waited {HANG:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
