//! Sends back what comes in, over the server's own [`Socket`]: what the Autobahn test suite measures
//! (`deploy/test-autobahn`). A connection begins and ends here as it does in the server; only the
//! limits are the suite's.

use std::sync::Arc;

use anyhow::Result;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::accept_async;
use valtronics_server::{
    hub::SessionId,
    monitor::{Monitor, Registered, Role},
    socket::{Broken, Incoming, Message, Socket},
    stream::Stream,
};

/// The suite sends 16 MiB at most.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let monitor = Arc::new(Monitor::default());
    let mut connections = JoinSet::new();
    for id in 1.. {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                let watched = monitor.register(SessionId(id), peer.ip(), Role::Uplink);
                connections.spawn(serve(stream, watched));
            }
            Some(ended) = connections.join_next() => ended??,
        }
    }
    Ok(())
}

async fn serve(stream: TcpStream, watched: Registered) -> Result<()> {
    let stream = Stream::Plain(accept_async(stream).await?.into_inner());
    let mut socket = Socket::new(stream, &[], MAX_MESSAGE_BYTES, watched);
    let mut close = match echo(&mut socket).await {
        Broken::Violation(code) => Some(Message::close(code, "")),
        Broken::Gone => None,
    };
    socket.end(|| close.take()).await;
    Ok(())
}

async fn echo(socket: &mut Socket) -> Broken {
    loop {
        let sent = match socket.next().await {
            Ok(Incoming::Text(text)) => socket.send(Message::text(&text)).await,
            Ok(Incoming::Binary(bytes)) => socket.send(Message::binary(&bytes)).await,
            Ok(Incoming::Ping(_) | Incoming::Pong) => Ok(()),
            Ok(Incoming::Close(_)) => return Broken::Gone,
            Err(broken) => return broken,
        };
        if let Err(broken) = sent {
            return broken;
        }
    }
}
