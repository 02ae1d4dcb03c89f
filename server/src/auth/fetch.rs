//! Fetches one document over HTTP, for the JWKS: a request a connection, no redirect followed,
//! everything limited. Over TLS, or on this machine.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, time::Duration};

use axum::http::{Request, StatusCode, Uri, header};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, ClientConfig, RootCertStore, pki_types::ServerName},
};

/// How long a fetch may take, name resolution included: a start waits for it, and who sends a token
/// with a new key does.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// The most that the head of an answer may have.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Why a document cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The network or the other machine refused.
    #[error("cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// What should be this machine is another one, to which nobody speaks without TLS.
    #[error("is no address of this machine: use https")]
    NotHere,
    /// It has no certificate that could be checked.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The other side does not speak HTTP as it should.
    #[error("does not answer as it should: {0}")]
    Http(#[from] hyper::Error),
    /// It has another answer than the document; a redirect is one, too.
    #[error("answers {0}")]
    Status(StatusCode),
    /// The document is too large.
    #[error("answers more than {0} bytes")]
    TooLarge(usize),
    /// [`FETCH_WITHIN`] has passed.
    #[error("does not answer in time")]
    TimedOut,
}

/// Fetches a document of at most `most` bytes.
pub(super) async fn get(url: &Uri, most: usize) -> Result<Vec<u8>, FetchError> {
    let fetching = async {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let secure = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        if !secure {
            let here = tcp.peer_addr()?.ip().is_loopback();
            return if here { exchange(tcp, url, most).await } else { Err(FetchError::NotHere) };
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        // The system's roots are files.
        let tls = tokio::task::spawn_blocking(tls).await.map_err(io::Error::other)??;
        let stream = TlsConnector::from(tls).connect(name, tcp).await?;
        exchange(stream, url, most).await
    };
    timeout(FETCH_WITHIN, fetching).await.unwrap_or(Err(FetchError::TimedOut))
}

/// Makes the TLS side: the system's roots, as they are now.
fn tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &Uri,
    most: usize,
) -> Result<Vec<u8>, FetchError> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("valtronics-server/", env!("CARGO_PKG_VERSION")))
        .body(String::new())
        .expect("an URL that was read has a path and a host");
    let mut document = Box::pin(async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        read(answer.into_body(), most).await
    });
    tokio::select! {
        read = &mut document => read,
        // Who closes after his answer has sent all of it.
        _ = connection => document.await,
    }
}

async fn read(mut body: Incoming, most: usize) -> Result<Vec<u8>, FetchError> {
    let mut document = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        // Trailers say nothing about the document.
        let Ok(data) = frame?.into_data() else { continue };
        if document.len() + data.len() > most {
            return Err(FetchError::TooLarge(most));
        }
        document.extend_from_slice(&data);
    }
    Ok(document)
}
