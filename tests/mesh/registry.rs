use hyper::Method;

use crate::harness::{Load, Mesh, Registry, Service, Sidecar, eventually};

/// A registry, two instances of `shop` behind sidecars, and the sidecar of a caller.
struct Shop {
    // Processes first: they end before the folder and the applications go.
    caller: Sidecar,
    _instances: Vec<Sidecar>,
    registry: Registry,
    _applications: Vec<Service>,
    mesh: Mesh,
}

impl Shop {
    async fn open() -> Self {
        let mesh = Mesh::new();
        let registry = mesh.registry().await;
        registry
            .apply("kind: Service\nname: shop\nports: [{port: 80, protocol: http}]\n")
            .await;
        let (mut applications, mut instances) = (Vec::new(), Vec::new());
        for name in ["a", "b"] {
            let application = Service::start(name).await;
            instances.push(
                mesh.sidecar(
                    &format!("shop-{name}"),
                    "shop",
                    &application,
                    registry.address,
                )
                .await,
            );
            applications.push(application);
        }
        let caller = mesh.caller("caller", registry.address).await;
        caller.reaches("shop", &["a", "b"]).await;
        Self {
            caller,
            _instances: instances,
            registry,
            _applications: applications,
            mesh,
        }
    }
}

#[tokio::test]
async fn killing_the_registry_fails_nothing() {
    let mut shop = Shop::open().await;
    let load = Load::start(&shop.caller.target("shop"), "/", 8);
    load.asks(500).await;
    shop.registry.process.kill();
    load.asks(3_000).await;
    let registry = shop.mesh.registry_at(shop.registry.address).await;
    load.asks(1_000).await;
    let journal = load.stop().await;
    journal.expect_no_failure();
    assert!(journal.of("a") > 0 && journal.of("b") > 0, "{journal:?}");
    drop(registry);
}

#[tokio::test]
async fn a_sidecar_starts_from_its_snapshot_when_no_registry_answers() {
    let mut shop = Shop::open().await;
    shop.registry.process.kill();
    shop.caller.process.terminate();
    assert!(
        shop.caller.process.exit_status().await.success(),
        "{}",
        shop.caller.process.output()
    );
    shop.mesh.start_again(&mut shop.caller).await;
    shop.caller.reaches("shop", &["a", "b"]).await;
}

#[tokio::test]
async fn a_bad_document_is_refused_with_every_problem_and_changes_nothing() {
    let shop = Shop::open().await;
    let load = Load::start(&shop.caller.target("shop"), "/", 4);
    let bad = "kind: HTTPRoute\nname: shop\nhostnames: [shop]\nrules: [{backendRefs: [{name: nobody, port: 80, wait: 1}]}]\ntimeout: 1s\n";
    let answer = shop
        .registry
        .ask(Method::POST, "/v1/documents", bad)
        .await
        .expect("the registry answers");
    assert_eq!(answer.status, 422, "{}", answer.body);
    for part in ["wait", "timeout"] {
        assert!(
            answer.body.contains(part),
            "`{part}` is not among the problems: {}",
            answer.body
        );
    }
    load.asks(500).await;
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn applying_a_document_200_times_under_load_fails_nothing() {
    let shop = Shop::open().await;
    let load = Load::start(&shop.caller.target("shop"), "/", 8);
    let mut client = crate::harness::Client::new(shop.caller.target("shop"));
    for revision in 1..=200 {
        shop.registry.apply(&route_that_says(revision)).await;
        let wanted = revision.to_string();
        eventually(&format!("revision {revision} is in effect"), async || {
            let answer = client.get("/").await.expect("the sidecar answers");
            (answer.headers.get("x-revision")?.to_str().ok()? == wanted).then_some(())
        })
        .await;
    }
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn an_instance_that_registers_gets_its_share_within_moments() {
    let shop = Shop::open().await;
    let load = Load::start(&shop.caller.target("shop"), "/", 4);
    let newcomer = Service::start("c").await;
    let sidecar = shop
        .mesh
        .sidecar("shop-c", "shop", &newcomer, shop.registry.address)
        .await;
    eventually("the new instance is used", async || {
        (load.answers_of("c") > 50).then_some(())
    })
    .await;
    load.stop().await.expect_no_failure();
    drop(sidecar);
}

fn route_that_says(revision: usize) -> String {
    format!(
        "kind: HTTPRoute\nname: shop\nhostnames: [shop]\nrules:\n  - filters:\n      \
         - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-revision, value: \"{revision}\"}}]}}}}\n    \
         backendRefs: [{{name: shop, port: 80}}]\n"
    )
}

#[tokio::test]
async fn a_task_goes_to_the_application_through_its_sidecar() {
    let shop = Shop::open().await;
    let client = pillion::api::ClientOptions::new(&format!("http://{}", shop.registry.address));
    let client = pillion::api::Client::new(&client).expect("a client");
    let mut names = std::collections::HashSet::new();
    for number in 0..20 {
        let headers = serde_json::json!({"x-echo": "1", "x-number": number.to_string()});
        let task =
            serde_json::json!({"service": "shop", "headers": headers, "body": {"number": number}});
        let submitted: pillion::api::SubmittedTask =
            client.post("/v1/tasks", &task).await.expect("accepted");
        let path = format!("/v1/tasks/{}?wait=8s", submitted.id);
        let task: pillion::api::Task = client.get(&path).await.expect("a task");
        assert_eq!(task.state, pillion::api::TaskState::Done, "{task:?}");
        let seen = task.answer.expect("an answer");
        assert!(seen.starts_with("POST /tasks\n"), "{seen}");
        assert!(
            seen.ends_with(&format!("\n{{\"number\":{number}}}")),
            "{seen}"
        );
        assert!(
            seen.contains(&format!("x-mesh-task-id: {}\n", task.id)),
            "{seen}"
        );
        names.insert(task.instance.expect("an instance"));
    }
    assert!(!names.is_empty());
}
