//! The names of devices: messages have ids only, HTTP beside the WebSocket tells what they are.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How many devices one request asks for: their last values come along.
const A_PAGE: usize = 200;
/// The largest answer that is read; a larger one leaves ids for names.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// How long a name is waited for: messages wait meanwhile, and an id is a name, too.
const WITHIN: Duration = Duration::from_secs(2);

/// Where to ask.
pub(super) struct Server {
    /// A name or an address.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// Both, as `Host` has them.
    pub(super) authority: String,
}

/// The names that are known; as many as the server has devices.
#[derive(Default)]
pub(super) struct Names(HashMap<u64, String>);

#[derive(Deserialize)]
struct Devices {
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    id: u64,
    name: String,
}

impl Names {
    /// Returns the name of a device. Who is not known is asked for, once, with those that follow.
    pub(super) async fn of(&mut self, id: u64, server: &Server, token: &str) -> &str {
        if !self.0.contains_key(&id) {
            let asked = timeout(WITHIN, devices(id, server, token)).await;
            let found = asked.ok().flatten().into_iter().flatten();
            self.0.extend(found.map(|device| (device.id, device.name)));
        }
        self.0.entry(id).or_insert_with(|| format!("device {id}"))
    }
}

/// Lists devices from an id on; none when that is not allowed, or goes wrong.
async fn devices(from: u64, server: &Server, token: &str) -> Option<Vec<Device>> {
    let mut stream = TcpStream::connect((server.host.as_str(), server.port)).await.ok()?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    let request = format!(
        "GET /api/v1/devices?limit={A_PAGE}&cursor={from} HTTP/1.0\r\nHost: {}\r\n\
         Authorization: Bearer {token}\r\n\r\n",
        server.authority
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await.ok()?;
    let answer = std::str::from_utf8(&answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?;
    (status == "200").then(|| serde_json::from_str::<Devices>(body).ok())?.map(|all| all.devices)
}
