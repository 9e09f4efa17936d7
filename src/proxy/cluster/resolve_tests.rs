//! Resolving against a name server of the test's own, on loopback.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;
use crate::model::{Address, EndpointUpdate};
use crate::proxy::cluster::Cluster;
use crate::proxy::cluster::testing::{endpoint, key};

/// What the server does with every question.
#[derive(Clone)]
enum Behaviour {
    Addresses(Vec<[u8; 4]>, u32),
    Deny,
    Silent,
}

struct Server {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    questions: Arc<AtomicUsize>,
}

impl Server {
    async fn start(behaviour: Behaviour) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            questions: Arc::default(),
        };
        let (behaviour, questions) = (server.behaviour.clone(), server.questions.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                questions.fetch_add(1, Ordering::Relaxed);
                let behaviour = behaviour.lock().unwrap().clone();
                if let Some(answer) = answer(&buffer[..length], behaviour) {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        server
    }

    fn now(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

fn answer(question: &[u8], behaviour: Behaviour) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    match behaviour {
        Behaviour::Silent => return None,
        Behaviour::Deny => answer.metadata.response_code = ResponseCode::NXDomain,
        Behaviour::Addresses(addresses, ttl) if query.query_type() == RecordType::A => {
            let record = |ip: [u8; 4]| {
                let data = RData::from(IpAddr::from(ip));
                Record::from_rdata(query.name().clone(), ttl, data)
            };
            answer.add_answers(addresses.into_iter().map(record));
        }
        Behaviour::Addresses(..) => {}
    }
    answer.add_query(query);
    Some(answer.to_vec().unwrap())
}

/// A cluster of `host` and the resolver at work for it.
struct Scene {
    clusters: Arc<Clusters>,
    cluster: Arc<Cluster>,
    server: Server,
    _resolving: tokio_util::task::AbortOnDropHandle<()>,
}

impl Scene {
    async fn start(behaviour: Behaviour, host: &str) -> Self {
        let server = Server::start(behaviour).await;
        let clusters = Clusters::new(None);
        let cluster = clusters.get_or_create(&key());
        clusters.set_endpoints(update(&[host]));
        let resolver = Resolver::with_servers(&[server.address]).unwrap();
        let resolving = tokio::spawn(run(clusters.clone(), resolver));
        Self {
            clusters,
            cluster,
            server,
            _resolving: tokio_util::task::AbortOnDropHandle::new(resolving),
        }
    }

    fn addresses(&self) -> Vec<String> {
        let set = self.cluster.endpoints();
        set.endpoints
            .iter()
            .map(|e| e.address.to_string())
            .collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let guard = tokio::time::timeout(Duration::from_secs(60), waited).await;
        guard.unwrap_or_else(|_| panic!("never {what}: {:?}", self.addresses()));
    }

    async fn until_addresses(&self, expected: &[&str]) {
        self.until("resolved", |scene| scene.addresses() == expected)
            .await;
    }
}

fn update(hosts: &[&str]) -> EndpointUpdate {
    let named = |host: &&str| crate::model::Endpoint {
        address: Address::Name {
            host: (*host).into(),
            port: 8080,
        },
        ..endpoint(1)
    };
    EndpointUpdate {
        service: key().service,
        endpoints: hosts.iter().map(named).collect(),
    }
}

fn two() -> Behaviour {
    Behaviour::Addresses(vec![[192, 0, 2, 2], [192, 0, 2, 1]], 1)
}

#[tokio::test]
async fn a_name_becomes_an_endpoint_for_each_of_its_addresses() {
    let scene = Scene::start(two(), "reviews.test").await;
    scene
        .until_addresses(&["192.0.2.1:8080", "192.0.2.2:8080"])
        .await;
}

#[tokio::test]
async fn names_with_underscores_are_resolved() {
    let scene = Scene::start(two(), "shop_reviews_1.test").await;
    scene
        .until_addresses(&["192.0.2.1:8080", "192.0.2.2:8080"])
        .await;
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_time_to_live_is_up() {
    let scene = Scene::start(two(), "reviews.test").await;
    scene
        .until_addresses(&["192.0.2.1:8080", "192.0.2.2:8080"])
        .await;
    let kept = scene.cluster.endpoints().endpoints[1].id;
    scene.server.now(Behaviour::Addresses(
        vec![[192, 0, 2, 2], [192, 0, 2, 3]],
        300,
    ));
    scene
        .until_addresses(&["192.0.2.2:8080", "192.0.2.3:8080"])
        .await;
    assert_eq!(scene.cluster.endpoints().endpoints[0].id, kept);
}

#[tokio::test]
async fn the_last_good_answer_stays_through_silence_and_denial() {
    let scene = Scene::start(two(), "reviews.test").await;
    scene
        .until_addresses(&["192.0.2.1:8080", "192.0.2.2:8080"])
        .await;
    for behaviour in [Behaviour::Deny, Behaviour::Silent] {
        scene.server.now(behaviour);
        let asked = scene.server.questions();
        scene
            .until("asked again", |scene| scene.server.questions() >= asked + 2)
            .await;
        assert_eq!(scene.addresses(), ["192.0.2.1:8080", "192.0.2.2:8080"]);
    }
}

#[tokio::test]
async fn a_name_denied_at_first_is_found_when_it_exists() {
    let scene = Scene::start(Behaviour::Deny, "reviews.test").await;
    scene
        .until("asked", |scene| scene.server.questions() > 0)
        .await;
    assert!(scene.addresses().is_empty());
    scene.server.now(two());
    scene
        .until_addresses(&["192.0.2.1:8080", "192.0.2.2:8080"])
        .await;
}

#[tokio::test]
async fn the_hosts_file_answers_without_a_server() {
    let scene = Scene::start(Behaviour::Silent, "localhost").await;
    scene.until_addresses(&["127.0.0.1:8080"]).await;
}

#[tokio::test]
async fn a_name_nobody_wants_any_more_is_let_go() {
    let scene = Scene::start(two(), "reviews.test").await;
    scene
        .until("resolved", |scene| scene.addresses().len() == 2)
        .await;
    scene.clusters.set_endpoints(update(&["ratings.test"]));
    scene
        .until("resolved", |scene| scene.addresses().len() == 2)
        .await;
    let set = scene.cluster.endpoints();
    assert_eq!(set.endpoints[0].host().map(|h| &**h), Some("ratings.test"));
}

#[tokio::test]
async fn an_answers_time_to_live_is_kept_within_its_bounds() {
    for (ttl, expected) in [(0, TTL_MIN), (86_400, TTL_MAX)] {
        let server = Server::start(Behaviour::Addresses(vec![[192, 0, 2, 1]], ttl)).await;
        let resolver = Resolver::with_servers(&[server.address]).unwrap();
        assert_eq!(resolver.lookup("reviews.test").await.unwrap().ttl, expected);
    }
}

#[tokio::test]
async fn what_is_no_name_is_an_error() {
    let server = Server::start(two()).await;
    let resolver = Resolver::with_servers(&[server.address]).unwrap();
    let error = resolver.lookup("no such name").await.unwrap_err();
    assert!(
        matches!(error, LookupError::Name(_) | LookupError::Dns(_)),
        "{error}"
    );
}
