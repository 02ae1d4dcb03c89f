//! The least that a fan-out costs: a thread that writes what comes in to every socket.
//!
//! It knows no subscriptions, encodes nothing and waits for whoever does not read.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::process::Process;

/// A running floor, which ends with its uplink.
pub(crate) struct Floor {
    /// What comes in here,
    pub uplink: TcpStream,
    /// goes out here,
    pub subscribers: Vec<TcpStream>,
    /// and this is who does it.
    pub thread: Process,
}

/// Starts a floor that writes so many frames of one length at once to each subscriber.
pub(crate) fn start(subscribers: u64, frame_bytes: usize, batch: usize) -> Floor {
    let (mut source, uplink) = pair();
    let (mut sinks, subscribers): (Vec<_>, Vec<_>) = (0..subscribers).map(|_| pair()).unzip();
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        tell.send(Process::this_thread()).expect("somebody wants to know");
        let mut frames = vec![0; frame_bytes * batch];
        // Once the load has what it wanted, it ends its sockets in whatever order.
        while source.read_exact(&mut frames).is_ok() {
            if sinks.iter_mut().any(|sink| sink.write_all(&frames).is_err()) {
                break;
            }
        }
    });
    Floor { uplink, subscribers, thread: told.recv().expect("it runs") }
}

/// Connects two sockets as a server's and a client's are: by TCP, without delay.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound"));
    let client = client.expect("it listens");
    let (server, _) = listener.accept().expect("somebody connects");
    server.set_nodelay(true).expect("it is TCP");
    client.set_nodelay(true).expect("it is TCP");
    (server, client)
}
