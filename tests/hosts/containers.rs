//! The images and the compose file that are shipped, on a real engine.

use crate::engine::{Engine, NEEDS, build_images};
use crate::machine::ready;
use crate::process::{eventually, run, succeed};

/// A compose project that is up; dropping it takes it down with its volumes.
struct Project<'engine> {
    engine: &'engine Engine,
    name: &'static str,
}

impl<'engine> Project<'engine> {
    fn up(engine: &'engine Engine, name: &'static str) -> Self {
        let project = Project { engine, name };
        succeed(engine.compose(name).args(["up", "--no-build", "--detach"]));
        project
    }

    fn logs(&self, service: &str) -> String {
        let mut command = self.engine.compose(self.name);
        succeed(command.args(["logs", "--no-color", service]))
    }

    /// What `curl` in a container answers; None when it failed.
    fn curl(&self, service: &str, url: &str) -> Option<String> {
        let mut command = self.engine.compose(self.name);
        command.args([
            "exec",
            "-T",
            service,
            "curl",
            "-sS",
            "--fail",
            "--max-time",
            "5",
            url,
        ]);
        let finished = run(&mut command);
        (finished.code == Some(0)).then_some(finished.stdout)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let mut command = self.engine.compose(self.name);
        let _ = run(command.args(["down", "--volumes", "--timeout", "1"]));
    }
}

#[test]
fn the_image_is_one_static_binary_that_needs_neither_root_nor_a_writable_system() {
    if !ready(&NEEDS) {
        return;
    }
    build_images();
    let engine = Engine::for_containers();
    let inspect = |format: &str| {
        let mut command = engine.docker();
        succeed(command.args(["image", "inspect", "--format", format, "pillion"]))
    };
    assert_eq!(inspect("{{.Config.User}}").trim(), "1337:1337");
    assert_eq!(
        inspect("{{.Config.Healthcheck.Test}}").trim(),
        "[CMD /pillion health]"
    );

    let hardened = [
        "run",
        "--rm",
        "--read-only",
        "--cap-drop=ALL",
        "--network=none",
        "pillion",
    ];
    let version = succeed(engine.docker().args(hardened).arg("version"));
    assert!(version.starts_with("pillion "), "{version}");
    // The health check of an image without a shell is the binary; alone in its container it finds nobody.
    assert_eq!(
        run(engine.docker().args(hardened).arg("health")).code,
        Some(1)
    );

    let created = succeed(engine.docker().args(["create", "pillion"]));
    let list = format!(
        "docker export {} | tar --list | grep -v '/$'",
        created.trim()
    );
    let files = succeed(engine.client("bash").args(["-c", &list]));
    let ours: Vec<&str> = files.lines().filter(|file| !is_the_engines(file)).collect();
    assert_eq!(ours, ["etc/ssl/certs/ca-certificates.crt", "pillion"]);
    succeed(engine.docker().args(["rm", created.trim()]));
}

/// Files that every container gets.
fn is_the_engines(file: &str) -> bool {
    file == ".dockerenv"
        || file.starts_with("dev/")
        || file.starts_with("proc")
        || file.starts_with("sys")
        || ["etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"].contains(&file)
}

#[test]
fn an_application_in_a_container_is_reached_through_the_sidecars_of_both_sides() {
    if !ready(&NEEDS) {
        return;
    }
    build_images();
    let engine = Engine::for_containers();
    let project = Project::up(&engine, "mesh");
    let answer = eventually("the shop to answer the client", || {
        project.curl("client", "http://shop:8080/")
    });
    assert!(answer.contains("Hello from the shop"), "{answer}");
    for sidecar in ["client-sidecar", "shop-sidecar"] {
        eventually(&format!("{sidecar} to log the request"), || {
            project
                .logs(sidecar)
                .contains("\"path\":\"/\"")
                .then_some(())
        });
    }

    // From outside, through the published port: the shop's sidecar carries it too.
    let mut outside = engine.network().command("curl");
    let answer = succeed(outside.args([
        "-sS",
        "--fail",
        "--max-time",
        "5",
        "http://127.0.0.1:8080/?from=outside",
    ]));
    assert!(answer.contains("Hello from the shop"), "{answer}");
    eventually("the shop's sidecar to log the request from outside", || {
        project
            .logs("shop-sidecar")
            .contains("from=outside")
            .then_some(())
    });
}
