//! One connection to the server, from its opening to its end.
//!
//! It awaits one thing, applies it, and sends what may go. An error ends it; coming back is its
//! owner's business.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding::CloseCode as WireCode},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use valtronics_protocol::{
    batch::Encoder,
    error::ErrorCode,
    reading::Reading,
    uplink::{
        Ack, AgentMessage, Auth, DeviceInfo, FrameHeader, Gateway, SUBPROTOCOL_AGENT,
        ServerMessage, StatusEvent, Welcome,
    },
};

use super::{
    Config, End,
    end::{closed, names_queue},
    window::Window,
};
use crate::{
    clock,
    dial::{self, WebSocket},
    queue::{Limits, Position, frame_bytes, keeper::Handle},
};

/// After how much silence of the server it is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(10);
/// After how much silence the connection is given up: two pings and what a mobile link may take.
const DEAD_AFTER: Duration = Duration::from_secs(25);
/// How long the server may take for its first answer.
const WELCOME_WITHIN: Duration = Duration::from_secs(15);
/// How long the server may take to answer the goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// A reading that is sent later than this after it was received is a backlog.
const LIVE_WITHIN: Duration = Duration::from_secs(10);
/// The most readings in a frame: beyond this a frame compresses no better.
const FRAME_READINGS: usize = 3000;
/// The most bytes in a frame, so that an acknowledgement comes back soon.
const FRAME_BYTES: usize = 64 * 1024;
/// What stands around the readings in a frame, at most.
const FRAME_OVERHEAD: usize = 64;
/// The window of a server that grants none.
const DEFAULT_WINDOW: usize = 64 * 1024;

/// A connection that the server has welcomed.
pub struct Connection<'a> {
    config: &'a Config,
    gateway: &'a Gateway,
    socket: WebSocket,
    queue: Handle,
    window: Window,
    encoder: Encoder,
    heard: Instant,
    pinged: bool,
    stopping: bool,
}

enum Input {
    Message(Message),
    Appended,
    FlushDue,
    PingDue,
    Silent,
    Stopping,
}

