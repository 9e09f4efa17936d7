use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::model::{AppHealth, AppPort, AppProbe, InboundMode, Name};
use crate::telemetry::access_log::Output;

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

fn sidecar(text: &str, variables: &[(&str, &str)]) -> Result<SidecarBootstrap, Vec<String>> {
    let environment = Environment::of(environment(variables));
    let read = decode_text(
        Some((Path::new("conf/sidecar.yaml"), text)),
        environment,
        sidecar::read,
    );
    read.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn registry(text: &str) -> Result<RegistryBootstrap, Vec<String>> {
    let file = Some((Path::new("registry.yaml"), text));
    let read = decode_text(file, Environment::default(), registry::read);
    read.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_container_needs_no_file() {
    let variables = environment(&[
        ("PILLION_SERVICE", "cart"),
        ("PILLION_NAMESPACE", "shop"),
        ("PILLION_APPS", "[{port: 8080, app: 3000}]"),
        ("PILLION_REGISTRY__ADDRESSES", "[http://registry:15010]"),
        ("PILLION_SNAPSHOT__PATH", "state/last.snapshot"),
        ("PILLION_LIMITS__HEADER_TIMEOUT", "5s"),
        ("HOME", "/root"),
    ]);
    let sidecar = SidecarBootstrap::read(None, variables).unwrap();
    let app = AppPort {
        service: Name::new("shop", "cart"),
        app: "127.0.0.1:3000".parse().unwrap(),
        port: 8080,
        protocol: None,
        listen: None,
        health: AppHealth {
            probe: AppProbe::Listening,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
        },
    };
    assert_eq!(sidecar.apps, [app]);
    assert_eq!(
        sidecar.registry.unwrap().addresses,
        ["http://registry:15010"]
    );
    assert_eq!(sidecar.snapshot, Some(PathBuf::from("state/last.snapshot")));
    assert_eq!(sidecar.limits.header_timeout, Duration::from_secs(5));
    assert_eq!(sidecar.outbound.unwrap().address.port(), 15_001);
}

#[test]
fn the_health_of_an_application_is_a_word_or_has_details() {
    let http = |path: &str| AppProbe::Http { path: path.into() };
    for (written, probe, interval) in [
        ("none", AppProbe::None, 5),
        ("listening", AppProbe::Listening, 1),
        ("tcp", AppProbe::Tcp, 5),
        ("{tcp: {}, interval: 7s}", AppProbe::Tcp, 7),
        ("{interval: 3s}", AppProbe::Listening, 3),
        ("{http: {path: /healthz}}", http("/healthz"), 5),
    ] {
        let text = format!("service: cart\nmesh: m\napps: [{{port: 80, health: {written}}}]");
        let health = sidecar(&text, &[]).unwrap().apps[0].health.clone();
        assert_eq!(
            (health.probe, health.interval.as_secs()),
            (probe, interval),
            "{written}"
        );
    }
    for wrong in [
        "nothing",
        "{http: {}}",
        "{http: {path: x}}",
        "{http: {path: /}, tcp: {}}",
        "{timeout: 0s}",
    ] {
        let text = format!("service: cart\nmesh: m\napps: [{{port: 80, health: {wrong}}}]");
        assert!(sidecar(&text, &[]).is_err(), "{wrong}");
    }
}

#[test]
fn the_environment_overrides_the_file_key_by_key() {
    let text = "service: cart\nmesh: mesh\nlog: {level: warn, format: json}\naccess_log: {path: a.log, sample: 50%}\n";
    let read = sidecar(
        text,
        &[("PILLION_LOG__LEVEL", "debug"), ("PILLION_MESH", "other")],
    )
    .unwrap();
    assert_eq!(read.log.level, "debug");
    assert_eq!(read.log.format, crate::telemetry::log::Format::Json);
    // The file's paths start from its folder, a variable's from where the process stands.
    assert_eq!(read.mesh, Some(PathBuf::from("other")));
    let access_log = read.access_log.unwrap();
    assert_eq!(access_log.output, Output::File(PathBuf::from("conf/a.log")));
    assert_eq!(access_log.sampling, 0.5);
}

#[test]
fn inbound_connections_keep_their_addresses_only_with_interception() {
    let text = "service: cart\nmesh: mesh.yaml\ninbound: {mode: tproxy}\n";
    let inbound = sidecar(&format!("{text}intercept: true"), &[])
        .unwrap()
        .inbound;
    assert_eq!(inbound.unwrap().mode, InboundMode::Tproxy);
    assert!(sidecar(text, &[]).is_err());
    let usual = sidecar("service: cart\nmesh: mesh.yaml", &[]).unwrap();
    assert_eq!(usual.inbound.unwrap(), Inbound::default());
}

#[test]
fn a_gateway_has_no_listeners_of_an_application() {
    let gateway = sidecar("mesh: gateway.yaml", &[]).unwrap();
    assert_eq!((gateway.outbound, gateway.inbound), (None, None));
    assert!(gateway.apps.is_empty());
    let client = sidecar(
        "mesh: mesh.yaml\noutbound: {passthrough: registered-only}",
        &[],
    )
    .unwrap();
    assert_eq!(
        client.outbound.unwrap().passthrough,
        Passthrough::RegisteredOnly
    );
}

#[test]
fn problems_of_the_file_and_of_the_environment_are_told_together() {
    let problems = sidecar(
        "servce: cart\nregistry: {addresses: [ftp://x]}\naccess_log: {fields: [statuss]}\n",
        &[
            ("PILLION_WORKRS", "2"),
            ("PILLION_WEIGHT", "many"),
            ("PILLION_REGISTRY__SERVICES", "[a/b/c]"),
            ("PILLION_APPS", "[{port: 1"),
        ],
    );
    let problems = problems.unwrap_err();
    let expected = [
        "conf/sidecar.yaml:1:1 servce: unknown key `servce`; did you mean `service`?",
        "conf/sidecar.yaml:2:24 registry.addresses[0]: `ftp://x` is not a registry's address; ",
        "conf/sidecar.yaml:3:23 access_log.fields[0]: `statuss` is not known here; did you mean `status`?",
        "environment PILLION_APPS: not YAML: ",
        "environment PILLION_REGISTRY__SERVICES registry.services[0]: `a/b/c` does not select services; ",
        "environment PILLION_WEIGHT weight: `many` is not a whole number; write 0 to 1000000",
        "environment PILLION_WORKRS workrs: unknown key `workrs`; did you mean `workers`?",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn trusted_networks_are_none_or_exactly_what_is_written() {
    let none = sidecar("mesh: m", &[]).unwrap();
    assert_eq!(none.trusted_networks, []);
    let text = "mesh: m\ntrusted_networks: [10.0.0.0/8, \"::1\"]\n";
    let some = sidecar(text, &[]).unwrap().trusted_networks;
    let some: Vec<String> = some.iter().map(ToString::to_string).collect();
    assert_eq!(some, ["10.0.0.0/8", "::1/128"]);
    let of_environment = sidecar("mesh: m", &[("PILLION_TRUSTED_NETWORKS", "[fd00::/8]")]);
    assert_eq!(of_environment.unwrap().trusted_networks.len(), 1);
}

#[test]
fn every_wrong_trusted_network_is_told_with_what_to_write() {
    let text = "mesh: m\ntrusted_networks: [10.1.0.0/8, office, '::ffff:10.0.0.0/104', 10.0.0.0/33]\ntrusted_network: []\n";
    let expected = [
        "conf/sidecar.yaml:2:20 trusted_networks[0]: `10.1.0.0/8` has bits set beyond its prefix; did you mean 10.0.0.0/8?",
        "conf/sidecar.yaml:2:32 trusted_networks[1]: `office` is not a network; such as 10.0.0.0/8, fd00::/8 or a single address",
        "conf/sidecar.yaml:2:40 trusted_networks[2]: `::ffff:10.0.0.0/104` is an IPv4 network written as IPv6; did you mean 10.0.0.0/8?",
        "conf/sidecar.yaml:2:63 trusted_networks[3]: `10.0.0.0/33` is not a network; such as 10.0.0.0/8, fd00::/8 or a single address",
        "conf/sidecar.yaml:3:1 trusted_network: unknown key `trusted_network`; did you mean `trusted_networks`?",
    ];
    assert_eq!(sidecar(text, &[]).unwrap_err(), expected);
}

#[test]
fn variables_of_kubernetes_and_of_the_command_line_are_passed_over() {
    let variables = [
        ("PILLION_REGISTRY_SERVICE_HOST", "10.0.0.1"),
        ("PILLION_REGISTRY_SERVICE_PORT", "15010"),
        ("PILLION_REGISTRY_SERVICE_PORT_HTTP", "15010"),
        ("PILLION_REGISTRY_PORT", "tcp://10.0.0.1:15010"),
        ("PILLION_REGISTRY_PORT_15010_TCP", "tcp://10.0.0.1:15010"),
        ("PILLION_REGISTRY_PORT_15010_TCP_PROTO", "tcp"),
        ("PILLION_REGISTRY_PORT_15010_TCP_PORT", "15010"),
        ("PILLION_REGISTRY_PORT_15010_TCP_ADDR", "10.0.0.1"),
        // The command line's own.
        ("PILLION_REGISTRY", "http://10.0.0.1:15010"),
        ("PILLION_REGISTRY_TOKEN", "secret"),
    ];
    assert!(sidecar("mesh: mesh.yaml", &variables).is_ok());
}

#[test]
fn a_name_server_is_for_the_application_beside_it_alone() {
    let text = "mesh: m\nservice: cart\nintercept: true\n";
    assert_eq!(sidecar(text, &[]).unwrap().dns, None);
    let of_environment = [("PILLION_DNS__UPSTREAMS", "[10.0.0.2, '[fd00::2]:5353']")];
    let dns = sidecar(text, &of_environment).unwrap().dns.unwrap();
    assert_eq!(dns.address.port(), 15_053);
    let upstreams = ["10.0.0.2:53", "[fd00::2]:5353"].map(|address| address.parse().unwrap());
    assert_eq!(dns.upstreams, upstreams);
    let default = sidecar(&format!("{text}dns: {{}}\n"), &[]).unwrap();
    assert_eq!(default.dns.unwrap().upstreams, []);

    let open = sidecar(&format!("{text}dns: {{address: 0.0.0.0:53}}\n"), &[]).unwrap_err();
    assert!(open[0].contains("0.0.0.0:53 can be reached from other machines"));
    for lonely in ["mesh: m\ndns: {}\n", "mesh: m\nservice: cart\ndns: {}\n"] {
        let lonely = sidecar(lonely, &[]).unwrap_err();
        assert!(
            lonely[0].contains("only redirected connections"),
            "{lonely:?}"
        );
    }
}

#[test]
fn a_mesh_must_come_from_somewhere() {
    let problems = sidecar("service: cart\n", &[]).unwrap_err();
    assert!(problems[0].contains("neither `mesh` nor `registry` says what the mesh is"));
}

#[test]
fn an_application_port_needs_a_service() {
    let problems =
        sidecar("mesh: m\napps: [{port: 80}, {port: 81, service: a}]\n", &[]).unwrap_err();
    assert_eq!(
        problems,
        ["conf/sidecar.yaml:2:8 apps[0]: `service` is missing"]
    );
}

#[test]
fn a_registry_beyond_loopback_needs_tls_and_a_token() {
    assert!(registry("").is_ok());
    assert!(registry("address: '[::1]:1'").is_ok());
    let open = registry("address: 0.0.0.0:15010").unwrap_err();
    assert!(open[0].contains("0.0.0.0:15010 can be reached from other machines; say `tls`"));
    assert!(registry("address: 0.0.0.0:1\ntls: {cert: a, key: b}").is_err());
    assert!(registry("address: 0.0.0.0:1\ntls: {cert: a, key: b}\ntoken_file: t").is_ok());
    assert!(registry("address: 0.0.0.0:1\ninsecure: true").is_ok());
}

#[test]
fn a_registry_removes_no_instance_before_it_is_critical() {
    let problems = registry("instances: {critical_after: 1m}").unwrap_err();
    assert!(problems[0].contains("`remove_after` is shorter than `critical_after`"));
}

#[test]
fn a_bootstrap_file_is_told_from_mesh_documents_by_its_keys() {
    assert_eq!(
        recognise("service: a\nregistry: {}\n"),
        Some(BootstrapKind::Sidecar)
    );
    assert_eq!(
        recognise("data: x\nlog: {}\n"),
        Some(BootstrapKind::Registry)
    );
    assert_eq!(recognise("kind: Service\nname: a\nweight: 1\n"), None);
    assert_eq!(recognise("nothing: known\n"), None);
    assert_eq!(recognise(""), None);
}

#[test]
fn a_second_document_and_broken_yaml_are_problems() {
    assert!(
        sidecar("mesh: m\n---\nmesh: n\n", &[]).unwrap_err()[0]
            .contains("a second document begins in line 3")
    );
    let broken = sidecar("mesh: [", &[]).unwrap_err();
    assert_eq!(broken.len(), 1, "{broken:?}");
}

#[test]
fn a_file_is_read_with_its_own_folder_as_the_start_of_paths() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    fs::write(&file, "data: store\ntls: {cert: a.pem, key: /b.key}\n").unwrap();
    let registry = RegistryBootstrap::read(Some(&file), Vec::new()).unwrap();
    assert_eq!(registry.data, folder.path().join("store"));
    let tls = registry.tls.unwrap();
    assert_eq!(
        (tls.cert, tls.key),
        (folder.path().join("a.pem"), PathBuf::from("/b.key"))
    );
    let missing = RegistryBootstrap::read(Some(&folder.path().join("none.yaml")), Vec::new());
    assert!(
        missing.unwrap_err()[0]
            .message
            .starts_with("cannot be read")
    );
}

#[test]
fn what_load_is_measured_of_is_the_machine_at_hand_unless_said_otherwise() {
    let with = |load: &str| sidecar(&format!("mesh: mesh.yaml\nservice: cart\n{load}"), &[]);
    assert_eq!(with("").unwrap().load.root, PathBuf::from("/"));
    let load = with("load: {root: /host, cgroup: /kubepods/pod7}")
        .unwrap()
        .load;
    assert_eq!(load.root, PathBuf::from("/host"));
    assert_eq!(load.cgroup, Some(PathBuf::from("/kubepods/pod7")));
    let problems = with("load: {cgroup: kubepods, every: 1s}").unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems
            .iter()
            .any(|one| one.contains("`kubepods` is a relative path"))
    );
}
