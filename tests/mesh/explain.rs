//! What is explained is what happens: random documents and requests, by files, on the admin page, and for real.

use hyper::Method;
use pillion::config::{Loader, Source};
use pillion::explain::{Asked, Explained, Known, Outcome, documented};
use pillion::model::Snapshot;

use crate::harness::documents::edge;
use crate::harness::{Client, Mesh, Service, Target};

const CONFIGURATIONS: usize = 12;
const REQUESTS: usize = 250;
const PATHS: [&str; 9] = [
    "/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/a//b", "/x/../a", "/b%2Fc",
];

/// Documents and requests by chance; the seed is told where a test fails.
struct Chance(fastrand::Rng);

impl Chance {
    fn of<'o>(&mut self, options: &[&'o str]) -> &'o str {
        options[self.0.usize(..options.len())]
    }

    fn happens(&mut self, percent: u8) -> bool {
        self.0.u8(..100) < percent
    }

    fn route(&mut self, number: usize) -> String {
        let rules: Vec<String> = (0..self.0.usize(1..4)).map(|_| self.rule()).collect();
        let hostnames = self.of(&[
            "",
            "hostnames: [a.test], ",
            "hostnames: ['*.test'], ",
            "hostnames: [b.test, '*.a.test'], ",
        ]);
        let year = 2020 + self.0.usize(..3);
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: r{number}, creationTimestamp: '{year}-01-01T00:00:00Z'}}\n\
             spec: {{parentRefs: [{{name: edge}}], {hostnames}rules: [{}]}}\n---\n",
            rules.join(", ")
        )
    }

    fn rule(&mut self) -> String {
        let matches: Vec<String> = (0..self.0.usize(1..3)).map(|_| self.conditions()).collect();
        let answer = self.of(&[
            "",
            "",
            "",
            "{type: RequestRedirect, requestRedirect: {hostname: new.test, statusCode: 301}}",
            "{type: DirectResponse, directResponse: {statusCode: 418}}",
        ]);
        let filter = self.of(&[
            "",
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: '1'}]}}",
            "{type: URLRewrite, urlRewrite: {hostname: inner.test}}",
            "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /full}}}",
        ]);
        let (filter, backends) = match answer {
            "" => (filter, self.backends()),
            answer => (answer, String::new()),
        };
        format!(
            "{{matches: [{}], filters: [{filter}]{backends}}}",
            matches.join(", ")
        )
    }

    fn backends(&mut self) -> String {
        let one = |chance: &mut Self| {
            let name = chance.of(&["a", "b", "c", "c", "missing"]);
            format!("{{name: {name}, port: 80, weight: {}}}", chance.0.u8(..3))
        };
        let backends: Vec<String> = (0..self.0.usize(1..4)).map(|_| one(self)).collect();
        format!(", backendRefs: [{}]", backends.join(", "))
    }

    fn conditions(&mut self) -> String {
        let mut conditions = vec![self.of(&[
            "path: {value: /}",
            "path: {value: /a}",
            "path: {value: /a/b}",
            "path: {type: Exact, value: /a}",
            "path: {type: Exact, value: /a/b}",
            "path: {type: RegularExpression, value: '/[ab]+'}",
        ])];
        if self.happens(30) {
            conditions.push(self.of(&["method: GET", "method: POST"]));
        }
        if self.happens(30) {
            conditions.push(self.of(&[
                "headers: [{name: x-one, value: '1'}]",
                "headers: [{name: x-one, value: '1'}, {name: x-two, type: RegularExpression, value: '[12]'}]",
            ]));
        }
        if self.happens(20) {
            conditions.push(self.of(&[
                "queryParams: [{name: q, value: '1'}]",
                "queryParams: [{name: q, value: '2'}]",
            ]));
        }
        format!("{{{}}}", conditions.join(", "))
    }

    fn request(&mut self) -> (String, String, String, Vec<(&'static str, &'static str)>) {
        let method = self.of(&["GET", "POST", "HEAD"]).to_owned();
        let host = self
            .of(&["a.test", "b.test", "x.a.test", "other.example", "A.TEST:80"])
            .to_owned();
        let query = self.of(&["", "", "?q=1", "?q=2&q=1", "?p"]);
        let target = self.of(&PATHS).to_owned() + query;
        let mut headers = vec![("x-echo", "1")];
        for header in [("x-one", "1"), ("x-one", "2"), ("x-two", "2")] {
            if self.happens(30) {
                headers.push(header);
            }
        }
        (method, host, target, headers)
    }
}

fn explained(snapshot: &Snapshot, asked: &Asked) -> Explained {
    let known = Known {
        endpoints: &|key| documented(snapshot, key),
        interfaces: false,
    };
    asked
        .explain(snapshot, "default", known)
        .expect("a question")
}

