//! How the agent reaches others: TCP, TLS and WebSocket, each within a deadline.

use std::{io, path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// How long one attempt may take, name resolution included: longer than a slow mobile link needs,
/// short enough that the next attempt comes soon.
pub const DIAL_WITHIN: Duration = Duration::from_secs(15);
/// The most bytes in a message of the server: it only sends control messages, all of them small.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// After how much silence TCP itself asks whether the other side is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// A byte stream with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A WebSocket to the server.
pub type WebSocket = WebSocketStream<Box<dyn Stream>>;

/// Why nobody could be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The network or the other machine refused.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// [`DIAL_WITHIN`] has passed.
    #[error("{address} does not answer")]
    TimedOut {
        /// Host and port.
        address: String,
    },
    /// The URL is not one that can be dialled; the configuration's check refuses those.
    #[error("{0} is no URL to dial")]
    Url(http::Uri),
    /// The other side speaks, but not what it should.
    #[error("{0}")]
    Handshake(#[from] Box<tungstenite::Error>),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not readable.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds no certificate.
    #[error("{0} holds no certificate in PEM form")]
    Empty(String),
    /// The library refuses.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
}

/// Connects to `host:port`.
///
/// # Errors
/// When nobody answers there within [`DIAL_WITHIN`].
pub async fn tcp(address: &str) -> Result<TcpStream, DialError> {
    let attempt = timeout(DIAL_WITHIN, TcpStream::connect(address));
    let unreachable = |source| DialError::Unreachable { address: address.into(), source };
    let stream = attempt
        .await
        .map_err(|_| DialError::TimedOut { address: address.into() })?
        .map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)
        .and_then(|()| rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER))
        .map_err(|error| unreachable(error.into()))?;
    Ok(stream)
}

/// Makes the TLS side of all connections: the system's roots, and those in `ca_file`.
///
/// # Errors
/// When `ca_file` cannot be read or holds no certificate.
pub fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system without roots is no mistake: `ca_file` may be all that is needed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let name = || path.display().to_string();
        let pem =
            std::fs::read(path).map_err(|source| TlsError::Unreadable { path: name(), source })?;
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(TlsError::Empty(name()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Opens a WebSocket at `url` (`ws://` or `wss://`) that speaks `subprotocol`.
///
/// # Errors
/// When nobody answers there within [`DIAL_WITHIN`], or something else than such a server does.
pub async fn websocket(
    url: &http::Uri,
    subprotocol: &'static str,
    ca_file: Option<&Path>,
) -> Result<WebSocket, DialError> {
    let host = url.host().ok_or_else(|| DialError::Url(url.clone()))?;
    let secure = url.scheme_str() == Some("wss");
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let address = format!("{host}:{port}");
    let tcp = tcp(&address).await?;
    let handshake = async {
        let stream: Box<dyn Stream> =
            if secure {
                let bare = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(bare).map_err(|_| DialError::Url(url.clone()))?;
                let connecting = TlsConnector::from(tls(ca_file)?).connect(name, tcp);
                Box::new(connecting.await.map_err(|source| DialError::Unreachable {
                    address: address.clone(),
                    source,
                })?)
            } else {
                Box::new(tcp)
            };
        let mut request = url.into_client_request().map_err(Box::new)?;
        let protocol = http::HeaderValue::from_static(subprotocol);
        request.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE_BYTES));
        let (socket, _) =
            client_async_with_config(request, stream, Some(config)).await.map_err(Box::new)?;
        Ok(socket)
    };
    timeout(DIAL_WITHIN, handshake)
        .await
        .map_err(|_| DialError::TimedOut { address: address.clone() })?
}
