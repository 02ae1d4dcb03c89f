//! The line: one request, and what comes back.
//!
//! In RTU nothing says which request an answer belongs to. So what comes before a request is thrown
//! away until the line keeps silent, and a device that let one time out is left alone until its
//! answer can be expected no more (`device`). In TCP the transaction's number tells.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    super::{
        outlet::Outlet,
        port::{self, OpenError},
    },
    config::{Config, Link},
};
use crate::{
    clock,
    decode::modbus::{
        Span,
        frame::{Answer, Exception, Framing, LONGEST, Request},
    },
    dial::{self, Stream},
};

/// An RTU answer has ended when nothing followed for so long. The standard says 1.5 characters; USB
/// adapters and networks hold bytes back for a few tens of milliseconds.
const QUIET: Duration = Duration::from_millis(250);
/// How long noise is waited for to end before a request is made into it.
const NOISE: Duration = Duration::from_secs(1);
/// The most bytes that are searched for an answer: more is noise, or in TCP many late answers.
const MOST_BYTES: usize = 4 * LONGEST;

/// What a device said to a request.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// The items that were asked for.
    Words(Vec<u16>),
    /// Why it refuses.
    Refused(Exception),
    /// An answer of its own that is damaged.
    Damage,
    /// Something that is no answer of its own.
    Noise,
    /// Nothing.
    Silence,
}

/// Why a line can be used no more; each is a sentence for a device's status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("Serial port unplugged")]
    Unplugged,
    #[error("Connection closed by {0}")]
    Unused(String),
    #[error("{0} does not answer in Modbus TCP")]
    Foreign(String),
    /// It had served.
    #[error("Connection closed by {0}")]
    AfterAnswers(String),
}

/// An open line.
pub(super) struct Bus {
    stream: Box<dyn Stream>,
    /// The other side, unless it is a serial port.
    peer: Option<String>,
    framing: Framing,
    timeout: Duration,
    gap: Duration,
    /// How long a byte takes.
    byte: Duration,
    transaction: u16,
    received: Vec<u8>,
    has_answered: bool,
}

impl Bus {
    pub(super) async fn open(config: &Config) -> Result<Self, OpenError> {
        let (stream, peer, byte): (Box<dyn Stream>, _, _) = match &config.link {
            // A byte is at most 12 bits long.
            Link::Device(path) => {
                let byte = Duration::from_secs(12) / config.line.baud;
                (port::open(path, config.line)?, None, byte)
            }
            Link::Network(address, _) => {
                (Box::new(dial::tcp(address).await?), Some(address.clone()), Duration::ZERO)
            }
        };
        Ok(Self {
            stream,
            peer,
            framing: config.link.framing(),
            timeout: config.timeout,
            // At least the 3.5 characters of the standard.
            gap: config.gap.max(4 * byte),
            byte,
            transaction: 0,
            received: Vec::new(),
            has_answered: false,
        })
    }

    /// Does nothing until `due`. A port that is unplugged meanwhile is noticed; a connection that
    /// ends meanwhile is made anew when it is needed.
    pub(super) async fn rest_until(&mut self, due: Instant) -> Result<(), Closed> {
        if self.peer.is_some() {
            sleep_until(due).await;
            return Ok(());
        }
        while let Ok(read) = timeout_at(due, self.stream.read(&mut [0; LONGEST])).await {
            read.ok().filter(|count| *count > 0).ok_or_else(|| self.closed())?;
        }
        Ok(())
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(
        &mut self,
        unit: u8,
        span: Span,
        outlet: &Outlet,
    ) -> Result<Said, Closed> {
        self.settle().await?;
        self.transaction = self.transaction.wrapping_add(1);
        let request = Request { transaction: self.transaction, unit, span };
        let bytes = request.encode(self.framing);
        outlet.capture(Some("request"), &bytes).await;
        // No flush: on a serial port it would block the runtime until the last bit is out.
        let sent = timeout(self.timeout.max(QUIET), self.stream.write_all(&bytes)).await;
        if !sent.is_ok_and(|sent| sent.is_ok()) {
            return Err(self.closed());
        }
        let on_the_line = self.byte * (bytes.len() + request.answer_bytes()) as u32;
        let said = self.hear(request, clock::monotonic() + self.timeout + on_the_line).await?;
        outlet.capture(Some("answer"), &self.received).await;
        if matches!(said, Said::Words(_) | Said::Refused(_)) {
            self.has_answered = true;
            self.received.clear();
        }
        Ok(said)
    }

    /// Waits until nothing comes any more. In TCP what is late tells itself.
    async fn settle(&mut self) -> Result<(), Closed> {
        if self.framing == Framing::Tcp {
            sleep_until(clock::monotonic() + self.gap).await;
            return Ok(());
        }
        self.received.clear();
        let noise = clock::monotonic() + NOISE;
        while let Ok(read) = timeout(self.gap, self.stream.read(&mut [0; LONGEST])).await {
            read.ok().filter(|count| *count > 0).ok_or_else(|| self.closed())?;
            if clock::monotonic() > noise {
                break;
            }
        }
        Ok(())
    }

    async fn hear(&mut self, request: Request, deadline: Instant) -> Result<Said, Closed> {
        let mut piece = [0; LONGEST];
        loop {
            let is_rtu = self.framing == Framing::Rtu;
            let has_begun = is_rtu && self.received.first() == Some(&request.unit);
            let until = match has_begun {
                true => (clock::monotonic() + QUIET).min(deadline + QUIET),
                false => deadline,
            };
            let count = match timeout_at(until, self.stream.read(&mut piece)).await {
                Err(_) if has_begun => return Ok(Said::Damage),
                Err(_) if is_rtu && !self.received.is_empty() => return Ok(Said::Noise),
                Err(_) => return Ok(Said::Silence),
                Ok(Ok(0) | Err(_)) => return Err(self.closed()),
                Ok(Ok(count)) => count,
            };
            self.received.extend(piece.iter().take(count));
            match request.answer(self.framing, &self.received) {
                Answer::Words(words) => return Ok(Said::Words(words)),
                Answer::Refused(exception) => return Ok(Said::Refused(exception)),
                Answer::Incomplete if self.received.len() <= MOST_BYTES => {}
                Answer::Incomplete if is_rtu => return Ok(Said::Noise),
                Answer::Incomplete | Answer::Broken => {
                    return Err(Closed::Foreign(self.peer.clone().unwrap_or_default()));
                }
            }
        }
    }

    fn closed(&self) -> Closed {
        match &self.peer {
            None => Closed::Unplugged,
            Some(peer) if self.has_answered => Closed::AfterAnswers(peer.clone()),
            Some(peer) => Closed::Unused(peer.clone()),
        }
    }
}
