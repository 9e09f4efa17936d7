//! A container engine of the test's own: started and ended by it, its network in a namespace, its images kept for the next run.
//!
//! Images are built with the engine in the machine's network, where it touches nothing (no bridge, no rules), because builds install
//! packages. Containers run with the engine in a network namespace, where its bridge and rules go away with it.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::machine::top;
use crate::namespace::Host;
use crate::process::{Process, eventually, run, succeed};

/// How long the engine may take to end its containers before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What a scenario with containers needs.
pub const NEEDS: [&str; 8] = [
    "dockerd",
    "docker",
    "docker-compose",
    "debootstrap",
    "ip",
    "nsenter",
    "curl",
    "rustc",
];

/// The images that know nothing of a mesh, and what each is built of.
const APPLICATIONS: [(&str, &str); 4] = [
    ("pillion-example", "docker/example"),
    ("pillion-demo-backend", "docker/demo/app"),
    ("pillion-demo-nginx", "docker/demo/nginx"),
    ("pillion-demo-scheduler", "docker/demo/scheduler"),
];

/// A running engine; dropping it ends its containers and it.
pub struct Engine {
    daemon: Process,
    /// Sockets live here: their paths have to be short.
    run: tempfile::TempDir,
    network: Option<Host>,
    /// One engine at a time uses the folder of images.
    _turn: File,
}

impl Engine {
    /// An engine for building, in the machine's network.
    pub fn for_builds() -> Engine {
        Engine::start(None)
    }

    /// An engine for running, in a network of its own.
    pub fn for_containers() -> Engine {
        Engine::start(Some(Host::new("engine")))
    }

    fn start(network: Option<Host>) -> Engine {
        let folder = folder();
        fs::create_dir_all(&folder).unwrap();
        let turn = File::create(folder.join("turn")).unwrap();
        turn.lock().unwrap();
        let run = tempfile::Builder::new()
            .prefix("pillion-engine-")
            .tempdir_in("/tmp")
            .unwrap();
        let log = File::create(folder.join("dockerd.log")).unwrap();
        let mut command = match &network {
            Some(host) => host.command("dockerd"),
            None => Command::new("dockerd"),
        };
        if network.is_none() {
            command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
            command.args(["--ip-forward=false", "--ip-masq=false"]);
        }
        command
            .arg(format!("--data-root={}", folder.join("data").display()))
            .arg(format!("--exec-root={}", run.path().join("exec").display()))
            .arg(format!("--pidfile={}", run.path().join("pid").display()))
            .arg(format!("--host={}", socket(run.path())))
            .env("PATH", path())
            .stdout(Stdio::null())
            .stderr(log);
        let mut engine = Engine {
            daemon: Process::spawn(&mut command),
            run,
            network,
            _turn: turn,
        };
        engine.wait_until_it_answers();
        engine
    }

    fn wait_until_it_answers(&mut self) {
        let log = folder().join("dockerd.log");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        eventually("dockerd to answer", || {
            if let Some(status) = self.daemon.exited() {
                panic!("dockerd ended with {status}:\n{}", said());
            }
            let version = run(self
                .docker()
                .args(["version", "--format", "{{.Server.Version}}"]));
            (version.code == Some(0)).then_some(())
        });
    }

    pub fn docker(&self) -> Command {
        self.client("docker")
    }

    /// `docker-compose` for a project of these files.
    pub fn compose(&self, project: &str, files: &[PathBuf]) -> Command {
        let mut command = self.client("docker-compose");
        command.args(["--project-name", project]);
        command.args(files.iter().flat_map(|file| [Path::new("--file"), file]));
        command
    }

    /// A command that talks to this engine, started at the top of the repository.
    pub fn client(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(top())
            .env("DOCKER_HOST", socket(self.run.path()))
            // The builder that every engine has, so that the Dockerfile needs no other.
            .env("DOCKER_BUILDKIT", "0")
            .env("COMPOSE_DOCKER_CLI_BUILD", "0")
            .env("PATH", path());
        command
    }

    /// The network namespace that containers' published ports are in.
    pub fn network(&self) -> &Host {
        self.network
            .as_ref()
            .expect("an engine for containers has a network")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.daemon.terminate();
        let began = tokio::time::Instant::now();
        while self.daemon.exited().is_none() && began.elapsed() < STOP_TIMEOUT {
            std::thread::sleep(Duration::from_millis(50));
        }
        // The engine leaves the namespace of its host mounted, which would keep the folder from being removed.
        let left = self.run.path().join("exec/netns/default");
        let _ = run(Command::new("umount").arg(left));
    }
}

/// Builds what the compose file names; layers that did not change are taken from earlier runs.
pub fn build_images() {
    let engine = Engine::for_builds();
    let profile = env::var("PILLION_IMAGE_PROFILE").unwrap_or_else(|_| "dev".to_owned());
    succeed(
        engine
            .client(top().join("tests/hosts/base-images"))
            .arg(folder().join("base")),
    );
    let build = |tag: &str, target: &str| {
        let mut command = engine.docker();
        command.args(["build", "--network", "host", "--file", "docker/Dockerfile"]);
        command.args(["--build-arg", &format!("PROFILE={profile}")]);
        succeed(command.args(["--tag", tag, "--target", target, "."]));
    };
    // Tagged too, so that its layers outlive the pruning below.
    build("pillion-build", "build");
    build("pillion-init", "init");
    build("pillion", "proxy");
    for (tag, folder) in APPLICATIONS {
        let mut command = engine.docker();
        command.args(["build", "--network", "host", "--tag", tag, folder]);
        succeed(&mut command);
    }
    succeed(engine.docker().args(["image", "prune", "--force"]));
}

/// The archive of these images, for an engine of another kind.
pub fn save_images(tags: &[&str]) -> PathBuf {
    let archive = folder().join("images.tar");
    let engine = Engine::for_builds();
    let mut save = engine.docker();
    succeed(save.arg("save").arg("--output").arg(&archive).args(tags));
    archive
}

/// Images and what they are made of stay here between runs.
fn folder() -> PathBuf {
    top().join("target/hosts")
}

fn socket(run: &Path) -> String {
    format!("unix://{}", run.join("socket").display())
}

fn path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}
