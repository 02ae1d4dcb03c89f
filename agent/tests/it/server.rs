//! A server's side of the uplink, which acknowledges only what it is told to.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Error, Message,
        handshake::server::{Request, Response},
        protocol::CloseFrame,
    },
};
use valtronics_agent::dial::{Stream, WebSocket};
use valtronics_protocol::{
    batch::Decoder,
    counters::Counters,
    reading::Reading,
    uplink::{
        Ack, AgentMessage, Auth, DeviceInfo, FrameHeader, Gap, SUBPROTOCOL_AGENT, ServerMessage,
        StatusEvent, Welcome,
    },
};

use crate::world::within;

/// Listens; sessions are accepted one by one.
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) address: String,
    tls: Option<TlsAcceptor>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// Comes back at an address that it had before.
    pub(crate) async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address, tls: None }
    }

    /// Speaks TLS from now on.
    pub(crate) fn with_tls(self, tls: TlsAcceptor) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Waits for an agent that does not trust the certificate.
    pub(crate) async fn distrusted(&self) -> std::io::Error {
        let (stream, _) = within("the agent connects", self.listener.accept()).await.unwrap();
        let accepting = self.tls.as_ref().unwrap().accept(stream);
        within("the agent goes away", accepting).await.expect_err("the agent trusts nobody else")
    }

    /// Waits for an agent, and reads how it introduces itself.
    #[expect(clippy::result_large_err, reason = "the library's callback demands it")]
    pub(crate) async fn accept(&self) -> Session {
        let (stream, _) = within("the agent connects", self.listener.accept()).await.unwrap();
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => Box::new(within("the agent trusts us", tls.accept(stream)).await.unwrap()),
            None => Box::new(stream),
        };
        let subprotocol = |request: &Request, mut response: Response| {
            let asked = &request.headers()["sec-websocket-protocol"];
            assert_eq!(asked, SUBPROTOCOL_AGENT);
            response.headers_mut().insert("sec-websocket-protocol", asked.clone());
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, subprotocol).await.unwrap();
        let first = within("the agent speaks", socket.next()).await.unwrap().unwrap();
        let message = serde_json::from_str(first.to_text().unwrap()).unwrap();
        let AgentMessage::Auth(auth) = message else { panic!("no auth: {message:?}") };
        Session { socket, auth, counters: None, decoder: Decoder::default() }
    }

    /// Accepts and welcomes, with everything up to `last_seq` committed.
    pub(crate) async fn welcome(&self, last_seq: Option<u64>) -> Session {
        let mut session = self.accept().await;
        session
            .answer(Welcome { success: true, last_seq: Some(last_seq), ..Welcome::default() })
            .await;
        session
    }
}

/// What an agent says.
#[derive(Debug)]
pub(crate) enum Said {
    Readings {
        first: u64,
        bytes: usize,
        readings: Vec<Reading>,
        historical: bool,
    },
    Preview(Vec<Reading>),
    Gap(Gap),
    Status(StatusEvent),
    Device(DeviceInfo),
    /// The end, with its close code.
    Gone(Option<u16>),
}

/// One agent's connection.
pub(crate) struct Session {
    socket: WebSocket,
    pub(crate) auth: Auth,
    /// What the agent has reported last.
    pub(crate) counters: Option<Counters>,
    decoder: Decoder,
}

impl Session {
    pub(crate) async fn answer(&mut self, welcome: Welcome) {
        self.say(&ServerMessage::AuthResponse(welcome)).await;
    }

    pub(crate) async fn ack(&mut self, seq: u64) {
        self.say(&ServerMessage::Ack(Ack { seq: Some(seq), event: None })).await;
    }

    /// Acknowledges readings and status events.
    pub(crate) async fn commit(&mut self, seq: u64, event: u64) {
        let ack = Ack { seq: Some(seq), event: Some(event) };
        // An agent that has all it wants hangs up without waiting for another one.
        let _ = self.try_say(&ServerMessage::Ack(ack)).await;
    }

    pub(crate) async fn say(&mut self, message: &ServerMessage) {
        self.try_say(message).await.unwrap();
    }

    async fn try_say(&mut self, message: &ServerMessage) -> Result<(), Error> {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).await
    }

    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.socket.close(Some(frame)).await.unwrap();
    }

    /// Waits for the next thing that the agent says.
    pub(crate) async fn next(&mut self) -> Said {
        within("the agent says something", self.hear()).await
    }

    async fn hear(&mut self) -> Said {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => return self.readings(&frame),
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).unwrap() {
                    AgentMessage::Status(event) => return Said::Status(event),
                    AgentMessage::Device(info) => return Said::Device(info),
                    AgentMessage::Gap(gap) => return Said::Gap(gap),
                    AgentMessage::Auth(auth) => self.auth = auth,
                    AgentMessage::Counters(counters) => self.counters = Some(counters),
                },
                Some(Ok(Message::Close(frame))) => {
                    return Said::Gone(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Said::Gone(None),
            }
        }
    }

    /// Waits for `count` readings, and returns them with their numbers.
    pub(crate) async fn numbered(&mut self, count: usize) -> Vec<(u64, Reading)> {
        let mut found = Vec::new();
        while found.len() < count {
            match self.next().await {
                Said::Readings { first, readings, .. } => found.extend((first..).zip(readings)),
                Said::Gone(code) => panic!("gone with {code:?} after {found:?}"),
                Said::Preview(_) | Said::Gap(_) | Said::Status(_) | Said::Device(_) => {}
            }
        }
        found
    }

    /// Waits for a status event.
    pub(crate) async fn status(&mut self) -> StatusEvent {
        loop {
            match self.next().await {
                Said::Status(event) => return event,
                Said::Gone(code) => panic!("gone with {code:?}"),
                Said::Readings { .. } | Said::Preview(_) | Said::Gap(_) | Said::Device(_) => {}
            }
        }
    }

    fn readings(&mut self, frame: &[u8]) -> Said {
        let (header, batch) = FrameHeader::read(frame).unwrap();
        let mut by_itself = Decoder::default();
        let decoder = match header {
            FrameHeader::Numbered { historical: true, .. } => &mut by_itself,
            FrameHeader::Numbered { historical: false, .. } | FrameHeader::Preview => {
                &mut self.decoder
            }
        };
        let rows = decoder.decode(batch).unwrap().to_vec();
        let reading = |row: valtronics_protocol::batch::Row| {
            let series = &decoder.series()[row.series as usize];
            Reading {
                device: series.device.clone(),
                metric: series.metric.clone(),
                unit: series.unit.clone(),
                time_source: series.time_source,
                timestamp: row.timestamp,
                value: row.value,
            }
        };
        let readings = rows.into_iter().map(reading).collect();
        match header {
            FrameHeader::Preview => Said::Preview(readings),
            FrameHeader::Numbered { historical, first } => {
                Said::Readings { first, bytes: frame.len(), readings, historical }
            }
        }
    }
}
