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
    uplink::{
        Ack, AgentMessage, DeviceInfo, FrameHeader, Gap, Gateway, SUBPROTOCOL_AGENT, ServerMessage,
        StatusEvent,
    },
};

use super::{
    Config, End,
    end::closed,
    opening::{accepted, auth, settle_clock, welcome},
    previews::Previews,
    window::Window,
};
use crate::{
    clock,
    dial::{self, WebSocket},
    queue::{Chunk, Limits, frame_bytes, keeper::Handle},
};

/// After how much silence of the server it is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(10);
/// After how much silence the connection is given up: two pings and what a mobile link may take.
const DEAD_AFTER: Duration = Duration::from_secs(25);
/// How often the server is told what was counted.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// How long the server may take for its first answer.
const WELCOME_WITHIN: Duration = Duration::from_secs(15);
/// How long the server may take to answer the goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// A reading that is sent later than this after it was received is a backlog.
const LIVE_WITHIN: Duration = Duration::from_secs(10);
/// The most readings in a frame: beyond this a frame compresses no better.
const FRAME_READINGS: usize = 3000;
/// What a ping behind a preview says; others say nothing.
const PREVIEW_PING: &[u8] = b"preview";
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
    previews: &'a mut Previews,
    encoder: Encoder,
    heard: Instant,
    pinged: bool,
    report_at: Instant,
    stopping: bool,
}

