use std::net::SocketAddr;

use hyper::Method;
use tokio::process::Command;

use crate::harness::{Load, Mesh, Registry, Service, Sidecar, eventually, free_address};

#[tokio::test]
async fn an_instance_gets_traffic_as_long_as_its_application_can_be_reached() {
    let mesh = Mesh::new();
    let registry = mesh.registry().await;
    registry
        .apply("kind: Service\nname: shop\nports: [{port: 80, protocol: http}]\n")
        .await;
    let steady = Service::start("steady").await;
    let mut other = Service::spawn("other", mesh.folder()).await;
    let _steady = mesh
        .sidecar("shop-steady", "shop", &steady, registry.address)
        .await;
    let sidecar = mesh
        .sidecar("shop-other", "shop", &other, registry.address)
        .await;
    let caller = mesh.caller("caller", registry.address).await;
    caller.reaches("shop", &["steady", "other"]).await;
    let load = Load::start(&caller.target("shop"), "/", 4);
    load.asks(200).await;

    other.kill();
    becomes(&registry, &sidecar, 503, "critical").await;
    let reason = sidecar.admin("/ready").await.expect("it answers").body;
    assert!(reason.contains("nothing listens there"), "{reason}");
    let started = sidecar.admin("/started").await.expect("it answers");
    assert_eq!(
        started.status, 200,
        "the sidecar itself is as good as before"
    );
    load.asks(200).await;

    other.start_again(mesh.folder()).await;
    becomes(&registry, &sidecar, 200, "passing").await;
    caller.reaches("shop", &["other"]).await;
    load.stop().await.expect_no_failure();
}

/// Waits until the sidecar's readiness, and the state of its instance in the registry, are so.
async fn becomes(registry: &Registry, sidecar: &Sidecar, status: u16, state: &str) {
    eventually(&format!("{} is {state}", sidecar.name), async || {
        let ready = sidecar.admin("/ready").await.ok()?;
        let path = "/v1/instances/shop.default.shop-other";
        let instance = registry.ask(Method::GET, path, "").await.ok()?;
        let instance: serde_json::Value = serde_json::from_str(&instance.body).ok()?;
        (ready.status == status && instance["state"] == state).then_some(())
    })
    .await;
}

/// `pillion await` for the sidecar with this admin address, and what it printed.
async fn await_with(admin: SocketAddr, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pillion"))
        .args(["await", "--admin", &admin.to_string()])
        .args(arguments)
        .output()
        .await
        .expect("pillion runs");
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

#[tokio::test]
async fn an_application_waits_for_its_sidecar_and_a_job_takes_it_along() {
    let mesh = Mesh::new();
    let (code, printed) = await_with(free_address(), &["--timeout", "1"]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("not there within 1s"), "{printed}");

    let registry = mesh.registry().await;
    let mut sidecar = mesh.caller("job", registry.address).await;
    let (code, printed) = await_with(sidecar.admin, &["--", "echo", "started"]).await;
    assert_eq!((code, printed.as_str()), (Some(0), "started\n"));
    let (code, printed) = await_with(sidecar.admin, &["--", "/no/such/program"]).await;
    assert_eq!(code, Some(1));
    assert!(printed.contains("/no/such/program"), "{printed}");
    sidecar.process.expect_running();

    let job = ["--quit", "--", "sh", "-c", "echo done; exit 7"];
    let (code, printed) = await_with(sidecar.admin, &job).await;
    assert_eq!((code, printed.as_str()), (Some(7), "done\n"));
    let status = sidecar.process.exit_status().await;
    assert!(status.success(), "{}", sidecar.process.output());
}
