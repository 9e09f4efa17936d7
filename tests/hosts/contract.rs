//! What happens when sidecars are ended, replaced and killed under load (the contract of sidecars), between programs that know
//! nothing of them.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::machine::{ready, top};
use crate::namespace::{Host, Segment};
use crate::process::{Process, eventually, run};
use crate::sidecar::{Registry, Sidecar, curl};

const NEEDS: [&str; 7] = ["ip", "nft", "nsenter", "setpriv", "ss", "curl", "python3"];

const DOCUMENTS: &str = "kind: Service\nname: shop\nports: [{port: 8080, protocol: http}]\n";

/// What the load asks, all at the same time: on kept connections, on new ones, and by name.
const KINDS: [&str; 5] = ["kept GET", "kept POST", "new GET", "new POST", "named GET"];

#[test]
fn sidecars_that_are_replaced_one_after_another_fail_nothing_that_can_be_repeated() {
    if !ready(&NEEDS) {
        return;
    }
    let mut world = World::start();
    let mut a = world.instance("a");
    let load = world.load();
    load.goes_on(20);
    // As in a rolling update: the new one first.
    let mut b = world.instance("b");
    load.is_answered_by("b");
    for (instance, name) in [(&mut a, "a"), (&mut b, "b")] {
        // As an engine does that restarts a container in place.
        instance.sidecar.replace(&instance.host);
        load.is_answered_by(name);
    }
    assert!(a.sidecar.stop());
    load.goes_on(20);
    load.expect_no_failure();
    world.expect_nothing_twice();
}

#[test]
fn a_callers_sidecar_that_is_replaced_fails_none_of_its_applications_requests() {
    if !ready(&NEEDS) {
        return;
    }
    let mut world = World::start();
    let _a = world.instance("a");
    let load = world.load();
    for _ in 0..3 {
        load.goes_on(20);
        world.caller.replace(&world.caller_host);
    }
    load.goes_on(20);
    load.expect_no_failure();
    world.expect_nothing_twice();
}

#[test]
fn a_sidecar_that_is_killed_fails_only_what_had_reached_its_application_and_cannot_be_repeated() {
    if !ready(&NEEDS) {
        return;
    }
    let mut world = World::start();
    let mut a = world.instance("a");
    let _b = world.instance("b");
    let load = world.load();
    load.is_answered_by("a");
    load.is_answered_by("b");
    a.sidecar.kill();
    load.goes_on(20);
    a.sidecar.start_again(&a.host);
    load.is_answered_by("a");
    let failures = load.failures();
    let is_post = |line: &&String| line.contains("POST");
    assert_eq!(
        failures.iter().filter(is_post).count(),
        failures.len(),
        "{failures:?}"
    );
    // At most the one that each of those who post was at.
    assert!(failures.len() <= 2, "{failures:?}");
    world.expect_nothing_twice();
}

#[test]
fn a_callers_sidecar_that_is_killed_fails_only_what_was_under_way_and_the_rest_waits_for_the_next()
{
    if !ready(&NEEDS) {
        return;
    }
    let mut world = World::start();
    let _a = world.instance("a");
    let load = world.load();
    load.goes_on(20);
    world.caller.kill();
    world.caller.start_again(&world.caller_host);
    load.goes_on(20);
    for kind in KINDS {
        load.expect_one_cut(kind);
    }
    world.expect_nothing_twice();
}

/// Each of these scenarios keeps the machine busy, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A caller's host with its sidecar and rules, a registry, and room for instances.
struct World {
    caller: Sidecar,
    registry: IpAddr,
    folder: TempDir,
    _registry: Registry,
    caller_host: Host,
    _registry_host: Host,
    segment: Segment,
    _turn: MutexGuard<'static, ()>,
}

/// One of the shop's, with its sidecar and rules.
struct Instance {
    sidecar: Sidecar,
    _server: Process,
    host: Host,
}

impl World {
    fn start() -> World {
        // A scenario that failed is none of the next one's business.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut segment = Segment::new();
        let (registry_host, registry) = segment.host("registry");
        let (caller_host, _) = segment.host("caller");
        // As its resolver asks whatever server this machine is set to.
        caller_host.ip(&format!("route add default via {registry}"));
        let bootstrap = format!("service: caller\ndns: {{upstreams: [{registry}]}}");
        let _registry = Registry::start(&registry_host);
        let caller = Sidecar::start(&caller_host, &following(registry, &bootstrap), DOCUMENTS);
        caller_host.apply_rules("--dns");
        World {
            caller,
            registry,
            folder: tempfile::tempdir().unwrap(),
            _registry,
            caller_host,
            _registry_host: registry_host,
            segment,
            _turn,
        }
    }

