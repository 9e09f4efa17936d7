use std::net::SocketAddr;

use hyper::Method;

use crate::harness::documents::{below, edge, route, service};
use crate::harness::{Client, Load, Mesh, Service, Sidecar, Target, eventually};

struct Scene {
    _mesh: Mesh,
    shop: Service,
    shadow: Service,
    other: Service,
    gateway: Sidecar,
}

impl Scene {
    async fn new() -> Self {
        let mesh = Mesh::new();
        let shop = Service::start("shop").await;
        let shadow = Service::start("shadow").await;
        let other = Service::start("other").await;
        let gateway = mesh
            .gateway(|address| documents(address, [&shop, &shadow, &other]))
            .await;
        Self {
            _mesh: mesh,
            shop,
            shadow,
            other,
            gateway,
        }
    }

    fn target(&self) -> Target {
        Target::direct(self.gateway.gateway, "shop.test")
    }
}

#[tokio::test]
async fn several_services_get_what_the_client_sends_and_only_one_answers() {
    let scene = Scene::new().await;
    let mut client = Client::new(scene.target());
    for (method, body) in [
        (Method::POST, "five!"),
        (Method::GET, ""),
        (Method::POST, ""),
    ] {
        let fields = [("x-echo", "1"), ("x-user", "ann")];
        let answer = client.send_with(method, "/all/a?b=c", &fields, body).await;
        let answer = answer.expect("the gateway answers");
        assert_eq!(answer.body, scene.shop.echoed());
        assert!(answer.body.contains("\nx-user: ann\n"), "{}", answer.body);
        assert!(
            answer.body.ends_with(&format!("\n{body}")),
            "{}",
            answer.body
        );
        for service in [&scene.shadow, &scene.other] {
            eventually("the same arrives", async || {
                (service.echoed() == answer.body).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_a_mirror_and_its_failures_are_its_own() {
    let scene = Scene::new().await;
    let mut client = Client::new(scene.target());
    for _ in 0..3 {
        // The mirror never answers this one.
        let answer = client.get("/hold").await;
        let answer = answer.expect("the gateway answers");
        assert_eq!((answer.status, &*answer.body), (200, "shop"));
    }
    scene.shadow.fails(true);
    for _ in 0..20 {
        let answer = client.get("/shadow-only").await;
        assert_eq!(answer.expect("the gateway answers").status, 200);
    }
    let answer = client.get("/nobody").await.expect("the gateway answers");
    assert_eq!((answer.status, &*answer.body), (200, "shop"));
}

#[tokio::test]
async fn what_one_backend_gets_is_copied_and_nothing_else() {
    let scene = Scene::new().await;
    let mut client = Client::new(scene.target());
    let mut statuses = Vec::new();
    // Of a fair coin, 40 throws are the same once in 5 * 10^11 runs.
    for _ in 0..40 {
        let answer = client.get("/split").await.expect("the gateway answers");
        statuses.push(answer.status);
    }
    let of_shop = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..40).contains(&of_shop), "{statuses:?}");
    assert_eq!(scene.shop.asked(), of_shop);
    eventually("each is copied", async || {
        (scene.shadow.asked() == of_shop).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_share_of_requests_is_copied() {
    let scene = Scene::new().await;
    let load = Load::start(&scene.target(), "/share", 4);
    load.asks(2_000).await;
    let journal = load.stop().await;
    journal.expect_no_failure();
    let total = journal.total();
    assert_eq!(scene.shop.asked(), total);
    let metrics = scene.gateway.admin("/metrics").await.expect("metrics");
    let of = |name: &str| -> f64 {
        let line = metrics.body.lines().find(|line| {
            line.starts_with(&format!(
                "pillion_upstream_{name}_total{{service=\"default/shadow\""
            ))
        });
        let value = line.and_then(|line| line.rsplit(' ').next());
        value
            .expect("the series is there")
            .parse()
            .expect("a number")
    };
    // A fifth, with a standard deviation of 0.9 points; six of them either way never fail by chance.
    let share = (of("mirrored") + of("mirrors_skipped")) / total as f64;
    assert!((0.145..0.255).contains(&share), "{share}");
    assert_eq!(scene.other.asked(), 0);
}

fn documents(gateway: SocketAddr, services: [&Service; 3]) -> String {
    let mirror = |name: &str, more: &str| {
        format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 80}}{more}}}}}"
        )
    };
    let fifth = ", fraction: {numerator: 1, denominator: 5}";
    let shop = "name: shop, port: 80";
    // So that `shop` does not hold.
    let rewritten = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /}}}], \
                     name: shop, port: 80";
    let rules = [
        (
            "/all",
            [mirror("shadow", ""), mirror("other", "")].join(", "),
            shop,
        ),
        ("/hold", mirror("shadow", ", percent: 100"), rewritten),
        ("/shadow-only", mirror("shadow", ""), shop),
        (
            "/share",
            [mirror("shadow", fifth), mirror("other", ", percent: 0")].join(", "),
            shop,
        ),
        ("/nobody", mirror("nobody", ""), shop),
    ];
    let rules = rules.map(|(path, filters, backend)| {
        let rest = format!("filters: [{filters}], backendRefs: [{{{backend}}}]");
        below(path, &rest)
    });
    // Copies of what `shop` gets, and of all.
    let of_shop = format!("name: shop, port: 80, filters: [{}]", mirror("shadow", ""));
    let of_all = mirror("other", "");
    let split =
        format!("filters: [{of_all}], backendRefs: [{{{of_shop}}}, {{name: nobody, port: 80}}]");
    let rules = [&rules[..], &[below("/split", &split)]].concat();
    let services = services.map(|one| service(&one.name, &[one.address]));
    [
        edge(gateway),
        route("shop", &rules),
        service("nobody", &[]),
        services.concat(),
    ]
    .concat()
}
