//! Traffic lanes over two hops, whose applications forward W3C baggage and nothing else; and beside what else decides where a
//! request goes.

use crate::harness::documents::{below, edge, route};
use crate::harness::{Answer, Client, Mesh, Service, Sidecar, Target, eventually};

const FRONTS: [(&str, Option<&str>); 2] = [("front", None), ("front-blue", Some("blue"))];
const BACKS: [(&str, Option<&str>); 4] = [
    ("back", None),
    ("back-too", None),
    ("back-blue", Some("blue")),
    ("back-green", Some("green")),
];

struct Shop {
    _mesh: Mesh,
    gateway: Sidecar,
    fronts: Vec<Service>,
    _backs: Vec<Service>,
}

async fn start(instances: &[(&str, Option<&str>)]) -> Vec<Service> {
    let mut services = Vec::new();
    for (name, _) in instances {
        services.push(Service::start(name).await);
    }
    services
}

fn service(name: &str, services: &[Service], instances: &[(&str, Option<&str>)]) -> String {
    let endpoint = |(service, (_, lane)): (&Service, &(&str, Option<&str>))| {
        let labels = lane.map(|lane| format!(", labels: {{lane: {lane}}}"));
        format!(
            "{{address: \"{}\"{}}}",
            service.address,
            labels.unwrap_or_default()
        )
    };
    let endpoints: Vec<String> = services.iter().zip(instances).map(endpoint).collect();
    format!(
        "kind: Service\nname: {name}\nports: [{{port: 80, protocol: http}}]\nbalance: round_robin\ngray: {{header: x-lane, baggage: lane}}\n\
         endpoints: [{}]\n---\n",
        endpoints.join(", ")
    )
}

async fn shop() -> Shop {
    let mesh = Mesh::new();
    let (fronts, backs) = (start(&FRONTS).await, start(&BACKS).await);
    let gateway = mesh
        .gateway(|address| {
            edge(address)
                + &route("front", &["backendRefs: [{name: front, port: 80}]"])
                + &route("back", &["backendRefs: [{name: back, port: 80}]"])
                + &service("front", &fronts, &FRONTS)
                + &service("back", &backs, &BACKS)
        })
        .await;
    for front in &fronts {
        front.relays_to(Target::direct(gateway.gateway, "back.test"), true);
    }
    Shop {
        _mesh: mesh,
        gateway,
        fronts,
        _backs: backs,
    }
}

impl Shop {
    /// Which fronts were asked by some requests with this header, and who behind them answered.
    async fn asks(&self, header: Option<(&str, &str)>) -> (Vec<usize>, Vec<String>) {
        self.asks_with(&Vec::from_iter(header)).await
    }

    async fn asks_with(&self, headers: &[(&str, &str)]) -> (Vec<usize>, Vec<String>) {
        let before: Vec<usize> = self.fronts.iter().map(Service::asked).collect();
        let mut client = Client::new(Target::direct(self.gateway.gateway, "front.test"));
        let mut answered = Vec::new();
        for _ in 0..20 {
            let answer = client.get_with("/", headers).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            answered.push(answer.body);
        }
        answered.sort();
        answered.dedup();
        let asked = self.fronts.iter().zip(before);
        (
            asked
                .map(|(front, before)| front.asked() - before)
                .collect(),
            answered,
        )
    }
}

#[tokio::test]
async fn a_lane_holds_on_every_hop_and_falls_back_to_the_base() {
    let shop = shop().await;
    let base = vec!["back".to_owned(), "back-too".to_owned()];
    // Base traffic meets no instance of a lane.
    assert_eq!(shop.asks(None).await, (vec![20, 0], base.clone()));
    // The header becomes baggage on the first hop, and is a lane again on the second.
    let blue = (vec![0, 20], vec!["back-blue".to_owned()]);
    assert_eq!(shop.asks(Some(("x-lane", "blue"))).await, blue);
    assert_eq!(shop.asks(Some(("baggage", "user=7,lane=blue"))).await, blue);
    // Of two names the header counts, and goes on as the only one.
    let both = shop.asks_with(&[("x-lane", "blue"), ("baggage", "lane=green")]);
    assert_eq!(both.await, blue);
    // A lane that has an instance only further on.
    let green = (vec![20, 0], vec!["back-green".to_owned()]);
    assert_eq!(shop.asks(Some(("x-lane", "green"))).await, green);
    // One that has none at all, and what is no name.
    for other in ["red", "blue/../x", ""] {
        assert_eq!(
            shop.asks(Some(("x-lane", other))).await,
            (vec![20, 0], base.clone())
        );
    }
}

