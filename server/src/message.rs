//! Messages of ours as frames: each in its connection's format, alone or several in a `batch`.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use serde::Serialize;
use valtronics_protocol::{cbor, filter::Options, format::Format, id::DeviceId};

use crate::{commit::MetricIndex, socket::Message};

/// The most messages of one batch (WebSocket API, section 5).
const BATCH_MESSAGES: usize = 50;
/// The most bytes of one batch (the same).
const BATCH_BYTES: usize = 64 * 1024;
/// What a batch takes beside its messages, in either format.
const ENVELOPE_BYTES: usize = 32;

/// Whether a message may go together with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Packing {
    /// It is a frame of its own.
    #[default]
    Alone,
    /// Where several wait, they may go as one `batch`; nothing waits for company.
    Batch,
}

impl Packing {
    /// Returns how messages of a subscription with these options go.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        if options.batch { Self::Batch } else { Self::Alone }
    }
}

/// One encoded `telemetry_update`, shared by everybody who gets it.
#[derive(Debug)]
pub struct TelemetryFrame {
    /// The message on the wire.
    pub message: Message,
    /// Whose readings it holds.
    pub device: DeviceId,
    /// Which metrics it holds.
    pub metrics: Box<[MetricIndex]>,
    /// When its readings came in, if they are on their first way out.
    pub arrived_at: Option<Instant>,
}

/// A message on its way to one connection.
#[derive(Debug)]
pub struct Outgoing {
    content: Content,
    packing: Packing,
}

/// What many connections send stays one thing on its way: counting its users once for each of them
/// is most of what handing it on costs.
#[derive(Debug)]
enum Content {
    Message(Message),
    Telemetry(Arc<TelemetryFrame>),
}

impl Outgoing {
    /// Makes one that may go together with others, or not.
    #[must_use]
    pub fn new(message: Message, packing: Packing) -> Self {
        Self { content: Content::Message(message), packing }
    }

    /// The same of readings.
    #[must_use]
    pub fn telemetry(frame: Arc<TelemetryFrame>, packing: Packing) -> Self {
        Self { content: Content::Telemetry(frame), packing }
    }

    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &Message {
        match &self.content {
            Content::Message(message) => message,
            Content::Telemetry(frame) => &frame.message,
        }
    }
}

impl AsRef<Message> for Outgoing {
    fn as_ref(&self) -> &Message {
        self.message()
    }
}

/// Writes a message of ours.
#[must_use]
pub fn to_message(message: &impl Serialize, format: Format) -> Message {
    match format {
        Format::Json => {
            let json = serde_json::to_string(message);
            Message::text(&json.expect("our messages have text keys only"))
        }
        Format::Cbor => Message::binary(&cbor::to_vec(message)),
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self::new(message, Packing::Alone)
    }
}

/// Takes the next frame off the messages that wait. A run of messages that may be joined becomes a
/// batch; a single one goes as it is.
pub fn next_frame(waiting: &mut VecDeque<Outgoing>, format: Format) -> Option<Outgoing> {
    let run = run_length(waiting);
    if run < 2 {
        return waiting.pop_front();
    }
    let messages: Vec<Outgoing> = waiting.drain(..run).collect();
    Some(join(&messages, format).into())
}

/// Counts the messages at the front that one batch takes.
fn run_length(waiting: &VecDeque<Outgoing>) -> usize {
    let mut bytes = ENVELOPE_BYTES;
    let fits = |outgoing: &&Outgoing| {
        if outgoing.packing == Packing::Alone {
            return false;
        }
        // In JSON a comma follows.
        bytes += outgoing.message().size() + 1;
        bytes <= BATCH_BYTES
    };
    waiting.iter().take(BATCH_MESSAGES).take_while(fits).count()
}

fn join(messages: &[Outgoing], format: Format) -> Message {
    let messages: Vec<&[u8]> = messages.iter().map(|one| one.message().payload()).collect();
    match format {
        Format::Json => {
            let messages = messages.join(&b","[..]);
            let batch = [br#"{"type":"batch","messages":["#, &messages[..], b"]}"].concat();
            Message::json(&batch)
        }
        Format::Cbor => Message::binary(&cbor::join(&messages)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(messages: impl IntoIterator<Item = (String, Packing)>) -> Vec<String> {
        let outgoing = |(text, packing): (String, _)| Outgoing::new(Message::text(&text), packing);
        let mut waiting: VecDeque<Outgoing> = messages.into_iter().map(outgoing).collect();
        let frames = std::iter::from_fn(|| next_frame(&mut waiting, Format::Json));
        frames.map(|frame| str::from_utf8(frame.message().payload()).unwrap().to_owned()).collect()
    }

    fn batch(messages: &str) -> String {
        format!(r#"{{"type":"batch","messages":[{messages}]}}"#)
    }

    #[test]
    fn runs_are_joined_and_nothing_is_overtaken() {
        use Packing::{Alone, Batch};
        let messages = [
            ("1", Batch),
            ("2", Alone),
            ("3", Batch),
            ("4", Batch),
            ("5", Alone),
            ("6", Batch),
            ("7", Batch),
        ];
        let messages = messages.map(|(text, packing)| (text.to_owned(), packing));
        assert_eq!(frames(messages), ["1", "2", &batch("3,4"), "5", &batch("6,7")]);
        assert_eq!(frames([]), [""; 0]);
    }

    #[test]
    fn a_batch_is_bounded_in_messages_and_in_bytes() {
        let many = |text: &str, count| vec![(text.to_owned(), Packing::Batch); count];
        let ones = |count| batch(&vec!["1"; count].join(","));
        assert_eq!(frames(many("1", 101)), [ones(50), ones(50), "1".to_owned()]);
        for size in [1000, 21_000, 32_000, 33_000, 65_536, 262_144] {
            let text = "x".repeat(size);
            let frames = frames(many(&text, 7));
            assert!(frames.iter().all(|frame| frame.len() <= BATCH_BYTES || *frame == text));
            assert_eq!(frames.iter().map(|frame| frame.matches(&text).count()).sum::<usize>(), 7);
            assert_eq!(frames.len(), 7usize.div_ceil((BATCH_BYTES / size).max(1)), "{size}");
        }
    }

    #[test]
    fn cbor_is_joined_as_it_stands() {
        let (one, two) = (serde_json::json!({"a": 1}), serde_json::json!({"b": [2.0]}));
        let outgoing = |value| Outgoing::new(to_message(value, Format::Cbor), Packing::Batch);
        let mut waiting = VecDeque::from([&one, &two].map(outgoing));
        let frame = next_frame(&mut waiting, Format::Cbor);
        let batch = serde_json::json!({"type": "batch", "messages": [one, two]});
        assert_eq!(frame.unwrap().message(), &to_message(&batch, Format::Cbor));
        assert_eq!(waiting.len(), 0);
    }
}
