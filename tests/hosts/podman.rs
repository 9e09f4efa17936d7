//! A pod engine of the test's own: podman, which plays Kubernetes YAML without a cluster, in a network namespace and a folder that
//! both go away with it.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::machine::top;
use crate::namespace::Host;
use crate::process::{run, succeed};

/// What a scenario with pods needs, beside the engine that built its images.
pub const NEEDS: [&str; 2] = ["podman", "runc"];

/// Images of the manifests are named as podman names what it built itself.
const OF_THIS_MACHINE: &str = "localhost/";

/// A folder of pods and images; dropping it ends the pods.
pub struct Podman {
    network: Host,
    folder: TempDir,
}

impl Podman {
    /// With the images of this archive, which another engine has saved by these names.
    pub fn with_images(archive: &std::path::Path, names: &[&str]) -> Podman {
        let folder = tempfile::Builder::new()
            .prefix("podman-")
            .tempdir_in(top().join("target/hosts"))
            .unwrap();
        // The defaults ask for more than a machine that is a container itself may have.
        let settings =
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";
        fs::write(folder.path().join("containers.conf"), settings).unwrap();
        let podman = Podman {
            network: Host::new("podman"),
            folder,
        };
        succeed(podman.command().args(["load", "--input"]).arg(archive));
        for name in names {
            let ours = format!("{OF_THIS_MACHINE}{name}");
            succeed(podman.command().args(["tag", name, &ours]));
        }
        podman
    }

    /// `podman` for these pods, started at the top of the repository.
    pub fn command(&self) -> Command {
        let mut command = self.network.command("podman");
        let folder = self.folder.path();
        command
            .current_dir(top())
            .env("CONTAINERS_CONF", folder.join("containers.conf"))
            .arg("--root")
            .arg(folder.join("storage"))
            .arg("--runroot")
            .arg(folder.join("run"))
            .arg("--network-config-dir")
            .arg(folder.join("networks"))
            .args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"])
            .args(["--events-backend", "none"]);
        command
    }

    /// What a command in a container prints; None when it failed.
    pub fn exec(&self, container: &str, words: &[&str]) -> Option<String> {
        let finished = run(self.command().args(["exec", container]).args(words));
        (finished.code == Some(0)).then_some(finished.stdout)
    }

    pub fn logs(&self, container: &str) -> String {
        let finished = run(self.command().args(["logs", container]));
        finished.stdout + &finished.stderr
    }

    /// The network namespace that the pods' bridge is in.
    pub fn network(&self) -> &Host {
        &self.network
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = run(self
            .command()
            .args(["pod", "rm", "--all", "--force", "--time", "1"]));
        // Mounts of the images' files would keep the folder from being removed.
        let _ = run(self.command().args(["system", "reset", "--force"]));
    }
}
