//! Handshakes over real sockets, with certificates made for the test.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::model::{Address, Certificate, Name, Pem, SubjectName, UpstreamTls};

/// A folder with a CA.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::named("ours")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a CA");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes `file.pem` and `file.key` for these names.
    fn issue(&self, file: &str, names: &[&str]) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let names = names.iter().map(|name| match name.contains("://") {
            true => SanType::URI((*name).try_into().expect("ASCII")),
            false => SanType::DnsName((*name).try_into().expect("ASCII")),
        });
        params.subject_alt_names = names.collect();
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let pair = Certificate {
            chain: Pem::File(self.path(&format!("{file}.pem"))),
            key: Pem::File(self.path(&format!("{file}.key"))),
        };
        replace(path(&pair.chain), &certificate.pem());
        replace(path(&pair.key), &key.serialize_pem());
        pair
    }

    fn trust(&self) -> UpstreamTls {
        UpstreamTls {
            ca: Some(Pem::File(self.path("ca.pem"))),
            ..UpstreamTls::default()
        }
    }
}

fn path(pem: &Pem) -> &Path {
    pem.file().expect("a file")
}

/// As careful tools do: a new file in the place of the old one.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

/// Accepts connections one after another and says one byte on each; gives the address.
async fn serve(config: Arc<ServerConfig>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(config.clone());
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"!").await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    address
}

async fn connect(
    config: Arc<ClientConfig>,
    address: std::net::SocketAddr,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let tcp = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
    stream.read_exact(&mut [0]).await?;
    Ok(stream)
}

/// The certificate that the server showed.
fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates();
    chain.expect("a certificate")[0].to_vec()
}

fn der(certificate: &Certificate) -> Vec<u8> {
    let key = super::pem::certified_key(certificate).expect("a pair");
    key.cert[0].to_vec()
}

/// Trusts whatever it is shown, so that tests see which certificate that is.
fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    let tls = ClientConfigs::default()
        .get(&authority.trust(), ALPN_HTTP)
        .expect("a CA");
    tls.config()
}

#[tokio::test]
async fn the_certificate_fits_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let certificates = [
        authority.issue("first", &["first.test"]),
        authority.issue("exact", &["a.shop.test", "b.shop.test"]),
        authority.issue("wild", &["*.shop.test"]),
    ];
    let server = ServerTls::new(&certificates, ALPN_HTTP).expect("usable");
    let address = serve(server.config().clone()).await;
    let client = trusting(&authority);
    for (name, place) in [
        ("first.test", 0),
        ("a.shop.test", 1),
        ("B.Shop.test", 1),
        ("c.shop.test", 2),
    ] {
        let stream = connect(client.clone(), address, name).await.expect(name);
        assert_eq!(shown(&stream), der(&certificates[place]), "{name}");
    }
    // Nobody has this name: the first is shown, and the client refuses it.
    let error = connect(client, address, "x.y.shop.test")
        .await
        .expect_err("another name");
    let reason = explain(&error).expect("a TLS error");
    assert!(reason.contains("not for x.y.shop.test but for"), "{reason}");
    assert!(reason.contains("first.test"), "{reason}");
}

#[tokio::test]
async fn a_server_may_be_known_by_other_names_than_the_one_that_is_sent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let names = [
        "cart.test",
        "*.shop.test",
        "spiffe://mesh.test/ns/shop/sa/cart",
    ];
    let certificate = authority.issue("a", &names);
    let server = ServerTls::new(&[certificate], ALPN_HTTP).expect("usable");
    let address = serve(server.config().clone()).await;
    let configs = ClientConfigs::default();
    let hostname = |name: &str| SubjectName::Hostname(name.into());
    let uri = |name: &str| SubjectName::Uri(name.into());
    for (subjects, fits) in [
        (vec![hostname("cart.test")], true),
        (vec![hostname("CART.test")], true),
        (vec![hostname("a.shop.test")], true),
        (vec![hostname("*.shop.test")], true),
        (vec![uri(names[2])], true),
        (vec![hostname("other.test"), uri(names[2])], true),
        (vec![hostname("sent.test")], false),
        (vec![hostname("*.test")], false),
        (vec![uri("cart.test")], false),
        (vec![uri("spiffe://mesh.test/ns/shop/sa/cart2")], false),
        (vec![], false),
    ] {
        for (trust, trusted) in [(authority.trust(), true), (stranger.trust(), false)] {
            let subjects = subjects.clone();
            let tls = UpstreamTls { subjects, ..trust };
            let client = configs.get(&tls, ALPN_HTTP).expect("a CA").config();
            let connected = connect(client, address, "sent.test").await;
            assert_eq!(connected.is_ok(), fits && trusted, "{:?}", tls.subjects);
        }
    }
}