    /// Starts an instance whose answers are its name.
    fn instance(&mut self, name: &str) -> Instance {
        let (host, address) = self.segment.host(name);
        let mut command = host.command("python3");
        command.arg(clients("named_server.py"));
        command
            .args(["8080", name])
            .arg(self.folder.path().join("taken"));
        let server = Process::spawn(command.stderr(Stdio::null()));
        host.wait_for_listener(8080);
        // The hosts of a test have one name.
        let bootstrap = format!(
            "apps: [{{service: shop, port: 8080}}]\nadvertise: {address}\ninstance: {name}"
        );
        let sidecar = Sidecar::start(&host, &following(self.registry, &bootstrap), DOCUMENTS);
        host.apply_rules("");
        Instance {
            sidecar,
            _server: server,
            host,
        }
    }

    /// Begins once the caller knows an instance.
    fn load(&self) -> Load {
        eventually("an instance to be known", || {
            let mut curl = curl(&self.caller_host);
            let answered = run(curl.arg("http://shop:8080/"));
            answered.stdout.ends_with("\n200").then_some(())
        });
        let outcomes = self.folder.path().join("outcomes");
        let mut command = self.caller_host.command("python3");
        command.arg(clients("load.py")).arg(&outcomes);
        // Nobody serves at this address: the caller's sidecar goes by the name in the request.
        command
            .arg(format!("{}:8080", self.registry))
            .arg("shop:8080");
        let _process = Process::spawn(&mut command);
        Load { outcomes, _process }
    }

    /// Every body that was posted has reached an application once at most.
    fn expect_nothing_twice(&self) {
        let taken = fs::read_to_string(self.folder.path().join("taken")).unwrap();
        let mut bodies: Vec<&str> = taken.lines().collect();
        let count = bodies.len();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!(bodies.len(), count, "a request was sent twice");
    }
}

fn following(registry: IpAddr, bootstrap: &str) -> String {
    format!(
        "{bootstrap}\nregistry: {{addresses: [http://{registry}:15010]}}\nsnapshot: {{path: snapshot}}"
    )
}

fn clients(file: &str) -> PathBuf {
    top().join("tests/hosts/clients").join(file)
}

/// A program that asks for the shop all the time.
struct Load {
    outcomes: PathBuf,
    _process: Process,
}

impl Load {
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.outcomes).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn count(&self, kind: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.starts_with(kind))
            .count()
    }

    /// Waits for so many more requests of every kind.
    fn goes_on(&self, more: usize) {
        for kind in KINDS {
            let goal = self.count(kind) + more;
            eventually(&format!("more requests: {kind}"), || {
                (self.count(kind) >= goal).then_some(())
            });
        }
    }

    /// Waits for further answers of this instance.
    fn is_answered_by(&self, name: &str) {
        let answer = format!("ok {name}");
        let answers = || {
            self.lines()
                .iter()
                .filter(|line| line.ends_with(&answer))
                .count()
        };
        let goal = answers() + 20;
        eventually(&format!("answers of {name}"), || {
            (answers() >= goal).then_some(())
        });
    }

    fn failures(&self) -> Vec<String> {
        let lines = self.lines().into_iter();
        lines.filter(|line| line.contains(" failed ")).collect()
    }

    /// What failed of this kind did so in a row, by a connection that was closed: the moment of the end, in which a client may come
    /// back before the last socket is gone.
    fn expect_one_cut(&self, kind: &str) {
        let lines = self.lines().into_iter();
        let of_kind: Vec<String> = lines.filter(|line| line.starts_with(kind)).collect();
        let is_failure = |line: &String| line.contains(" failed ");
        let cuts: Vec<&[String]> = of_kind
            .chunk_by(|one, next| is_failure(one) == is_failure(next))
            .filter(|run| is_failure(&run[0]))
            .collect();
        assert!(cuts.len() <= 1, "{cuts:?}");
        let closed = [
            "RemoteDisconnected",
            "ConnectionReset",
            "BrokenPipe",
            "IncompleteRead",
        ];
        for line in cuts.into_iter().flatten() {
            assert!(closed.iter().any(|error| line.contains(error)), "{line}");
        }
    }

    fn expect_no_failure(&self) {
        let failures = self.failures();
        let (total, first) = (self.lines().len(), &failures[..failures.len().min(5)]);
        assert!(
            failures.is_empty(),
            "{} of {total} requests failed: {first:#?}",
            failures.len()
        );
    }
}