#[tokio::test]
async fn random_requests_go_where_they_are_explained_to_go() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = Chance(fastrand::Rng::with_seed(seed));
    let services = [
        Service::start("a").await,
        Service::start("b").await,
        Service::start("c").await,
    ];
    for _ in 0..CONFIGURATIONS {
        let mesh = Mesh::new();
        let routes: String = (0..chance.0.usize(1..8))
            .map(|number| chance.route(number))
            .collect();
        let backends: String = services
            .iter()
            .map(|service| crate::harness::documents::service(&service.name, &[service.address]))
            .collect();
        let mut documents = String::new();
        let gateway = mesh
            .gateway(|address| {
                documents = edge(address) + &routes + &backends;
                documents.clone()
            })
            .await;
        let sources = [Source::file("mesh.yaml", documents.as_str())];
        let snapshot = Loader::new().load(&sources).expect("usable").snapshot;
        for number in 0..REQUESTS {
            let (method, host, target, headers) = chance.request();
            let asked = Asked {
                request: format!("{method} http://{host}{target}"),
                headers: headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}"))
                    .collect(),
                ..Asked::default()
            };
            let told = explained(&snapshot, &asked);
            let mut client = Client::new(Target::direct(gateway.gateway, &host));
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let answer = client
                .send_with(method.clone(), &target, &headers, "")
                .await;
            let answer = answer.expect("the gateway answers");
            let location = answer
                .headers
                .get("location")
                .map(|value| value.to_str().expect("text"));
            let agrees = match &told.outcome {
                Outcome::Refused { status, .. } => answer.status == *status,
                Outcome::Answered {
                    status,
                    location: expected,
                    ..
                } => answer.status == *status && location == expected.as_deref(),
                Outcome::Outside => false,
                Outcome::Forwarded => {
                    told.backends
                        .iter()
                        .filter(|one| one.weight > 0)
                        .any(|backend| match (&backend.invalid, answer.status) {
                            (Some(_), 500) => true,
                            (None, 200) if method == Method::HEAD => true,
                            (None, 200) => answer.body.lines().next().is_some_and(|line| {
                                let host = answer
                                    .body
                                    .lines()
                                    .find_map(|line| line.strip_prefix("host: "));
                                backend.asked == format!("{line} as {}", host.unwrap_or_default())
                            }),
                            _ => false,
                        })
                }
            };
            assert!(
                agrees,
                "seed {seed}: {} {}\n{told}\n{documents}",
                answer.status, answer.body
            );
            if number % 25 == 0 {
                agrees_with_page(&gateway, &asked, &told).await;
            }
        }
    }
}

/// What the running proxy says is what the files say, but for what is known of endpoints.
async fn agrees_with_page(gateway: &crate::harness::Sidecar, asked: &Asked, told: &Explained) {
    let encoded = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let mut page = format!("/explain?format=json&request={}", encoded(&asked.request));
    for header in &asked.headers {
        page += &format!("&header={}", encoded(header));
    }
    let answer = gateway.admin(&page).await.expect("a page");
    let mut live: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let mut told = serde_json::json!(told);
    for explained in [&mut live, &mut told] {
        let backends = explained["backends"].as_array_mut().expect("a list");
        backends
            .iter_mut()
            .for_each(|backend| backend["endpoints"] = serde_json::Value::Null);
    }
    assert_eq!(live, told);
}

#[tokio::test]
async fn who_has_the_token_is_told_of_the_request_itself() {
    let mesh = Mesh::new();
    let service = Service::start("a").await;
    mesh.write("token", "a-token-of-this-test\n");
    let bootstrap = "access_log: {path: access.log}\n";
    let documents = |address| {
        let header = "headers: [{name: x-tester, value: 'yes'}]";
        edge(address)
            + &crate::harness::documents::route(
                "shop",
                &[
                    format!(
                        "name: testers, matches: [{{{header}}}], backendRefs: [{{name: missing}}]"
                    ),
                    "name: all, backendRefs: [{name: a, port: 80}]".to_owned(),
                ],
            )
            + &crate::harness::documents::service("a", &[service.address])
    };
    let gateway = mesh.gateway_with_token("token", bootstrap, documents).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let field = "x-mesh-explain";
    let ask = [(field, "a-token-of-this-test"), ("x-echo", "1")];
    let answer = client.get_with("/", &ask).await.expect("an answer");
    let told = answer.headers[field].to_str().expect("text").to_owned();
    let expected = format!(
        r#"listener="default/edge/http"; rule="default/shop/all"; lost="default/shop/testers: x-tester"; service="default/a"; endpoint="{}"; attempts=1"#,
        service.address
    );
    assert_eq!(told, expected);
    assert!(
        !answer.body.contains(field),
        "the token goes no further: {}",
        answer.body
    );

    let refused = [ask[0], ("x-tester", "yes")];
    let answer = client.get_with("/", &refused).await.expect("an answer");
    assert_eq!(answer.status, 500);
    let told = answer.headers[field].to_str().expect("text");
    assert!(
        told.contains(r#"rule="default/shop/testers""#) && told.contains("missing"),
        "{told}"
    );

    for wrong in ["a-token-of-this-tesT", "", "a-token-of-this-test2"] {
        let asked = [(field, wrong), ("x-echo", "1")];
        let answer = client.get_with("/", &asked).await.expect("an answer");
        assert!(!answer.headers.contains_key(field), "{wrong}");
        assert!(!answer.body.contains(field), "{}", answer.body);
    }
    crate::harness::eventually("the log has it", async || {
        let log = std::fs::read_to_string(mesh.folder().join("access.log")).ok()?;
        assert!(!log.contains("a-token-of"), "{log}");
        log.contains(r#"lost=\"default/shop/testers: x-tester\""#)
            .then_some(())
    })
    .await;
}
