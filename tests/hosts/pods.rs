//! Pods of the manifests that are shipped, on a real pod engine.

use crate::engine::{self, build_images, save_images};
use crate::machine::ready;
use crate::podman::{self, Podman};
use crate::process::{eventually, succeed};
use crate::sidecar::Registry;

const IMAGES: [&str; 3] = ["pillion", "pillion-init", "pillion-example"];
const MANIFEST: &str = "docker/kubernetes/app-plain.yaml";

#[test]
fn pods_of_the_manifest_call_each_other_through_the_sidecars_of_both_sides() {
    if !ready(&engine::NEEDS) || !ready(&podman::NEEDS) {
        return;
    }
    build_images();
    let podman = Podman::with_images(&save_images(&IMAGES), &IMAGES);
    let _registry = Registry::start(podman.network());
    podman.network().wait_for_listener(15010);

    succeed(podman.command().args(["kube", "play", MANIFEST]));
    let call = |path: &str| {
        let url = format!("http://shop{path}");
        // podman has no Services, so the name gets an address that leads nowhere; the sidecar goes by the name.
        let resolve = ["--resolve", "shop:80:192.0.2.9", &url];
        let curl = ["curl", "-sS", "--fail", "--max-time", "5"];
        podman.exec("client-pod-0-client", &[&curl[..], &resolve].concat())
    };
    let answer = eventually("the shop's pod to answer the client's", || call("/"));
    assert!(answer.contains("Hello from the shop"), "{answer}");
    for sidecar in ["client-pod-0-pillion-sidecar", "shop-pod-0-pillion-sidecar"] {
        eventually(&format!("{sidecar} to log the request"), || {
            podman
                .logs(sidecar)
                .contains("\"path\":\"/\"")
                .then_some(())
        });
    }
}
