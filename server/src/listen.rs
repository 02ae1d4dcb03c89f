//! Listening, and what is done to each connection before HTTP begins.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::http::Peer;

/// The most that a request line and headers may take.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How much the kernel may hold unsent before a connection counts as full: with its default, a
/// reader that has stopped is noticed megabytes too late.
const UNSENT_BYTES: u32 = 16 * 1024;
/// How long to wait when the process has no descriptor left.
const NO_DESCRIPTOR: Duration = Duration::from_millis(100);

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

/// Accepts connections until it is told to stop.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    header_within: Duration,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_within).max_buf_size(MAX_HEADER_BYTES);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                tune(&stream);
                let (http, router, stop) = (http.clone(), router.clone(), stop.clone());
                connections.spawn(connection(http, stream, address, router, stop));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(NO_DESCRIPTOR).await;
            }
        }
    }
}

async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let peer = Peer(address.ip().to_canonical());
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // A client that breaks off or sends nonsense harms only itself.
    let _ = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

fn tune(stream: &TcpStream) {
    // Without these the connection is slower, not wrong.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}
