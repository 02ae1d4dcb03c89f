//! Sends back what comes in, over the server's own [`Socket`]: what the Autobahn test suite measures
//! (`deploy/test-autobahn`). A connection begins and ends here as it does in the server; only the
//! limits are the suite's.

use std::sync::Arc;

use anyhow::Result;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};
use valtronics_server::{
    hub::SessionId,
    monitor::{Monitor, Registered, Role},
    socket::{Broken, Socket, SocketConfig, close_message},
    stream::Stream,
};

/// The suite sends 16 MiB at most.
const CONFIG: SocketConfig = SocketConfig {
    read_buffer_bytes: 1024,
    max_message_bytes: 16 * 1024 * 1024,
    max_write_buffer_bytes: 17 * 1024 * 1024,
};

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
    let mut socket = Socket::new(stream, Vec::new(), CONFIG, watched).await;
    let close = match echo(&mut socket).await {
        Broken::Violation(code) => Some(close_message(code, "")),
        Broken::Gone => None,
    };
    socket.end(close.into_iter().collect()).await;
    Ok(())
}

async fn echo(socket: &mut Socket) -> Broken {
    loop {
        let sent = match socket.next().await {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(()),
            Ok(Message::Close(_)) => return Broken::Gone,
            Err(broken) => return broken,
        };
        if let Err(broken) = sent {
            return broken;
        }
    }
}
