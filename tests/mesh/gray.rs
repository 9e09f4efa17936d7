//! Traffic lanes over two hops: the applications forward W3C baggage and nothing else.

use crate::harness::documents::{edge, route};
use crate::harness::{Client, Mesh, Service, Sidecar, Target};

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
        let before: Vec<usize> = self.fronts.iter().map(Service::asked).collect();
        let mut client = Client::new(Target::direct(self.gateway.gateway, "front.test"));
        let mut answered = Vec::new();
        for _ in 0..20 {
            let headers: Vec<_> = header.into_iter().collect();
            let answer = client.get_with("/", &headers).await.expect("an answer");
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
