//! A new connection to an endpoint: TCP, and TLS where the service says so.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::base::net::{self, Liveness, Stream};
use crate::identity::explain;
use crate::intercept::APPLICATION_MARK;
use crate::proxy::destination::Handshake;
use crate::proxy::failure::ConnectError;

/// A connection and, after TLS, what ALPN chose.
pub struct Connected {
    pub stream: Stream,
    pub negotiated_http2: Option<bool>,
}

/// In whose name an application is called whose connection kept its addresses on the way here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Guise {
    /// The address that the application is to see.
    pub client: IpAddr,
    /// What the client dialled, an address of this host.
    pub host: IpAddr,
}

impl Guise {
    /// Where to connect for an application at this address; None where the client's address is of another family.
    fn target(&self, address: SocketAddr) -> Option<SocketAddr> {
        // What listens on loopback could not answer to an address outside, so the application is called as the client called it.
        let ip = match address.ip().is_loopback() {
            true => self.host,
            false => address.ip(),
        };
        (ip.is_ipv4() == self.client.is_ipv4()).then(|| SocketAddr::new(ip, address.port()))
    }
}

/// Connects within `limit`; the handshake, if there is one, gets the same again.
pub async fn connect(
    address: SocketAddr,
    guise: Option<Guise>,
    handshake: Option<Handshake>,
    limit: Duration,
    liveness: Liveness,
) -> Result<Connected, ConnectError> {
    let tcp = match timeout(limit, open(address, guise)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ConnectError::Refused);
        }
        Ok(Err(error)) => return Err(ConnectError::Io(error.to_string())),
        Err(_) => return Err(ConnectError::Timeout),
    };
    net::prepare(&tcp, liveness).map_err(|error| ConnectError::Io(error.to_string()))?;
    let Some((config, name)) = handshake else {
        return Ok(Connected {
            stream: Stream::Tcp(tcp),
            negotiated_http2: None,
        });
    };
    match timeout(limit, TlsConnector::from(config).connect(name, tcp)).await {
        Ok(Ok(tls)) => {
            let negotiated_http2 = tls
                .get_ref()
                .1
                .alpn_protocol()
                .map(|protocol| protocol == b"h2");
            Ok(Connected {
                stream: Stream::Tls(Box::new(tls.into())),
                negotiated_http2,
            })
        }
        Ok(Err(error)) => Err(ConnectError::Tls(
            explain(&error).map_or_else(|| error.to_string(), Into::into),
        )),
        Err(_) => Err(ConnectError::Timeout),
    }
}

async fn open(address: SocketAddr, guise: Option<Guise>) -> io::Result<TcpStream> {
    let Some(guise) = guise else {
        return TcpStream::connect(address).await;
    };
    match guise.target(address) {
        Some(target) => net::connect_from(guise.client, APPLICATION_MARK, target).await,
        None => TcpStream::connect(address).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_on_loopback_is_called_as_its_client_called_it() {
        let guise = |client: &str, host: &str| Guise {
            client: client.parse().unwrap(),
            host: host.parse().unwrap(),
        };
        let table = [
            ("10.0.0.1", "10.0.0.2", "127.0.0.1:80", Some("10.0.0.2:80")),
            ("fd00::1", "fd00::2", "127.0.0.1:80", Some("[fd00::2]:80")),
            ("10.0.0.1", "10.0.0.2", "10.0.0.3:80", Some("10.0.0.3:80")),
            ("fd00::1", "fd00::2", "10.0.0.3:80", None),
        ];
        for (client, host, application, target) in table {
            let target = target.map(|target| target.parse().unwrap());
            let found = guise(client, host).target(application.parse().unwrap());
            assert_eq!(found, target, "{client} {application}");
        }
    }
}