impl<'a> Connection<'a> {
    /// Dials, authenticates, and goes on after what the server has committed.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn open(
        config: &'a Config,
        gateway: &'a Gateway,
        queue: Handle,
    ) -> Result<Self, End> {
        let ca_file = config.ca_file.as_ref().map(|path| path.get_ref().as_path());
        let mut socket = dial::websocket(&config.url.0, SUBPROTOCOL_AGENT, ca_file).await?;
        let auth = auth(config, gateway, &queue).await?;
        send(&mut socket, text(&auth)).await?;
        let welcome =
            timeout(WELCOME_WITHIN, welcome(&mut socket)).await.map_err(|_| End::Silent)??;
        let committed = Position {
            seq: welcome.last_seq.flatten().unwrap_or(0),
            event: welcome.last_event.flatten().unwrap_or(0),
            device: 0,
        };
        let end = queue.end();
        if committed.seq > end.seq || committed.event > end.event {
            let reason = "the server has numbers that this agent never gave";
            return Err(End::QueueTaken(reason.into()));
        }
        queue.release(welcome.last_seq.flatten(), welcome.last_event.flatten()).await?;
        let granted = welcome
            .window
            .map_or(DEFAULT_WINDOW, |window| usize::try_from(window).unwrap_or(usize::MAX));
        Ok(Self {
            config,
            gateway,
            socket,
            queue,
            window: Window::new(granted, committed, config.flush),
            encoder: Encoder::default(),
            heard: clock::monotonic(),
            pinged: false,
            stopping: false,
        })
    }

    /// Serves until the connection ends, or `stopping` is cancelled and everything is committed.
    pub async fn serve(mut self, stopping: &CancellationToken) -> End {
        loop {
            if self.stopping && self.is_settled() {
                let goodbye = CloseFrame {
                    code: WireCode::Normal,
                    reason: Utf8Bytes::from_static("stopping"),
                };
                // The server has everything; whether it hears the goodbye changes nothing.
                let _ = self.socket.close(Some(goodbye)).await;
                let _ = timeout(GOODBYE_WITHIN, self.drain()).await;
                return End::Stopped;
            }
            let step = match self.next(stopping).await {
                Ok(input) => self.apply(input).await,
                Err(end) => Err(end),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Reads until the server closes: what is unread when a socket goes resets it, and may take
    /// the goodbye with it before the server has seen that (RFC 6455, 7.1.1; RFC 1122, 4.2.2.13).
    async fn drain(&mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    async fn next(&mut self, stopping: &CancellationToken) -> Result<Input, End> {
        let due = self.flush_due();
        let flush_at = due.unwrap_or(self.heard);
        let ping_at = self.heard + if self.pinged { DEAD_AFTER } else { PING_AFTER };
        let queue = &mut self.queue;
        let appended = async {
            match due {
                Some(_) => queue.urgent().await,
                None => queue.appended().await,
            }
        };
        tokio::select! {
            message = self.socket.next() => match message {
                Some(message) => Ok(Input::Message(message?)),
                None => Err(End::Lost("the server has closed it".into())),
            },
            appended = appended => Ok(appended.map(|()| Input::Appended)?),
            () = sleep_until(flush_at), if due.is_some() => Ok(Input::FlushDue),
            () = sleep_until(ping_at) => Ok(if self.pinged { Input::Silent } else { Input::PingDue }),
            () = stopping.cancelled(), if !self.stopping => Ok(Input::Stopping),
        }
    }

    async fn apply(&mut self, input: Input) -> Result<(), End> {
        match input {
            Input::Message(message) => {
                self.heard = clock::monotonic();
                self.pinged = false;
                match parse(message)? {
                    Some(message) => self.heed(message).await,
                    None => Ok(()),
                }
            }
            Input::FlushDue => self.flush().await,
            Input::PingDue => {
                self.pinged = true;
                send(&mut self.socket, Message::Ping(Default::default())).await
            }
            Input::Silent => Err(End::Silent),
            // What follows from these is computed anew before the next wait.
            Input::Appended => Ok(()),
            Input::Stopping => {
                self.stopping = true;
                Ok(())
            }
        }
    }

    /// Returns when something may go: events and settings at once, readings at the next flush.
    fn flush_due(&self) -> Option<Instant> {
        let now = clock::monotonic();
        let (end, sent) = (self.queue.end(), self.window.sent());
        if end.event > sent.event || end.device > sent.device {
            return Some(now);
        }
        let may_go = end.seq > sent.seq && self.window.room().is_some();
        match self.stopping {
            true => may_go.then_some(now),
            false => may_go.then(|| self.window.flush_due(now)),
        }
    }

    fn is_settled(&self) -> bool {
        self.window.sent() == self.queue.end() && self.window.is_settled()
    }

    /// Sends what waits, as far as the window admits it.
    async fn flush(&mut self) -> Result<(), End> {
        let live_since = clock::now().minus(LIVE_WITHIN + self.config.flush);
        let is_behind = loop {
            let room = self.window.room();
            let limits = Limits {
                readings: room.map_or(0, |_| FRAME_READINGS),
                bytes: room.unwrap_or(0).min(FRAME_BYTES).saturating_sub(FRAME_OVERHEAD),
                live_since,
            };
            let chunk = self.queue.read(self.window.sent(), limits).await?;
            self.send_devices(chunk.devices).await?;
            let has_sent =
                self.send_readings(&chunk.readings, chunk.first, chunk.historical).await?;
            if has_sent && chunk.more {
                continue;
            }
            // Last, or what a device sent before it went would bring it back.
            self.send_events(chunk.events).await?;
            break chunk.more;
        };
        self.window.flushed(clock::monotonic(), is_behind);
        Ok(())
    }

    async fn send_devices(&mut self, devices: Vec<DeviceInfo>) -> Result<(), End> {
        for device in devices {
            send(&mut self.socket, text(&AgentMessage::Device(device))).await?;
            self.window.device_sent();
        }
        Ok(())
    }

    async fn send_events(&mut self, events: Vec<StatusEvent>) -> Result<(), End> {
        for event in events {
            let seq = event.seq;
            send(&mut self.socket, text(&AgentMessage::Status(event))).await?;
            self.window.event_sent(seq);
        }
        Ok(())
    }

    /// Sends readings as one frame; returns whether they went.
    async fn send_readings(
        &mut self,
        readings: &[Reading],
        first: u64,
        historical: bool,
    ) -> Result<bool, End> {
        let estimate = readings.iter().map(frame_bytes).sum::<usize>() + FRAME_OVERHEAD;
        if readings.is_empty() || !self.window.admits(estimate) {
            return Ok(false);
        }
        let mut frame = Vec::new();
        FrameHeader::Numbered { historical, first }.write(&mut frame);
        match historical {
            true => self.encoder.encode_self_contained(readings, &mut frame),
            false => self.encoder.encode(readings, &mut frame),
        }
        self.window.frame_sent(first + readings.len() as u64 - 1, frame.len());
        send(&mut self.socket, Message::Binary(frame.into())).await?;
        Ok(true)
    }

    async fn heed(&mut self, message: ServerMessage) -> Result<(), End> {
        match message {
            ServerMessage::Ack(Ack { seq, event }) => {
                self.window.acknowledged(seq.unwrap_or(0), event.unwrap_or(0));
                self.queue.release(seq, event).await?;
            }
            ServerMessage::AuthExpiring { expires_at } => {
                debug!(%expires_at, "the token is about to expire");
                let auth = auth(self.config, self.gateway, &self.queue).await?;
                send(&mut self.socket, text(&auth)).await?;
            }
            ServerMessage::AuthResponse(welcome) => accepted(welcome).map(drop)?,
            ServerMessage::Error(refusal) => {
                warn!(seq = refusal.seq, "the server refuses a message: {}", refusal.message);
            }
            ServerMessage::Other => {}
        }
        Ok(())
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    // A write that blocks for so long means that nobody reads there any more.
    timeout(DEAD_AFTER, socket.send(message)).await.map_err(|_| End::Silent)?.map_err(End::from)
}

fn text(message: &AgentMessage) -> Message {
    let text = serde_json::to_string(message).expect("messages have text keys and finite numbers");
    Message::text(text)
}

async fn auth(config: &Config, gateway: &Gateway, queue: &Handle) -> Result<AgentMessage, End> {
    let path = config.token_file.get_ref();
    let token = std::fs::read_to_string(path)
        .map_err(|error| End::TokenFile(path.display().to_string(), error))?;
    Ok(AgentMessage::Auth(Auth {
        token: token.trim().into(),
        queue: Some(queue.id().await?),
        gateway: Some(Gateway { time: clock::now(), ..gateway.clone() }),
    }))
}

/// Reads until the server has answered the authentication.
async fn welcome(socket: &mut WebSocket) -> Result<Welcome, End> {
    while let Some(message) = socket.next().await {
        if let Some(ServerMessage::AuthResponse(welcome)) = parse(message?)? {
            return accepted(welcome);
        }
    }
    Err(End::Lost("the server has closed it".into()))
}

fn accepted(welcome: Welcome) -> Result<Welcome, End> {
    if welcome.success {
        return Ok(welcome);
    }
    let why = [welcome.message, welcome.reason].into_iter().flatten().next();
    let why = why.unwrap_or_else(|| "no reason given".into());
    match (welcome.error, welcome.retry_after) {
        (Some(ErrorCode::RateLimited | ErrorCode::ConnectionLimit), seconds)
        | (None, seconds @ Some(_)) => Err(End::Limited(Duration::from_secs(seconds.unwrap_or(0)))),
        (Some(ErrorCode::Forbidden), _) if names_queue(&why) => Err(End::QueueTaken(why)),
        _ => Err(End::Refused(why)),
    }
}

/// Reads a frame of the server; pings, pongs and what this version does not know are `None`.
fn parse(message: Message) -> Result<Option<ServerMessage>, End> {
    match message {
        Message::Text(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
            End::Lost(format!("the server sends no message of this protocol: {error}"))
        }),
        Message::Close(frame) => Err(closed(frame)),
        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}
