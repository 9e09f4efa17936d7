use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{backends, gateway, http_listener, route, rule};
use crate::harness::{Client, Mesh, Service, Target, free_address};

/// A certificate that signs itself, and its key.
struct Pair {
    certificate: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Pair {
    fn new(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.self_signed(&key).expect("signed");
        Self {
            certificate: certificate.pem(),
            der: certificate.der().clone(),
            key,
        }
    }

    fn secret(&self, name: &str) -> String {
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: infra}}\ntype: kubernetes.io/tls\n\
             data: {{tls.crt: {}, tls.key: {}}}\n---\n",
            base64(&self.certificate),
            base64(&self.key.serialize_pem())
        )
    }

    fn config_map(&self, name: &str) -> String {
        let lines = self.certificate.lines();
        let indented: String = lines.map(|line| format!("    {line}\n")).collect();
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata:\n  ca.crt: |\n{indented}---\n"
        )
    }

    fn server(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key);
        TlsAcceptor::from(Arc::new(config.expect("a pair")))
    }

    /// What a client that trusts this certificate alone reads of the greeting; None where it is turned away.
    async fn greeted(&self, address: SocketAddr, name: &str, says: &str) -> Option<String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.expect("connected");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.ok()?;
        read_greeting(&mut stream, says).await
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Says something, and reads what is answered up to the end.
async fn read_greeting(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    says: &str,
) -> Option<String> {
    stream.write_all(says.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    (!text.is_empty()).then_some(text)
}

/// A server that answers whatever it is told with its name and that, in TLS where it has a pair; it ends with the test.
async fn echo(name: &'static str, pair: Option<&Pair>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let tls = pair.map(Pair::server);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => answer(tcp, name).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(tcp).await {
                            answer(stream, name).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, name: &str) {
    let mut said = [0; 64];
    let count = stream.read(&mut said).await.unwrap_or(0);
    let said = String::from_utf8_lossy(&said[..count]);
    // Whether the client waits for it is its own business.
    let _ = stream.write_all(format!("{name}: {said}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn service(name: &str, endpoint: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: 9000, appProtocol: tcp}}]}}\n---\n\
         kind: Service\nname: {name}\nnamespace: shop\nendpoints: [{{address: \"{endpoint}\"}}]\n---\n"
    )
}

fn to(backends: &str) -> String {
    format!("rules: [{{backendRefs: [{backends}]}}]")
}

#[tokio::test]
async fn tls_is_passed_through_by_name_beside_what_ends_here() {
    let mesh = Mesh::new();
    let (own, one, two) = (
        Pair::new(&["web.test"]),
        Pair::new(&["one.pass.test"]),
        Pair::new(&["two.pass.test"]),
    );
    let web = Service::start("web").await;
    let (first, second) = (
        echo("first", Some(&one)).await,
        echo("second", Some(&two)).await,
    );
    let secure = free_address();
    let gateway = mesh
        .gateway_with("access_log: {path: access.log}\n", |address| {
            let port = secure.port();
            let https = format!(
                "name: https, port: {port}, protocol: HTTPS, hostname: web.test, tls: {{certificateRefs: [{{name: own}}]}}"
            );
            let pass = format!(
                "name: pass, port: {port}, protocol: TLS, hostname: '*.pass.test', tls: {{mode: Passthrough}}"
            );
            let named = |name: &str, host: &str, service: &str| {
                let spec = format!("hostnames: [{host}], {}", to(&format!("{{name: {service}, port: 9000}}")));
                route("TLSRoute", name, &spec)
            };
            gateway(address, &[http_listener(address), https, pass])
                + &own.secret("own")
                + &route("HTTPRoute", "web", &format!("rules: [{}]", rule("", "web")))
                + &named("one", "one.pass.test", "first")
                + &named("two", "two.pass.test", "second")
                + &named("broken", "broken.pass.test", "missing")
                + &backends(&[&web])
                + &service("first", first)
                + &service("second", second)
        })
        .await;
    let passed = one.greeted(secure, "one.pass.test", "hello").await;
    assert_eq!(passed.as_deref(), Some("first: hello"));
    let passed = two.greeted(secure, "two.pass.test", "hello").await;
    assert_eq!(passed.as_deref(), Some("second: hello"));
    let get = "GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n";
    let read = own
        .greeted(secure, "web.test", get)
        .await
        .expect("an answer");
    assert!(read.ends_with("\r\n\r\nweb"), "{read}");
    for nobody in ["three.pass.test", "broken.pass.test"] {
        assert_eq!(one.greeted(secure, nobody, "hello").await, None, "{nobody}");
    }
    let mut plain = TcpStream::connect(secure).await.expect("connected");
    assert_eq!(
        read_greeting(&mut plain, get).await,
        None,
        "that is not TLS"
    );
    let mut client = Client::new(Target::direct(gateway.gateway, "web.test"));
    assert_eq!(client.get("/").await.expect("an answer").body, "web");
    crate::harness::eventually("the log says who was asked for", async || {
        let log = std::fs::read_to_string(mesh.folder().join("access.log")).ok()?;
        let lines = [r#""authority":"one.pass.test""#, r#""route":"shop/one/0""#];
        lines.iter().all(|line| log.contains(line)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_are_shared_by_weight_in_plain_and_after_tls() {
    let mesh = Mesh::new();
    let pair = Pair::new(&["db.test"]);
    let (first, second) = (echo("first", None).await, echo("second", None).await);
    let (plain, secure) = (free_address(), free_address());
    let gateway = mesh
        .gateway(|address| {
            let tcp = format!("name: tcp, port: {}, protocol: TCP", plain.port());
            let tls = format!(
                "name: tls, port: {}, protocol: TLS, tls: {{certificateRefs: [{{name: pair}}]}}",
                secure.port()
            );
            let shares = "{name: first, port: 9000, weight: 3}, {name: second, port: 9000, weight: 1}, {name: missing, port: 9000, weight: 0}";
            gateway(address, &[http_listener(address), tcp, tls])
                + &pair.secret("pair")
                + &route("TCPRoute", "db", &to(shares)).replace("k8s.io/v1\n", "k8s.io/v1alpha2\n")
                + &service("first", first)
                + &service("second", second)
        })
        .await;
    let mut counts = [0; 2];
    for _ in 0..200 {
        let mut stream = TcpStream::connect(plain).await.expect("connected");
        let greeting = read_greeting(&mut stream, "hello")
            .await
            .expect("a greeting");
        counts[usize::from(greeting == "second: hello")] += 1;
    }
    assert!((25..80).contains(&counts[1]), "{counts:?}");
    let greeting = pair
        .greeted(secure, "db.test", "hello")
        .await
        .expect("a greeting");
    assert!(greeting.ends_with(": hello"), "{greeting}");
    drop(gateway);
}

#[tokio::test]
async fn a_backend_speaks_tls_as_its_policy_says() {
    let mesh = Mesh::new();
    let (good, other) = (Pair::new(&["cart.internal"]), Pair::new(&["cart.internal"]));
    let backend = tls_service(&good).await;
    let gateway = mesh
        .gateway(|address| {
            let policy = |name: &str, validation: &str| {
                format!(
                    "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
                     metadata: {{name: {name}, namespace: shop}}\nspec:\n  \
                     targetRefs: [{{group: '', kind: Service, name: {name}}}]\n  \
                     validation: {{{validation}}}\n---\n"
                )
            };
            let by = |authority: &str| {
                format!("hostname: cart.internal, caCertificateRefs: [{{group: '', kind: ConfigMap, name: {authority}}}]")
            };
            let known_as = |name: &str| {
                let subjects = format!("subjectAltNames: [{{type: Hostname, hostname: {name}}}]");
                by("good").replace("cart.internal", "sent.internal") + ", " + &subjects
            };
            let of = |path: &str, name: &str| rule(&format!("{{path: {{value: {path}}}}}"), name);
            let rules = [of("/good", "good"), of("/other", "other"), of("/missing", "nobody"),
                of("/known", "known"), of("/unknown", "unknown")];
            let plain = |name: &str| service(name, backend).replace("port: 9000, appProtocol: tcp", "port: 80");
            gateway(address, &[http_listener(address)])
                + &route("HTTPRoute", "tls", &format!("rules: [{}]", rules.join(", ")))
                + &["good", "other", "nobody", "known", "unknown"].map(plain).concat()
                + &(policy("good", &by("good")) + &policy("other", &by("other")) + &policy("nobody", &by("missing")))
                + &(policy("known", &known_as("cart.internal")) + &policy("unknown", &known_as("sent.internal")))
                + &good.config_map("good")
                + &other.config_map("other")
        })
        .await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    for trusted in ["/good", "/known"] {
        let answer = client.get(trusted).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "in TLS"),
            "{trusted}"
        );
    }
    for distrusted in ["/other", "/missing", "/unknown"] {
        let answer = client.get(distrusted).await.expect("an answer");
        assert!(answer.status >= 500, "{distrusted}: {}", answer.status);
    }
}

/// An HTTP server in TLS.
async fn tls_service(pair: &Pair) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let tls = pair.server();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            if let Ok(mut stream) = tls.accept(tcp).await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer =
                    "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nin TLS";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address
}
