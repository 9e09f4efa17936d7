//! The name that a TLS client asks for (RFC 6066, section 3), read without taking a byte of its connection, which may be passed on
//! as it is.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::net::TcpStream;

/// The longest first message that is read: one record of TLS, with its head.
const HELLO_BYTES_MAX: usize = 5 + (16 << 10);
/// What was looked at stays readable, so the rest of a message in parts is waited for by the clock, ever longer.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(250);

/// The name, or None where the client asks for none; an error where it does not begin with a handshake of TLS.
pub async fn server_name(tcp: &TcpStream) -> io::Result<Option<Box<str>>> {
    let mut hello = vec![0; 2 << 10];
    let mut wait = WAIT_MIN;
    let mut before = 0;
    loop {
        let seen = tcp.peek(&mut hello).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if seen > before {
            if let Some(name) = parse(&hello[..seen])? {
                return Ok(name);
            }
            wait = WAIT_MIN;
            before = seen;
        }
        match seen == hello.len() {
            true if seen == HELLO_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            true => hello.resize((2 * seen).min(HELLO_BYTES_MAX), 0),
            false => {
                tokio::time::sleep(wait).await;
                wait = (2 * wait).min(WAIT_MAX);
            }
        }
    }
}

/// None while the message is not whole.
fn parse(bytes: &[u8]) -> io::Result<Option<Option<Box<str>>>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest)? == 0 {
            break;
        }
    }
    match acceptor.accept() {
        Ok(None) => Ok(None),
        Ok(Some(accepted)) => Ok(Some(accepted.client_hello().server_name().map(Into::into))),
        Err((error, _)) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(crate::identity::provider().clone())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("in memory");
        bytes
    }

    async fn asked(parts: &[&[u8]]) -> io::Result<Option<Box<str>>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (tcp, _) = listener.accept().await?;
        let write = async {
            for part in parts {
                client.write_all(part).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, io::Error>(client)
        };
        let (name, client) = tokio::join!(server_name(&tcp), write);
        client?;
        name
    }

    #[tokio::test]
    async fn the_name_is_read_whole_or_in_parts() {
        let hello = hello("shop.test");
        let name = asked(&[&hello]).await.expect("a name");
        assert_eq!(name.as_deref(), Some("shop.test"));
        let (first, rest) = hello.split_at(3);
        let (second, third) = rest.split_at(rest.len() / 2);
        let name = asked(&[first, second, third]).await.expect("a name");
        assert_eq!(name.as_deref(), Some("shop.test"));
    }

    #[tokio::test]
    async fn a_client_may_ask_for_no_name() {
        assert_eq!(asked(&[&hello("127.0.0.1")]).await.expect("TLS"), None);
    }

    #[tokio::test]
    async fn what_is_no_tls_is_an_error() {
        let error = asked(&[b"GET / HTTP/1.1\r\n\r\n"]).await;
        assert_eq!(
            error.expect_err("no TLS").kind(),
            io::ErrorKind::InvalidData
        );
    }
}