#[tokio::test]
async fn alpn_takes_the_servers_first_choice() {
    let authority = Authority::new();
    let certificate = authority.issue("a", &["a.test"]);
    let configs = ClientConfigs::default();
    for (server, client, expected) in [
        (ALPN_HTTP, ALPN_HTTP, Some(&b"h2"[..])),
        (ALPN_HTTP, ALPN_HTTP1, Some(&b"http/1.1"[..])),
        (ALPN_HTTP1, ALPN_HTTP, Some(&b"http/1.1"[..])),
        (&[], ALPN_HTTP, None),
    ] {
        let server = ServerTls::new(std::slice::from_ref(&certificate), server).expect("usable");
        let address = serve(server.config().clone()).await;
        let client = configs.get(&authority.trust(), client).expect("a CA");
        let stream = connect(client.config(), address, "a.test")
            .await
            .expect("connected");
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected);
    }
}

#[tokio::test]
async fn the_second_connection_resumes() {
    let authority = Authority::new();
    let certificate = authority.issue("a", &["a.test"]);
    let server = ServerTls::new(&[certificate], ALPN_HTTP).expect("usable");
    let address = serve(server.config().clone()).await;
    let client = trusting(&authority);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = connect(client.clone(), address, "a.test")
            .await
            .expect("connected");
        kinds.push(stream.get_ref().1.handshake_kind().expect("complete"));
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn files_are_reloaded_under_handshakes_and_none_fails() {
    let authority = Authority::new();
    let certificate = authority.issue("a", &["a.test"]);
    let server = ServerTls::new(std::slice::from_ref(&certificate), ALPN_HTTP).expect("usable");
    assert!(matches!(server.reload_if_changed(), Reload::Unchanged));
    let address = serve(server.config().clone()).await;
    let handshakes = {
        let client = trusting(&authority);
        tokio::spawn(async move {
            for _ in 0..60 {
                connect(client.clone(), address, "a.test")
                    .await
                    .expect("always one");
            }
        })
    };
    for _ in 0..20 {
        authority.issue("a", &["a.test"]);
        assert!(matches!(server.reload_if_changed(), Reload::Reloaded));
        tokio::task::yield_now().await;
    }
    handshakes.await.expect("no handshake failed");
    // A client without a session, which a resumed one would not check anew.
    let stream = connect(trusting(&authority), address, "a.test")
        .await
        .expect("connected");
    assert_eq!(shown(&stream), der(&certificate));
}

#[tokio::test]
async fn a_bad_new_file_keeps_the_old_one_and_is_said_once() {
    let authority = Authority::new();
    let certificate = authority.issue("a", &["a.test"]);
    let before = der(&certificate);
    let server = ServerTls::new(std::slice::from_ref(&certificate), ALPN_HTTP).expect("usable");
    let key = std::fs::read_to_string(path(&certificate.key)).expect("there");
    let other = authority.issue("other", &["a.test"]);
    std::fs::rename(path(&other.key), path(&certificate.key)).expect("moved");
    let Reload::Kept(error) = server.reload_if_changed() else {
        panic!("another key does not fit");
    };
    assert!(matches!(error, TlsError::Mismatch { .. }), "{error}");
    assert!(matches!(server.reload_if_changed(), Reload::Unchanged));
    let address = serve(server.config().clone()).await;
    let stream = connect(trusting(&authority), address, "a.test")
        .await
        .expect("connected");
    assert_eq!(shown(&stream), before);
    replace(path(&certificate.key), &key);
    assert!(matches!(server.reload_if_changed(), Reload::Reloaded));
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_with_a_reason() {
    let ours = Authority::new();
    for (name, reason) in [
        (
            "theirs",
            "the peer's certificate is signed by no CA that is trusted here",
        ),
        (
            "ours",
            "the peer's certificate is not signed by the CA of that name that is trusted here",
        ),
    ] {
        let theirs = Authority::named(name);
        let certificate = theirs.issue("a", &["a.test"]);
        let server = ServerTls::new(&[certificate], ALPN_HTTP).expect("usable");
        let address = serve(server.config().clone()).await;
        let connected = connect(trusting(&ours), address, "a.test").await;
        let error = connected.expect_err("untrusted");
        assert_eq!(explain(&error).as_deref(), Some(reason));
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_asked_for_and_reloaded() {
    let authority = Authority::new();
    let certificate = authority.issue("server", &["a.test"]);
    let mut tls = authority.trust();
    tls.certificate = Some(authority.issue("client", &["client.test"]));
    let address = serve(asking_for_clients(&authority, &certificate)).await;
    let configs = ClientConfigs::default();
    let client = configs.get(&tls, ALPN_HTTP).expect("usable");
    connect(client.config(), address, "a.test")
        .await
        .expect("trusted");
    let nameless = configs.get(&authority.trust(), ALPN_HTTP).expect("usable");
    let error = connect(nameless.config(), address, "a.test")
        .await
        .expect_err("asked for");
    let reason = explain(&error).expect("a TLS error");
    assert_eq!(reason, "the peer asks for a client certificate");

    let before = client.config();
    assert!(configs.reload_if_changed().is_empty());
    assert!(Arc::ptr_eq(&before, &client.config()));
    authority.issue("client", &["client.test"]);
    assert!(configs.reload_if_changed().is_empty());
    assert!(!Arc::ptr_eq(&before, &client.config()));
    connect(client.config(), address, "a.test")
        .await
        .expect("trusted");
    std::fs::write(authority.path("client.pem"), "nothing").expect("written");
    let errors = configs.reload_if_changed();
    assert!(
        matches!(errors[..], [TlsError::NoCertificate { .. }]),
        "{errors:?}"
    );
    connect(client.config(), address, "a.test")
        .await
        .expect("the old one stays");
}

fn asking_for_clients(authority: &Authority, certificate: &Certificate) -> Arc<ServerConfig> {
    let roots = super::pem::roots(&Pem::File(authority.path("ca.pem"))).expect("a CA");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        provider().clone(),
    );
    let certified = super::pem::certified_key(certificate).expect("a pair");
    let config = ServerConfig::builder_with_provider(provider().clone())
        .with_safe_default_protocol_versions()
        .expect("supported")
        .with_client_cert_verifier(verifier.build().expect("roots"))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    Arc::new(config)
}

#[tokio::test]
async fn a_peer_without_tls_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let authority = Authority::new();
    let error = connect(trusting(&authority), address, "a.test")
        .await
        .expect_err("no TLS");
    let reason = explain(&error).expect("a TLS error");
    assert_eq!(reason, "the peer does not speak TLS on this port");
}

#[test]
fn each_bad_file_is_named_with_what_to_do() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.test"]);
    let garbage = authority.path("garbage.pem");
    std::fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    let absent = authority.path("absent.pem");
    let pair = |chain: &Path, key: &Path| Certificate {
        chain: Pem::File(chain.to_owned()),
        key: Pem::File(key.to_owned()),
    };
    for (certificate, file, advice) in [
        (
            pair(&absent, path(&good.key)),
            "absent.pem",
            "check the path",
        ),
        (
            pair(path(&good.key), path(&good.key)),
            "good.key",
            "BEGIN CERTIFICATE",
        ),
        (
            pair(path(&good.chain), path(&good.chain)),
            "good.pem",
            "BEGIN PRIVATE KEY",
        ),
        (pair(&garbage, path(&good.key)), "garbage.pem", "not Base64"),
        (
            pair(&authority.path("ca.pem"), path(&good.key)),
            "good.key",
            "does not belong to the first certificate",
        ),
    ] {
        let error = ServerTls::new(&[certificate], ALPN_HTTP).expect_err(file);
        let text = error.to_string();
        assert!(text.contains(file) && text.contains(advice), "{text}");
    }
    let error = ServerTls::new(&[], ALPN_HTTP).expect_err("no certificate");
    assert!(matches!(error, TlsError::NoIdentity));
}

#[test]
fn configurations_are_shared_and_forgotten() {
    let authority = Authority::new();
    let configs = ClientConfigs::default();
    let first = configs.get(&authority.trust(), ALPN_HTTP).expect("usable");
    let same = configs.get(&authority.trust(), ALPN_HTTP).expect("usable");
    assert!(Arc::ptr_eq(&first, &same));
    let other = configs.get(&authority.trust(), ALPN_HTTP1).expect("usable");
    assert!(!Arc::ptr_eq(&first, &other));
    let weak = Arc::downgrade(&other);
    drop(other);
    configs.reload_if_changed();
    assert_eq!(weak.strong_count(), 0);
}

#[test]
fn the_name_is_the_configured_one_then_the_endpoints_then_the_services() {
    let socket = Address::Socket("127.0.0.1:443".parse().expect("an address"));
    let named = Address::Name {
        host: "db.test".into(),
        port: 443,
    };
    let service = Name::local("shop");
    let mut tls = UpstreamTls::default();
    let name = |tls: &UpstreamTls, address| {
        let name = server_name(tls, address, &service).expect("a host name");
        name.to_str().into_owned()
    };
    assert_eq!(name(&tls, &socket), "shop");
    assert_eq!(name(&tls, &named), "db.test");
    tls.sni = Some("given.test".into());
    assert_eq!(name(&tls, &named), "given.test");
    tls.sni = Some("no host".into());
    assert!(server_name(&tls, &socket, &service).is_err());
}
