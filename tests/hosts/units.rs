//! The units of `docker/systemd`: what systemd says of them, and their commands in the order in which it runs them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::machine::{pillion, ready, top};
use crate::namespace::{Host, Pair, SERVER};
use crate::process::{Process, eventually, run, succeed};
use crate::sidecar::{FileServer, PAGE, UID, curl, forget_our_variables};

const UNITS: [&str; 2] = ["pillion-sidecar.service", "pillion-registry.service"];

/// Tenths of systemd's exposure level, from 0 (nothing to gain) to 100; most services of a distribution have 80 and more.
const EXPOSURE_MAX: u32 = 20;

#[test]
fn the_units_are_valid_and_their_processes_can_do_little() {
    if !ready(&["systemd-analyze", "cp"]) {
        return;
    }
    let machine = installed();
    let analyze = |words: &[&str], unit: &str| {
        let mut command = Command::new("systemd-analyze");
        command.arg(format!("--root={}", machine.path().display()));
        run(command.args(words).arg(unit))
    };
    for unit in UNITS {
        let verified = analyze(&["verify"], unit);
        assert_eq!((verified.code, verified.stderr.trim()), (Some(0), ""));
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let exposed = analyze(&["security", "--offline=true", &threshold], unit);
        assert_eq!(exposed.code, Some(0), "{}", exposed.stdout);
    }
}

/// The root of a machine that has the units, beside those of systemd, and the programs that they name.
fn installed() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let copy = |from: &Path, to: PathBuf| {
        succeed(Command::new("cp").arg("--recursive").arg(from).arg(to));
    };
    copy(
        Path::new("/usr/lib/systemd/system"),
        at("usr/lib/systemd/system"),
    );
    copy(&top().join("docker/systemd"), at("etc/systemd/system"));
    copy(pillion(), at("usr/local/bin/pillion"));
    copy(pillion(), at("bin/kill"));
    root
}

#[test]
fn the_sidecars_unit_redirects_while_it_runs_and_leaves_nothing() {
    if !ready(&["ip", "nft", "nsenter", "setpriv", "ss", "curl", "python3"]) {
        return;
    }
    let pair = Pair::new();
    let folder = configured();
    let unit = |name| Unit::read(name, &pair.server, folder.path());
    let before = pair.server.ruleset();

    let _registry = unit("pillion-registry").start();
    pair.server.wait_for_listener(15010);
    let sidecar = unit("pillion-sidecar");
    let mut process = sidecar.start();
    sidecar.run_all("ExecStartPost");
    // An application that waits for its sidecar comes after it.
    let _application = FileServer::start(&pair.server, 8080);
    let page = |query: &str| {
        let url = format!("http://{}:8080/page.txt?{query}", SERVER[0]);
        succeed(curl(&pair.client).arg(url))
    };
    eventually("the application to be reached", || {
        (page("carried") == format!("{PAGE}\n200")).then_some(())
    });
    eventually("the sidecar to log the request", || {
        sidecar.output().contains("?carried").then_some(())
    });

    sidecar.run_all("ExecStop");
    process.terminate();
    let ended = eventually("the sidecar to end", || process.exited());
    assert!(ended.success(), "{}", sidecar.output());
    sidecar.run_all("ExecStopPost");
    assert_eq!(pair.server.ruleset(), before);
    assert_eq!(page("direct"), format!("{PAGE}\n200"));
    assert!(!sidecar.output().contains("?direct"));
}

/// A folder in the place of `/etc/pillion`, `/var/lib` and `/usr/local/bin`, for the user that the units name.
fn configured() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["sidecar.yaml", "registry.yaml"] {
        let text = fs::read_to_string(top().join("docker/systemd").join(file)).unwrap();
        let here = format!("{}/", folder.path().display());
        fs::write(folder.path().join(file), text.replace("/var/lib/", &here)).unwrap();
    }
    fs::copy(pillion(), folder.path().join("bin")).unwrap();
    for state in ["pillion", "pillion-registry"] {
        fs::create_dir(folder.path().join(state)).unwrap();
        chown(folder.path().join(state), Some(UID), Some(UID)).unwrap();
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A unit whose commands run on this host, with this folder.
struct Unit<'a> {
    name: &'static str,
    text: String,
    host: &'a Host,
    folder: &'a Path,
}

impl<'a> Unit<'a> {
    fn read(name: &'static str, host: &'a Host, folder: &'a Path) -> Self {
        let file = top().join(format!("docker/systemd/{name}.service"));
        Unit {
            name,
            text: fs::read_to_string(file).unwrap(),
            host,
            folder,
        }
    }

    /// The values of a key, in their order.
    fn values(&self, key: &str) -> Vec<&str> {
        let values = self.text.lines().filter_map(|line| line.split_once('='));
        let ours = values.filter(|(name, _)| *name == key);
        ours.map(|(_, value)| value).collect()
    }

    /// One command line, as root where it says `+`.
    fn command(&self, line: &str) -> Command {
        let folder = self.folder.display();
        let here = line
            .replace("/usr/local/bin/pillion", &format!("{folder}/bin"))
            .replace("/etc/pillion/", &format!("{folder}/"));
        let mut words = here.trim_start_matches(['-', '+']).split_whitespace();
        let program = words.next().expect("a command has a program");
        let mut command = match line.starts_with(['-', '+']) {
            true => self.host.command(program),
            false => self.host.command_as(UID, program),
        };
        forget_our_variables(command.args(words));
        command
    }

    fn start(&self) -> Process {
        let output = fs::File::create(self.folder.join(self.name).with_extension("log")).unwrap();
        let mut command = self.command(self.values("ExecStart")[0]);
        Process::spawn(command.stdout(output.try_clone().unwrap()).stderr(output))
    }

    fn run_all(&self, key: &str) {
        for line in self.values(key) {
            let finished = run(&mut self.command(line));
            assert!(
                finished.code == Some(0) || line.starts_with('-'),
                "{line}: {}\n{}",
                finished.stderr,
                self.output()
            );
        }
    }

    /// Everything it has printed.
    fn output(&self) -> String {
        fs::read_to_string(self.folder.join(self.name).with_extension("log")).unwrap_or_default()
    }
}
