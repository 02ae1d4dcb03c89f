//! Listening, and what is done to each connection before HTTP begins.

use std::{
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::Request, http::header};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout_at,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock,
    http::{self, Peer},
    proxy::TrustedProxies,
    stream::Stream,
};

/// The most that a request line and headers may take.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How much the kernel may hold unsent before a connection counts as full: with its default, a
/// reader that has stopped is noticed megabytes too late.
const UNSENT_BYTES: u32 = 16 * 1024;
/// How long to wait when the process has no descriptor left.
const NO_DESCRIPTOR: Duration = Duration::from_millis(100);

/// How many descriptors the process asks for, as the systemd unit does: a shell's usual 1024 would be
/// gone with the connections that `[limits]` allows and some that are still in their handshakes.
const DESCRIPTORS: u64 = 16 * 1024;

/// Asks for as many descriptors as connections may need, as far as the system allows.
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if current.is_some_and(|current| current < wanted) {
        // With fewer the server serves fewer.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// Binds the address; where IPv6 is absent, `[::]` means `0.0.0.0`.
///
/// # Errors
/// When the address cannot be used.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() => {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            TcpListener::bind(v4).await.map_err(|_| error)
        }
        bound => bound,
    }
}

/// What stands between a connection and the routes.
pub struct Entrance {
    /// The routes.
    pub router: Router,
    /// The certificate that is served now; none: plain HTTP for everybody.
    pub certificate: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// The terms for those who come now.
    pub terms: watch::Receiver<Arc<Terms>>,
    /// The server stops.
    pub stop: CancellationToken,
}

/// On which terms connections are taken: each keeps those that it came on.
#[derive(Debug)]
pub struct Terms {
    /// How long TLS and the first request's head may take together.
    pub handshake_within: Duration,
    /// Whose word about clients is believed.
    pub trusted_proxies: TrustedProxies,
}

/// Accepts connections until it is told to stop.
pub async fn serve(listener: TcpListener, entrance: Entrance, connections: TaskTracker) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).max_buf_size(MAX_HEADER_BYTES);
    let entrance = Arc::new(entrance);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = entrance.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                failing = false;
                tune(&stream);
                let peer = address.ip().to_canonical();
                connections.spawn(Arc::clone(&entrance).connection(http.clone(), stream, peer));
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "could not accept connections for a while");
                }
                tokio::time::sleep(NO_DESCRIPTOR).await;
            }
        }
    }
}

impl Entrance {
    async fn connection(self: Arc<Self>, mut http: http1::Builder, tcp: TcpStream, peer: IpAddr) {
        let terms = Arc::clone(&self.terms.borrow());
        http.header_read_timeout(terms.handshake_within);
        let deadline = (clock::instant() + terms.handshake_within).into();
        let tls = self.certificate.as_ref().map(|serving| Arc::clone(&serving.borrow()));
        let accepted = tokio::select! {
            accepted = timeout_at(deadline, Stream::accept(tcp, tls)) => accepted,
            () = self.stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a connection came to nothing");
                return;
            }
            // Who is too slow harms only itself.
            Err(_) => return,
        };
        let admitted = self.admits(&stream, peer, &terms);
        let router = if admitted { self.router.clone() } else { http::only_tls() };
        let router = TowerToHyperService::new(router);
        let begun = CancellationToken::new();
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
            begun.cancel();
            terms.believe(peer, &mut request);
            router.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let late = async {
            if timeout_at(deadline, begun.cancelled()).await.is_ok() {
                pending::<()>().await;
            }
        };
        // A client that breaks off or sends nonsense harms only itself.
        let _ = tokio::select! {
            ended = connection.as_mut() => ended,
            () = late => Ok(()),
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
    }

    /// Where there is a certificate, plain HTTP is served to this machine's own programs and to
    /// trusted proxies; anybody else would show his token to the network.
    fn admits(&self, stream: &Stream, peer: IpAddr, terms: &Terms) -> bool {
        self.certificate.is_none()
            || stream.is_encrypted()
            || peer.is_loopback()
            || terms.trusted_proxies.contains(peer)
    }
}

impl Terms {
    /// Takes over what a trusted proxy says about the client, so that behind this place a request
    /// looks as if it had come directly.
    fn believe(&self, peer: IpAddr, request: &mut Request<Incoming>) {
        if let Some(host) = self.trusted_proxies.host(peer, request.headers()) {
            request.headers_mut().insert(header::HOST, host);
        }
        let client = Peer(self.trusted_proxies.client(peer, request.headers()));
        request.extensions_mut().insert(client);
    }
}

fn tune(stream: &TcpStream) {
    // Without these the connection is slower, not wrong.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_there_is_a_certificate_only_neighbours_speak_plain() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let plain = Stream::accept(tcp, None).await.unwrap();
        let config = "[http]\ntrusted_proxies = [\"10.0.0.0/8\"]";
        let config: crate::config::Config = toml::from_str(config).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(
            tokio_rustls::rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(
            tokio_rustls::rustls::server::ResolvesServerCertUsingSni::new(),
        ));
        let serving = watch::Sender::new(Arc::new(tls));
        let terms = Arc::new(Terms {
            handshake_within: Duration::ZERO,
            trusted_proxies: config.http.trusted_proxies,
        });
        let mut entrance = Entrance {
            router: Router::new(),
            certificate: Some(serving.subscribe()),
            terms: watch::Sender::new(Arc::clone(&terms)).subscribe(),
            stop: CancellationToken::new(),
        };
        for (peer, expected) in
            [("127.0.0.1", true), ("::1", true), ("10.1.2.3", true), ("192.0.2.1", false)]
        {
            assert_eq!(entrance.admits(&plain, peer.parse().unwrap(), &terms), expected, "{peer}");
        }
        entrance.certificate = None;
        assert!(entrance.admits(&plain, "192.0.2.1".parse().unwrap(), &terms));
    }
}
