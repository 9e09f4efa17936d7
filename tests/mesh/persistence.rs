use std::collections::HashSet;

use crate::harness::documents::{below, edge, route};
use crate::harness::{Answer, Client, Mesh, Service, Sidecar, Target, eventually};

const CLIENTS: usize = 60;

struct Shop {
    mesh: Mesh,
    gateway: Sidecar,
    services: Vec<Service>,
}

/// `a` has two instances and `b` one; `session` is what each of three rules says of sessions.
async fn shop(weights: (u32, u32)) -> Shop {
    let mesh = Mesh::new();
    let mut services = Vec::new();
    for name in ["a1", "a2", "b1"] {
        services.push(Service::start(name).await);
    }
    let gateway = mesh
        .gateway(|address| edge(address) + &documents(&services, weights, 2))
        .await;
    Shop {
        mesh,
        gateway,
        services,
    }
}

/// The first `instances` of `a`, and `b`.
fn documents(services: &[Service], (a, b): (u32, u32), instances: usize) -> String {
    let backends = format!(
        "backendRefs: [{{name: a, port: 80, weight: {a}}}, {{name: b, port: 80, weight: {b}}}]"
    );
    let rule = |path: &str, session: &str| {
        below(path, &format!("sessionPersistence: {session}, {backends}"))
    };
    let service = |name: &str, of: &[Service]| {
        let addresses: Vec<_> = of.iter().map(|one| one.address).collect();
        // By turns, so that all are met.
        crate::harness::documents::service(name, &addresses)
            .replace("ports:", "balance: round_robin\nports:")
    };
    route(
        "shop",
        &[
            rule("/cookie", "{sessionName: cart}"),
            rule("/header", "{type: Header, sessionName: x-session}"),
            rule(
                "/short",
                "{type: Header, sessionName: x-session, absoluteTimeout: 1s}",
            ),
            rule("/idle", "{sessionName: s, idleTimeout: 8s}"),
            rule(
                "/kept",
                "{absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}",
            ),
        ],
    ) + &service("a", &services[..instances])
        + &service("b", &services[2..])
}

impl Shop {
    fn client(&self) -> Client {
        Client::new(Target::direct(self.gateway.gateway, "shop.test"))
    }

    /// Other weights, or fewer instances of `a`.
    async fn becomes(&self, weights: (u32, u32), instances: usize) {
        let before = self.revision().await;
        let text = edge(self.gateway.gateway) + &documents(&self.services, weights, instances);
        self.mesh.write("mesh.yaml", &text);
        eventually("the documents are in effect", async || {
            (self.revision().await > before).then_some(())
        })
        .await;
    }

    async fn revision(&self) -> u64 {
        let page = self.gateway.admin("/config").await.expect("a page");
        let config: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
        config["revision"].as_u64().expect("a number")
    }
}

/// The value of the cookie that an answer gives.
fn given(answer: &Answer, name: &str) -> Option<String> {
    let cookie = answer.headers.get("set-cookie")?.to_str().ok()?;
    let value = cookie.strip_prefix(name)?.strip_prefix('=')?;
    Some(value.split(';').next()?.to_owned())
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_instance_whatever_the_weights() {
    let shop = shop((1, 1)).await;
    let mut client = shop.client();
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS {
        let answer = client.get("/cookie").await.expect("an answer");
        let cookie = given(&answer, "cart").expect("a session");
        assert_eq!(cookie.len(), 16, "{cookie}");
        sessions.push((format!("other=1; cart={cookie}; more=2"), answer.body));
    }
    let met: HashSet<_> = sessions.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(met.len(), 3, "{met:?}");
    // Even a weight of 0 keeps those who are there.
    for weights in [(1, 1), (0, 1), (1, 0)] {
        shop.becomes(weights, 2).await;
        for (cookie, name) in &sessions {
            let answer = client.get_with("/cookie", &[("cookie", cookie)]).await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.body, *name);
            assert!(
                !answer.headers.contains_key("set-cookie"),
                "that is no news"
            );
        }
    }
    // Now all of new clients go to `a`.
    for _ in 0..CLIENTS {
        let answer = client.get("/cookie").await.expect("an answer");
        assert!(answer.body.starts_with('a'), "{}", answer.body);
    }
}

#[tokio::test]
async fn whoever_loses_the_instance_gets_another_and_a_new_session() {
    let shop = shop((1, 0)).await;
    let mut client = shop.client();
    let cookie = eventually("the second instance begins a session", async || {
        let answer = client.get("/cookie").await.ok()?;
        (answer.body == "a2")
            .then(|| given(&answer, "cart"))
            .flatten()
    })
    .await;
    shop.becomes((1, 0), 1).await;
    let said = format!("cart={cookie}");
    let answer = client.get_with("/cookie", &[("cookie", &said)]).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, "a1"));
    let next = given(&answer, "cart").expect("a new session");
    assert_ne!(next, cookie);
    for wrong in [
        "",
        "x",
        "0000000000000000",
        "ffffffffffffffff-1",
        "\"quoted\"",
    ] {
        let said = format!("cart={wrong}");
        let answer = client.get_with("/cookie", &[("cookie", &said)]).await;
        assert_eq!(
            given(&answer.expect("an answer"), "cart").as_deref(),
            Some(&*next),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_header_is_a_session_for_whoever_says_it_again() {
    let shop = shop((1, 1)).await;
    let mut client = shop.client();
    for _ in 0..CLIENTS {
        let first = client.get("/header").await.expect("an answer");
        let session = first.headers["x-session"]
            .to_str()
            .expect("text")
            .to_owned();
        for _ in 0..3 {
            let again = client.get_with("/header", &[("x-session", &session)]).await;
            let again = again.expect("an answer");
            assert_eq!(again.body, first.body);
            assert_eq!(again.headers["x-session"], session);
        }
    }
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over() {
    let shop = shop((1, 1)).await;
    let mut client = shop.client();
    let first = client.get("/short").await.expect("an answer");
    let session = first.headers["x-session"]
        .to_str()
        .expect("text")
        .to_owned();
    // The clock of a session counts whole seconds.
    eventually("a new session begins", async || {
        let again = client.get_with("/short", &[("x-session", &session)]).await;
        let now = again.ok()?.headers["x-session"].to_str().ok()?.to_owned();
        (now != session).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_permanent_cookie_lasts_as_long_as_the_session() {
    let shop = shop((1, 1)).await;
    let answer = shop.client().get("/kept/x").await.expect("an answer");
    let cookie = answer.headers["set-cookie"].to_str().expect("text");
    assert!(cookie.starts_with("mesh-session-"), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/kept; Max-Age=3600; HttpOnly"),
        "{cookie}"
    );
}

#[tokio::test]
async fn whoever_is_not_idle_is_told_the_session_anew() {
    let shop = shop((1, 1)).await;
    let mut client = shop.client();
    let first = client.get("/idle").await.expect("an answer");
    let session = given(&first, "s").expect("a session");
    let parts = |session: &str| -> Vec<String> { session.split('-').map(str::to_owned).collect() };
    let said = format!("s={session}");
    let next = eventually("the session is told anew", async || {
        let again = client.get_with("/idle", &[("cookie", &said)]).await.ok()?;
        assert_eq!(again.body, first.body);
        given(&again, "s")
    })
    .await;
    let (old, new) = (parts(&session), parts(&next));
    assert_eq!(old[..2], new[..2], "the same, begun at the same time");
    assert!(new[2] > old[2], "{session} {next}");
}
