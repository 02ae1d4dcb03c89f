//! From a client's bytes to its messages, however they are cut (RFC 6455, sections 5 to 8): pure.
//!
//! A payload is unmasked as it comes, so nothing is kept but what belongs to a message that is not
//! whole yet, and what came behind one that is.

use std::mem;

use bytes::{Buf as _, BytesMut};
use valtronics_protocol::close::CloseCode;

use super::{
    frame::{Frame, Opcode},
    message::Incoming,
};

/// Reads messages.
#[derive(Debug)]
pub(super) struct Reader {
    max_message_bytes: usize,
    /// What was not taken in yet: the beginning of a header, or all behind a message.
    rest: BytesMut,
    /// The frame under way.
    frame: Option<Frame>,
    /// What the message under way is, if one is.
    kind: Option<Opcode>,
    message: Vec<u8>,
    /// How much of a text under way is known to be UTF-8.
    checked_bytes: usize,
    /// The control frame under way.
    control: Vec<u8>,
}

impl Reader {
    /// Begins with what was read already; a message has at most so many bytes.
    pub(super) fn new(already_read: &[u8], max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            rest: already_read.into(),
            frame: None,
            kind: None,
            message: Vec::new(),
            checked_bytes: 0,
            control: Vec::new(),
        }
    }

    /// Changes how large the messages that begin from now on may be.
    pub(super) fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        self.max_message_bytes = max_message_bytes;
    }

    /// Takes in what was read; returns the first message that is whole. The next one comes by taking
    /// in nothing, until there is none.
    ///
    /// # Errors
    /// The code by which the client is to be told what it did wrong; nothing more is to be read.
    pub(super) fn take_in(&mut self, read: &[u8]) -> Result<Option<Incoming>, CloseCode> {
        let mut rest = mem::take(&mut self.rest);
        let mut bytes = if rest.is_empty() {
            read
        } else {
            rest.extend_from_slice(read);
            &rest
        };
        let message = self.next(&mut bytes)?;
        let left = bytes.len();
        if rest.is_empty() {
            self.rest = bytes.into();
        } else if left > 0 {
            rest.advance(rest.len() - left);
            self.rest = rest;
        }
        Ok(message)
    }

    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Incoming>, CloseCode> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match Frame::parse(bytes)? {
                    Some((frame, rest)) => {
                        *bytes = rest;
                        self.admit(&frame)?;
                        frame
                    }
                    None => return Ok(None),
                },
            };
            let is_control = frame.opcode.is_control();
            frame.unmask(bytes, if is_control { &mut self.control } else { &mut self.message });
            let is_whole = frame.is_last && frame.left_bytes == 0;
            if !is_control && !is_whole {
                self.check_text()?;
            }
            if frame.left_bytes > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if frame.is_last {
                return self.finish(frame.opcode).map(Some);
            }
        }
    }

    /// Tells whether a frame may come here, and fits.
    fn admit(&mut self, frame: &Frame) -> Result<(), CloseCode> {
        match (frame.opcode, self.kind) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(()),
            (Opcode::Continuation, Some(_)) => {}
            (Opcode::Text | Opcode::Binary, None) => self.kind = Some(frame.opcode),
            (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(CloseCode::Protocol);
            }
        }
        let room = self.max_message_bytes.saturating_sub(self.message.len());
        if frame.left_bytes > room as u64 { Err(CloseCode::TooBig) } else { Ok(()) }
    }

    /// Looks whether what has come of a text is the beginning of one: who sends what is none is not
    /// read to the end.
    fn check_text(&mut self) -> Result<(), CloseCode> {
        if self.kind != Some(Opcode::Text) {
            return Ok(());
        }
        let unchecked = self.message.get(self.checked_bytes..).unwrap_or_default();
        self.checked_bytes += match std::str::from_utf8(unchecked) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(CloseCode::NotUtf8),
        };
        Ok(())
    }

    /// Ends a message, or a control frame.
    fn finish(&mut self, opcode: Opcode) -> Result<Incoming, CloseCode> {
        Ok(match opcode {
            Opcode::Ping => Incoming::Ping(mem::take(&mut self.control)),
            Opcode::Pong => {
                self.control = Vec::new();
                Incoming::Pong
            }
            Opcode::Close => {
                check_close(&self.control)?;
                Incoming::Close(mem::take(&mut self.control))
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                self.checked_bytes = 0;
                let message = mem::take(&mut self.message);
                if self.kind.take() == Some(Opcode::Text) {
                    Incoming::Text(String::from_utf8(message).map_err(|_| CloseCode::NotUtf8)?)
                } else {
                    Incoming::Binary(message)
                }
            }
        })
    }
}

/// Checks what a client ends with: nothing, or a code that may be sent, and a text.
fn check_close(payload: &[u8]) -> Result<(), CloseCode> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(()) } else { Err(CloseCode::Protocol) };
    };
    // RFC 6455, section 7.4, and what was registered since.
    if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseCode::Protocol);
    }
    std::str::from_utf8(reason).map_err(|_| CloseCode::NotUtf8).map(|_| ())
}

#[cfg(test)]
mod tests;
