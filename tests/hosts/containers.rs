//! The images and the compose file that are shipped, on a real engine.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::engine::{Engine, NEEDS, build_images};
use crate::machine::{ready, top};
use crate::process::{eventually, run, succeed};

/// A compose project that is up; dropping it takes it down with its volumes.
struct Project<'engine> {
    engine: &'engine Engine,
    name: &'static str,
    files: Vec<PathBuf>,
}

impl<'engine> Project<'engine> {
    fn up(engine: &'engine Engine, name: &'static str, files: &[&str]) -> Self {
        let files = files.iter().map(PathBuf::from).collect();
        let project = Project {
            engine,
            name,
            files,
        };
        project.compose(&["up", "--no-build", "--detach"]);
        project
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.engine.compose(self.name, &self.files);
        command.args(words);
        command
    }

    fn compose(&self, words: &[&str]) -> String {
        succeed(&mut self.command(words))
    }

    fn logs(&self, service: &str) -> String {
        self.compose(&["logs", "--no-color", service])
    }

    /// What `curl` in a container answers; None when it failed.
    fn curl(&self, service: &str, url: &str) -> Option<String> {
        let curl = ["curl", "-sS", "--fail", "--max-time", "5", url];
        let finished = run(&mut self.command(&[&["exec", "-T", service], &curl[..]].concat()));
        (finished.code == Some(0)).then_some(finished.stdout)
    }

    /// What `curl` answers on the machine that the containers run on; None when it failed.
    fn curl_from_outside(&self, url: &str) -> Option<String> {
        let mut curl = self.engine.network().command("curl");
        let finished = run(curl.args(["-sS", "--fail", "--max-time", "5", url]));
        (finished.code == Some(0)).then_some(finished.stdout)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let _ = run(&mut self.command(&["down", "--volumes", "--timeout", "1"]));
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
    let project = Project::up(&engine, "mesh", &["docker/compose.yaml"]);
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
    let answer = project.curl_from_outside("http://127.0.0.1:8080/?from=outside");
    let answer = answer.expect("the published port answers");
    assert!(answer.contains("Hello from the shop"), "{answer}");
    eventually("the shop's sidecar to log the request from outside", || {
        project
            .logs("shop-sidecar")
            .contains("from=outside")
            .then_some(())
    });
}

#[test]
fn the_demos_instances_are_killed_and_added_under_load_and_nothing_fails() {
    if !ready(&NEEDS) || !ready(&["python3", "chromium"]) {
        return;
    }
    build_images();
    let engine = Engine::for_containers();
    print_instances(3);
    let demo = Project::up(&engine, "demo", &DEMO);
    for url in ["http://localhost/", "http://localhost:8081/"] {
        let page = eventually(&format!("the page at {url}"), || {
            demo.curl_from_outside(url)
        });
        assert_eq!(page, "Hello World!");
    }
    assert!(shown_by_a_browser(&engine, "http://localhost").contains("Hello World!"));

    let latest_are_taken_by = |instances: usize| {
        eventually(&format!("{instances} instances to take tasks"), || {
            let log = demo.logs("scheduler");
            (takers(&log).len() == instances).then_some(())
        });
    };
    latest_are_taken_by(3);
    // Its sidecar first: a container whose network goes away before it cannot say so to anybody.
    demo.compose(&["kill", "backend-1-sidecar"]);
    demo.compose(&["kill", "backend-1"]);
    latest_are_taken_by(2);
    print_instances(4);
    demo.compose(&["up", "--no-build", "--detach", "backend-4-sidecar"]);
    latest_are_taken_by(3);

    let log = demo.logs("scheduler");
    assert!(!log.contains("failed"), "{log}");
    let carried = demo.logs("scheduler-sidecar");
    assert!(carried.contains(r#""path":"/tasks""#), "{carried}");
}

const DEMO: [&str; 2] = ["docker/demo/compose.yaml", "docker/demo/instances.yaml"];

/// Writes the compose file of so many instances.
fn print_instances(count: usize) {
    let mut print = Command::new("python3");
    print.arg(top().join("docker/demo/instances.py"));
    let printed = succeed(print.arg(count.to_string()));
    fs::write(top().join(DEMO[1]), printed).unwrap();
}

/// The page as a browser on the containers' machine has it.
fn shown_by_a_browser(engine: &Engine, url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = engine.network().command("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
    browser.arg(format!("--user-data-dir={}", profile.path().display()));
    succeed(browser.arg(url))
}

/// The instances that took the scheduler's latest tasks.
fn takers(log: &str) -> HashSet<&str> {
    const LATEST: usize = 100;
    let accepted = log.lines().rev();
    let takers = accepted.filter_map(|line| Some(line.split_once("accepted by ")?.1));
    takers.take(LATEST).collect()
}