enum Input {
    Message(Message),
    Appended,
    FlushDue,
    PingDue,
    ReportDue,
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
        previews: &'a mut Previews,
    ) -> Result<Self, End> {
        let ca_file = config.ca_file.as_ref().map(|path| path.get_ref().as_path());
        let mut socket = dial::websocket(&config.url.0, SUBPROTOCOL_AGENT, ca_file).await?;
        let auth = auth(config, gateway, &queue).await?;
        let asked = clock::monotonic();
        send(&mut socket, text(&auth)).await?;
        let welcome =
            timeout(WELCOME_WITHIN, welcome(&mut socket)).await.map_err(|_| End::Silent)??;
        if let Some(time) = welcome.time {
            settle_clock(&queue, time, clock::monotonic() - asked).await?;
        }
        let (seq, event) = (welcome.last_seq.flatten(), welcome.last_event.flatten());
        let Some(committed) = queue.resume(seq, event).await? else {
            let reason = "the server has numbers that this agent never gave";
            return Err(End::QueueTaken(reason.into()));
        };
        let granted = welcome
            .window
            .map_or(DEFAULT_WINDOW, |window| usize::try_from(window).unwrap_or(usize::MAX));
        previews.connected();
        Ok(Self {
            config,
            gateway,
            socket,
            queue,
            window: Window::new(granted, committed, config.flush),
            previews,
            encoder: Encoder::default(),
            heard: clock::monotonic(),
            pinged: false,
            report_at: clock::monotonic(),
            stopping: false,
        })
    }

    /// Serves until the connection ends, or `stopping` is cancelled and everything is committed.
    pub async fn serve(mut self, stopping: &CancellationToken) -> End {
        loop {
            if self.stopping && self.is_settled() {
                // Now the sums say that all has arrived.
                let _ = self.report().await;
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
            () = sleep_until(self.report_at) => Ok(Input::ReportDue),
            () = stopping.cancelled(), if !self.stopping => Ok(Input::Stopping),
        }
    }

    async fn apply(&mut self, input: Input) -> Result<(), End> {
        match input {
            Input::Message(message) => {
                self.heard = clock::monotonic();
                self.pinged = false;
                if matches!(&message, Message::Pong(payload) if **payload == *PREVIEW_PING) {
                    self.previews.arrived();
                }
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
            Input::ReportDue => {
                self.report_at = clock::monotonic() + REPORT_EVERY;
                self.report().await
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
        let frame = may_go.then(|| match self.stopping {
            true => now,
            false => self.window.flush_due(now),
        });
        let preview = self.previews.due(end.seq, sent.seq, self.config.flush);
        [frame, preview].into_iter().flatten().min()
    }

    fn is_settled(&self) -> bool {
        self.window.sent() == self.queue.end() && self.window.is_settled()
    }

    /// Sends what waits, as far as the window admits it; what is live goes ahead of a backlog.
    async fn flush(&mut self) -> Result<(), End> {
        let is_behind = loop {
            let chunk = self.queue.read(self.window.sent(), self.limits()).await?;
            let now = clock::monotonic();
            self.send_devices(&chunk.devices).await?;
            if chunk.historical {
                self.previews.left(true, true, now);
                self.send_preview_if_due(now).await?;
            }
            for gap in &chunk.gaps {
                self.send_gap(gap).await?;
            }
            if self.send_readings(&chunk).await? && chunk.more {
                continue;
            }
            let waits = self.window.sent().seq < self.queue.end().seq;
            self.previews.left(waits, chunk.historical, now);
            if waits && !chunk.events.is_empty() {
                // Or what waits would bring a device back that has gone since.
                self.send_preview().await?;
            } else {
                self.send_preview_if_due(now).await?;
            }
            // Last, or what a device sent before it went would bring it back.
            self.send_events(chunk.events).await?;
            break waits;
        };
        self.window.flushed(clock::monotonic(), is_behind);
        Ok(())
    }

    fn limits(&self) -> Limits {
        let room = self.window.room();
        let readings = self.window.frame_readings().clamp(1, FRAME_READINGS);
        Limits {
            readings: room.map_or(0, |_| readings),
            bytes: room.unwrap_or(0).saturating_sub(FRAME_OVERHEAD),
            live_since: clock::now().minus(LIVE_WITHIN + self.config.flush),
            passed: self.previews.passed(),
        }
    }

    async fn send_preview_if_due(&mut self, now: Instant) -> Result<(), End> {
        let (last, sent) = (self.queue.end().seq, self.window.sent().seq);
        match self.previews.due(last, sent, self.config.flush) {
            Some(due) if due <= now => self.send_preview().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Shows the newest values, with a ping behind them.
    async fn send_preview(&mut self) -> Result<(), End> {
        let after = self.previews.after(self.window.sent().seq);
        let preview = self.queue.preview(after).await?;
        if preview.readings.is_empty() {
            self.previews.showed(preview.through);
            return Ok(());
        }
        let mut frame = Vec::new();
        FrameHeader::Preview.write(&mut frame);
        self.encoder.encode(preview.readings.iter().map(|(_, reading)| reading), &mut frame);
        let needs = self.window.time_for(frame.len());
        self.previews.sent(preview.through, needs, clock::monotonic());
        send(&mut self.socket, Message::Binary(frame.into())).await?;
        send(&mut self.socket, Message::Ping(PREVIEW_PING.into())).await
    }

    async fn send_gap(&mut self, gap: &Gap) -> Result<(), End> {
        send(&mut self.socket, text(&AgentMessage::Gap(gap.clone()))).await?;
        self.window.gap_sent(gap.last);
        Ok(())
    }

    async fn send_devices(&mut self, devices: &[DeviceInfo]) -> Result<(), End> {
        for device in devices {
            send(&mut self.socket, text(&AgentMessage::Device(device.clone()))).await?;
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
    async fn send_readings(&mut self, chunk: &Chunk) -> Result<bool, End> {
        let Chunk { first, readings, historical, more, .. } = chunk;
        let estimate = readings.iter().map(frame_bytes).sum::<usize>() + FRAME_OVERHEAD;
        if readings.is_empty() || !self.window.admits(estimate) {
            return Ok(false);
        }
        let mut frame = Vec::new();
        FrameHeader::Numbered { historical: *historical, first: *first }.write(&mut frame);
        match historical {
            true => Encoder::default().encode_self_contained(readings, &mut frame),
            false => self.encoder.encode(readings, &mut frame),
        }
        let last = first + readings.len() as u64 - 1;
        self.window.frame_sent(last, readings.len(), frame.len(), *more, clock::monotonic());
        send(&mut self.socket, Message::Binary(frame.into())).await?;
        self.queue.sent(*first, readings.len() as u64).await?;
        Ok(true)
    }

    async fn report(&mut self) -> Result<(), End> {
        let counters = self.queue.account().await?.totals;
        send(&mut self.socket, text(&AgentMessage::Counters(counters))).await
    }

    async fn heed(&mut self, message: ServerMessage) -> Result<(), End> {
        match message {
            ServerMessage::Ack(Ack { seq, event }) => {
                let now = clock::monotonic();
                self.window.acknowledged(seq.unwrap_or(0), event.unwrap_or(0), now);
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

/// Reads a frame of the server; pings, pongs and what this version does not know are `None`.
pub(super) fn parse(message: Message) -> Result<Option<ServerMessage>, End> {
    match message {
        Message::Text(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
            End::Lost(format!("the server sends no message of this protocol: {error}"))
        }),
        Message::Close(frame) => Err(closed(frame)),
        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}