/// `web` has two instances without a lane, and one in `blue`, which is a subset too; `other` takes over for it.
struct Web {
    _mesh: Mesh,
    _gateway: Sidecar,
    client: Client,
    bases: Vec<Service>,
    _others: [Service; 2],
}

impl Web {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let bases = vec![Service::start("base").await, Service::start("base").await];
        let others = [Service::start("blue").await, Service::start("other").await];
        let session = "sessionPersistence: {sessionName: s}, backendRefs: [{name: web, port: 80}]";
        let gateway = mesh
            .gateway(|address| {
                let [first, second] = [&bases[0], &bases[1]].map(|one| one.address);
                let [blue, other] = [&others[0], &others[1]].map(|one| one.address);
                edge(address)
                    + &route(
                        "web",
                        &[
                            below("/session", session),
                            below("/subset", "backendRefs: [{name: web-blue, port: 80}]"),
                            below("/", "backendRefs: [{name: web, port: 80}]"),
                        ],
                    )
                    + &format!(
                        "kind: Service\nname: web\nports: [{{port: 80, protocol: http}}]\ngray: {{header: x-lane}}\n\
                         subsets: {{web-blue: {{lane: blue}}}}\nfailover: other\n\
                         health: {{http: {{path: /healthz}}, interval: 100ms, healthy_threshold: 1, unhealthy_threshold: 1}}\n\
                         endpoints: [{{address: \"{first}\"}}, {{address: \"{second}\"}}, \
                         {{address: \"{blue}\", labels: {{lane: blue}}}}]\n---\n"
                    )
                    + &crate::harness::documents::service("other", &[other])
            })
            .await;
        let client = Client::new(Target::direct(gateway.gateway, "web.test"));
        let mut web = Self {
            _mesh: mesh,
            _gateway: gateway,
            client,
            bases,
            _others: others,
        };
        web.becomes("base", &[]).await;
        web.becomes("blue", BLUE).await;
        web
    }

    async fn becomes(&mut self, name: &str, headers: &[(&str, &str)]) {
        let client = &mut self.client;
        eventually(&format!("{name} answers {headers:?}"), async || {
            let answer = client.get_with("/", headers).await.ok()?;
            (answer.status == 200 && answer.body == name).then_some(())
        })
        .await;
    }

    async fn asks(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = self
            .client
            .get_with(path, headers)
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{path} {headers:?}: {}", answer.body);
        answer
    }
}

const BLUE: &[(&str, &str)] = &[("x-lane", "blue")];

#[tokio::test]
async fn a_subset_of_a_lane_serves_everybody() {
    let mut web = Web::start().await;
    for headers in [&[][..], BLUE, &[("x-lane", "red")]] {
        assert_eq!(
            web.asks("/subset", headers).await.body,
            "blue",
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn a_lane_that_is_well_needs_nobody_to_take_over() {
    let mut web = Web::start().await;
    web.bases.iter().for_each(|base| base.is_ill(true));
    web.becomes("other", &[]).await;
    for _ in 0..10 {
        assert_eq!(web.asks("/", BLUE).await.body, "blue");
        assert_eq!(web.asks("/", &[("x-lane", "red")]).await.body, "other");
    }
}

#[tokio::test]
async fn a_session_does_not_leave_its_lane() {
    let mut web = Web::start().await;
    let begun = async |web: &mut Web, headers: &[(&str, &str)]| {
        let answer = web.asks("/session", headers).await;
        let cookie = answer.headers["set-cookie"].to_str().expect("text");
        cookie.split(';').next().expect("a pair").to_owned()
    };
    let (of_base, of_blue) = (begun(&mut web, &[]).await, begun(&mut web, BLUE).await);
    for (cookie, lane, expected) in [
        (&of_base, None, "base"),
        (&of_base, Some("blue"), "blue"),
        (&of_blue, Some("blue"), "blue"),
        (&of_blue, None, "base"),
        (&of_blue, Some("red"), "base"),
    ] {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(lane.map(|lane| ("x-lane", lane)));
        assert_eq!(
            web.asks("/session", &headers).await.body,
            expected,
            "{headers:?}"
        );
    }
}
