use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::failover::gateway_to_addresses;
use crate::harness::{Client, Mesh, Service, Sidecar, Target, eventually};

const USERS: usize = 24;

/// Who answers each user.
async fn homes(gateway: &Sidecar) -> BTreeMap<String, String> {
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let mut homes = BTreeMap::new();
    for number in 0..USERS {
        let user = format!("user-{number}");
        let answer = client.get_with("/", &[("x-user", &user)]).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{user}: {answer:?}");
        homes.insert(user, answer.body);
    }
    homes
}

fn hashed_by(policy: &str) -> String {
    format!(
        "balance: {{policy: {policy}, hash_on: [{{header: x-user}}, source_address], slow_start: 0s}}\n\
         outlier: {{base_ejection: 100ms}}\n"
    )
}

async fn a_users_home_is_lost_and_found(policy: &str) {
    let mesh = Mesh::new();
    let mut services = Vec::new();
    for name in ["a", "b", "c"] {
        services.push(Service::spawn(name, mesh.folder()).await);
    }
    let addresses: Vec<SocketAddr> = services.iter().map(|service| service.address).collect();
    let documents = |address| gateway_to_addresses(&addresses, &hashed_by(policy), address);
    let gateway = mesh.gateway(documents).await;
    let before = homes(&gateway).await;
    assert_eq!(homes(&gateway).await, before);
    // Another process, which is told of them in another order, has never heard of the first.
    let reversed: Vec<SocketAddr> = addresses.iter().rev().copied().collect();
    let documents = |address| gateway_to_addresses(&reversed, &hashed_by(policy), address);
    let elsewhere = Mesh::new();
    let another = elsewhere.gateway(documents).await;
    assert_eq!(homes(&another).await, before);
    let lost = before["user-0"].clone();
    let home = services.iter_mut().find(|service| service.name == lost);
    let home = home.expect("one of them");
    home.kill();
    let without = homes(&gateway).await;
    for (user, name) in &without {
        assert_ne!(*name, lost, "{user}");
        assert!(*name == before[user] || before[user] == lost, "{user}");
    }
    home.start_again(mesh.folder()).await;
    eventually("all users are at home", async || {
        (homes(&gateway).await == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn by_maglev_a_user_stays_with_an_endpoint_and_returns_to_it_when_it_is_back() {
    a_users_home_is_lost_and_found("maglev").await;
}

#[tokio::test]
async fn by_ring_hash_a_user_stays_with_an_endpoint_and_returns_to_it_when_it_is_back() {
    a_users_home_is_lost_and_found("ring_hash").await;
}

#[tokio::test]
async fn who_has_no_other_key_is_told_by_the_address_it_comes_from() {
    let mesh = Mesh::new();
    let mut services = Vec::new();
    for name in ["a", "b", "c"] {
        services.push(Service::start(name).await);
    }
    let addresses: Vec<SocketAddr> = services.iter().map(|service| service.address).collect();
    let documents = |address| gateway_to_addresses(&addresses, &hashed_by("maglev"), address);
    let gateway = mesh.gateway(documents).await;
    let mut answered = BTreeSet::new();
    for _ in 0..20 {
        let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
        answered.insert(client.get("/").await.expect("an answer").body);
    }
    assert_eq!(answered.len(), 1, "{answered:?}");
}

#[tokio::test]
async fn a_browser_is_given_a_cookie_and_stays_where_it_came() {
    let mesh = Mesh::new();
    let mut services = Vec::new();
    for name in ["a", "b", "c"] {
        services.push(Service::start(name).await);
    }
    let addresses: Vec<SocketAddr> = services.iter().map(|service| service.address).collect();
    let balance = "balance: {policy: maglev, hash_on: {cookie: home, ttl: 1h}}\n";
    let documents = |address| gateway_to_addresses(&addresses, balance, address);
    let gateway = mesh.gateway(documents).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let mut answered = BTreeSet::new();
    for _ in 0..60 {
        let first = client.get("/").await.expect("an answer");
        let field = first.headers["set-cookie"].to_str().expect("ASCII");
        let (cookie, rest) = field.split_once("; ").expect("attributes");
        assert_eq!(rest, "Path=/; Max-Age=3600; HttpOnly");
        let headers = [("cookie", "theme=dark"), ("cookie", cookie)];
        let second = client.get_with("/", &headers).await.expect("an answer");
        assert_eq!(second.body, first.body);
        assert!(!second.headers.contains_key("set-cookie"));
        answered.insert(first.body);
    }
    assert_eq!(answered.len(), 3, "each browser has a cookie of its own");
}
