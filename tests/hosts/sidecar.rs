//! A sidecar as an operator runs it: the binary, a bootstrap file, its own user, and an access log to look at.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::machine::pillion;
use crate::namespace::Host;
use crate::process::{Process, eventually, run, succeed};

/// The user that redirect rules leave alone.
pub const UID: u32 = 1337;

/// A running sidecar; dropping it kills it.
pub struct Sidecar {
    process: Process,
    folder: TempDir,
}

impl Sidecar {
    /// Starts `pillion proxy` in this host, by these lines of a bootstrap file and these mesh documents, and waits until it is ready.
    pub fn start(host: &Host, bootstrap: &str, mesh: &str) -> Sidecar {
        Sidecar::start_with(host, &[], bootstrap, mesh)
    }

    /// The same with these capabilities, such as `net_raw`.
    pub fn start_with(host: &Host, capabilities: &[&str], bootstrap: &str, mesh: &str) -> Sidecar {
        let mut sidecar = Sidecar::spawn(host, capabilities, bootstrap, mesh);
        sidecar.wait_until_ready(host);
        sidecar
    }

    /// Starts one that cannot start, and returns what it says.
    pub fn refused(host: &Host, bootstrap: &str, mesh: &str) -> String {
        Sidecar::spawn(host, &[], bootstrap, mesh).ended()
    }

    /// One that may not come up, with these capabilities.
    pub fn spawn(host: &Host, capabilities: &[&str], bootstrap: &str, mesh: &str) -> Sidecar {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("mesh.yaml", mesh);
        write(
            "sidecar.yaml",
            &format!(
                "intercept: true\nmesh: mesh.yaml\naccess_log: {{path: access.log}}\n{bootstrap}\n"
            ),
        );
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(folder.path(), Some(UID), Some(UID)).unwrap();
        let process = run_in(host, capabilities, folder.path());
        Sidecar { process, folder }
    }

    /// Ends it as an engine does, and then starts another one in its place, of a binary that was installed meanwhile.
    pub fn replace(&mut self, host: &Host) {
        self.process.terminate();
        let status = eventually("the sidecar to end", || self.process.exited());
        assert!(status.success(), "{status}: {}", self.said());
        self.start_again(host);
    }

    /// Ends it as the kernel does when memory is short.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn start_again(&mut self, host: &Host) {
        self.process = run_in(host, &[], self.folder.path());
        self.wait_until_ready(host);
    }

    /// Waits for its end, and returns what it has said.
    pub fn ended(mut self) -> String {
        let status = eventually("the sidecar to end", || self.process.exited());
        assert!(!status.success());
        self.said()
    }

    fn wait_until_ready(&mut self, host: &Host) {
        eventually("the sidecar to be ready", || {
            if let Some(status) = self.process.exited() {
                panic!("the sidecar ended with {status}:\n{}", self.said());
            }
            let mut health = host.command(pillion());
            (run(health.arg("health")).code == Some(0)).then_some(())
        });
    }

    /// Changes its mesh documents, which it notices.
    pub fn rewrite_mesh(&self, documents: &str) {
        let written = self.path("mesh.yaml.new");
        fs::write(&written, documents).unwrap();
        fs::rename(written, self.path("mesh.yaml")).unwrap();
    }

    /// Everything it has printed.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    /// The lines of its access log so far.
    pub fn log(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.path("access.log")).unwrap_or_default();
        // The last line may be half there.
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Waits for the line of a request for this path.
    pub fn line_of(&self, path: &str) -> Value {
        self.line_with("path", |text| text == path)
    }

    /// Waits for a line whose field is so.
    pub fn line_with(&self, field: &str, is_so: impl Fn(&str) -> bool) -> Value {
        let found = |line: &Value| line[field].as_str().is_some_and(&is_so);
        eventually(
            &format!("a line with that {field} in the access log"),
            || self.log().into_iter().find(found),
        )
    }

    /// Asks it to end and says whether it did so in peace.
    pub fn stop(mut self) -> bool {
        self.process.terminate();
        eventually("the sidecar to end", || self.process.exited()).success()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Installs the binary in this folder, and runs it there by its bootstrap file.
fn run_in(host: &Host, capabilities: &[&str], folder: &Path) -> Process {
    // The sidecar's user may not be able to read the folder that the binary was built in.
    let binary = folder.join("pillion");
    // By a process of its own: a file that this one has open for writing, even in a child about to run something else, cannot be run.
    succeed(Command::new("install").arg(pillion()).arg(&binary));
    let mut output = fs::OpenOptions::new();
    let output = output
        .create(true)
        .append(true)
        .open(folder.join("output"))
        .unwrap();
    let mut command = host.command_with(capabilities, UID, &binary);
    command.args(["proxy", "--config"]);
    command.arg(folder.join("sidecar.yaml"));
    forget_our_variables(&mut command);
    Process::spawn(command.stdout(output.try_clone().unwrap()).stderr(output))
}

/// What switches tests on and off would be read as keys of a bootstrap file.
pub fn forget_our_variables(command: &mut Command) {
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("PILLION_")) {
        command.env_remove(name);
    }
}

/// A registry on port 15010 of every address of a host.
pub struct Registry {
    _process: Process,
    _data: TempDir,
}

impl Registry {
    pub fn start(host: &Host) -> Registry {
        let data = tempfile::tempdir().unwrap();
        let mut command = host.command(pillion());
        forget_our_variables(&mut command);
        command.arg("registry").env("PILLION_DATA", data.path());
        command.env("PILLION_ADDRESS", "0.0.0.0:15010");
        command.env("PILLION_INSECURE", "true");
        let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        Registry {
            _process: process,
            _data: data,
        }
    }
}

/// Python's own file server, serving a folder with `page.txt` in it on this port, IPv4 and IPv6.
pub struct FileServer {
    _process: Process,
    _folder: TempDir,
}

pub const PAGE: &str = "Served by a program that knows nothing of a mesh.\n";

impl FileServer {
    pub fn start(host: &Host, port: u16) -> FileServer {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("page.txt"), PAGE).unwrap();
        let mut command = host.command("python3");
        command.args(["-m", "http.server", &port.to_string(), "--bind", "::"]);
        command.arg("--directory").arg(folder.path());
        let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        host.wait_for_listener(port);
        FileServer {
            _process: process,
            _folder: folder,
        }
    }
}

/// `curl` in this host; what it prints is the answer's body, and then the status on a line of its own.
pub fn curl(host: &Host) -> Command {
    let mut command = host.command("curl");
    command.args(["-sS", "--max-time", "10", "--write-out", "\\n%{http_code}"]);
    command
}
