//! The server under load: the real program, on an empty data directory.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value as Json, json};
use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::process::Process;

/// Where `/metrics` says how much was merged away.
const MERGED: &str = "valtronics_messages_conflated_total{channel=\"telemetry\"}";
const PROGRAM: &str = env!("CARGO_BIN_EXE_valtronics-server");
/// What may wait for one connection: more than ever gathers for one that reads, and so little that a
/// stalled subscriber's is full before the measurement begins.
const QUEUE: &str = "128KiB";
/// A segment of a poor link. Over loopback's own, of 64 KiB, the kernel would hold megabytes for who
/// does not read, and the server would never notice.
const STALLED_SEGMENT_BYTES: u32 = 536;
/// What a stalled subscriber's own kernel holds.
const STALLED_BUFFER_BYTES: usize = 4096;

/// A running server, which ends with its scenario.
pub(crate) struct Server {
    /// What it uses.
    pub process: Process,
    child: Child,
    dir: tempfile::TempDir,
    address: SocketAddr,
    devices: u64,
    /// The subscribers' token.
    reader: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already when it has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the frame that carries a reading of a device, counted from 0.
pub(crate) fn message(device: u64, value: u64) -> Vec<u8> {
    let text = reading(device, value).to_string();
    let length = u8::try_from(text.len()).expect("125 bytes are enough");
    // A mask of zeros leaves the text as it is.
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

fn reading(device: u64, value: u64) -> Json {
    let readings = json!([{"metric": "sent", "value": value}]);
    json!({"type": "readings", "device": format!("d{device}"), "readings": readings})
}

impl Server {
    /// Starts a server for so many subscribers of one user and devices of one agent.
    pub(crate) fn start(subscribers: u64, devices: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let most = subscribers + 10;
        let config = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = \".\"\n[limits]\nconnections = {most}\n\
             connections_per_user = {most}\nconnects_per_minute = {most}\n\
             handshakes_per_minute_per_address = {most}\ndevices_per_sub = {devices}\n\
             ping_after = \"1h\"\nsilence = \"1h\"\nqueue_bytes = \"{QUEUE}\"\n"
        );
        let file = dir.path().join("server.toml");
        std::fs::write(&file, config).expect("there is room");
        let command =
            Command::new(PROGRAM).arg("--config").arg(file).stderr(Stdio::piped()).spawn();
        let mut child = command.expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = lines.find_map(|line| {
            let said: Json = serde_json::from_str(&line.ok()?).ok()?;
            said.get("address")?.as_str()?.parse().ok()
        });
        let address = address.expect("it says where it listens");
        let reader = sign(dir.path(), "telemetry:read");
        Self { process: Process::new(child.id()), child, dir, address, devices, reader }
    }

    /// Connects the publisher; all devices are known then, from 1 on.
    pub(crate) fn uplink(&self) -> TcpStream {
        let mut socket = self.connect("uplink", self.tcp());
        let token = sign(self.dir.path(), "uplink");
        ask(&mut socket, &json!({"type": "auth", "token": token}), "auth_response");
        let mut readings: Vec<Json> = (0..self.devices).map(|device| reading(device, 0)).collect();
        if let Some(last) = readings.last_mut().and_then(Json::as_object_mut) {
            last.insert("seq".into(), 1.into());
        }
        ask(&mut socket, &readings.into(), "ack");
        socket.into_inner()
    }

    /// Connects a subscriber to some devices; none: to all.
    pub(crate) fn subscriber(&self, devices: &[u64]) -> TcpStream {
        self.subscribe(self.tcp(), devices)
    }

    /// Connects a subscriber to all devices, behind buffers as those of a poor link.
    pub(crate) fn stalled_subscriber(&self) -> TcpStream {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None);
        let socket = socket.expect("there are descriptors");
        socket.set_recv_buffer_size(STALLED_BUFFER_BYTES).expect("it is allowed");
        socket.set_tcp_mss(STALLED_SEGMENT_BYTES).expect("it is allowed");
        socket.connect(&self.address.into()).expect("it listens");
        self.subscribe(socket.into(), &[])
    }

    /// Returns the frame that a subscriber gets of a message.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let (mut uplink, mut subscriber) = (self.uplink(), self.subscriber(&[]));
        uplink.write_all(&message(0, crate::load::FIRST_MOMENT)).expect("it listens");
        let mut frame = vec![0; 1024];
        let length = subscriber.read(&mut frame).expect("the connection lasts");
        frame.truncate(length);
        frame
    }

    /// Returns how many updates were merged away, since somebody did not read.
    pub(crate) fn merged(&self) -> u64 {
        let mut stream = self.tcp();
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let counted =
            answer.lines().find_map(|line| line.strip_prefix(MERGED)?.trim().parse().ok());
        counted.expect("it counts them")
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_nodelay(true).expect("it is TCP");
        stream
    }

    fn subscribe(&self, stream: TcpStream, devices: &[u64]) -> TcpStream {
        let mut socket = self.connect("ws", stream);
        ask(&mut socket, &json!({"type": "auth", "token": self.reader}), "auth_response");
        let filters = if devices.is_empty() { json!({}) } else { json!({"device_id": devices}) };
        let subscribe = json!({
            "type": "subscribe", "channel": "telemetry", "filters": filters, "snapshot": false,
        });
        ask(&mut socket, &subscribe, "subscribe_response");
        socket.into_inner()
    }

    fn connect(&self, path: &str, stream: TcpStream) -> WebSocket<TcpStream> {
        client(format!("ws://{}/{path}", self.address), stream).expect("it upgrades").0
    }
}

fn sign(dir: &Path, scope: &str) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(["token", "--sub", "bench", "--scope", scope, "--data"]).arg(dir);
    let token = command.output().expect("it signs").stdout;
    String::from_utf8(token).expect("a token is text").trim().to_owned()
}

/// Sends a request and waits for its answer, which is good.
fn ask(socket: &mut WebSocket<TcpStream>, request: &Json, kind: &str) {
    socket.send(Message::text(request.to_string())).expect("it listens");
    let answer = socket.read().and_then(Message::into_text).expect("the connection lasts");
    let answer: Json = serde_json::from_str(&answer).expect("messages are JSON");
    assert_eq!(answer.get("type"), Some(&kind.into()), "{answer}");
    assert_ne!(answer.get("success"), Some(&false.into()), "{answer}");
}
