//! A new connection to an endpoint: TCP, and TLS where the service says so.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::base::net::{self, Stream};
use crate::identity::explain;
use crate::proxy::destination::Handshake;
use crate::proxy::failure::ConnectError;

/// A connection and, after TLS, what ALPN chose.
pub struct Connected {
    pub stream: Stream,
    pub negotiated_http2: Option<bool>,
}

/// Connects within `limit`; the handshake, if there is one, gets the same again.
pub async fn connect(
    address: SocketAddr,
    handshake: Option<Handshake>,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let tcp = match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ConnectError::Refused);
        }
        Ok(Err(error)) => return Err(ConnectError::Io(error.to_string())),
        Err(_) => return Err(ConnectError::Timeout),
    };
    net::prepare(&tcp).map_err(|error| ConnectError::Io(error.to_string()))?;
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
