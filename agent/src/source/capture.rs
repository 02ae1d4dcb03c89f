//! Recordings of raw bytes with their times, which `[[replay]]` plays again.
//!
//! A text file with one JSON object a line. The first is `{"capture":1,"started":TIMESTAMP}`; each
//! other is what came in at one moment: `ms` since the start, `source`, for MQTT its `topic`, and
//! the bytes as `text`, or as `hex` where they are no UTF-8.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};
use valtronics_protocol::time::UnixMillis;

/// How many records may wait for the disk; then the sources wait too, so that nothing is missing.
const RECORDS: usize = 256;
/// The version of the format.
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    capture: u32,
    started: UnixMillis,
}

/// Each other line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Milliseconds since the start.
    pub ms: u64,
    /// The source's name.
    pub source: String,
    /// The topic of an MQTT message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The bytes, where they are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The bytes in hexadecimal digits, where they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Record {
    /// Makes the record of `bytes`.
    #[must_use]
    pub fn new(ms: u64, source: &str, topic: Option<&str>, bytes: &[u8]) -> Self {
        let text = str::from_utf8(bytes).ok().map(str::to_owned);
        let digits = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            ms,
            source: source.into(),
            topic: topic.map(str::to_owned),
            hex: text.is_none().then(digits),
            text,
        }
    }

    /// Returns the bytes, or `None` when the record's digits are damaged.
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match (&self.text, &self.hex) {
            (Some(text), None) => Some(Cow::Borrowed(text.as_bytes())),
            (None, Some(hex)) => hex
                .as_bytes()
                .chunks(2)
                .map(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())
                .collect::<Option<Vec<u8>>>()
                .map(Cow::Owned),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }
}

/// Tells whether `line` begins a recording of this format.
#[must_use]
pub fn is_header(line: &str) -> bool {
    serde_json::from_str::<Header>(line).is_ok_and(|header| header.capture == VERSION)
}

/// A source's way to the recording.
#[derive(Debug, Clone)]
pub struct Recorder {
    records: mpsc::Sender<Record>,
    started: Instant,
}

impl Recorder {
    /// Begins a recording in a new file, and returns the blocking work of writing it, which ends
    /// with the last recorder.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(
        path: &Path,
        started: Instant,
        now: UnixMillis,
    ) -> io::Result<(Self, impl FnOnce() -> io::Result<()> + Send + use<>)> {
        let mut file = BufWriter::new(File::create(path)?);
        let header = Header { capture: VERSION, started: now };
        write_line(&mut file, &header)?;
        file.flush()?;
        let (records, inbox) = mpsc::channel(RECORDS);
        Ok((Self { records, started }, move || write(file, inbox)))
    }

    /// Records what came in.
    pub async fn record(&self, source: &str, topic: Option<&str>, bytes: &[u8], now: Instant) {
        let since: Duration = now - self.started;
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        // When writing has failed, that was said; the readings go on.
        let _ = self.records.send(Record::new(ms, source, topic, bytes)).await;
    }
}

fn write(mut file: BufWriter<File>, mut inbox: mpsc::Receiver<Record>) -> io::Result<()> {
    while let Some(record) = inbox.blocking_recv() {
        write_line(&mut file, &record)?;
        if inbox.is_empty() {
            file.flush()?;
        }
    }
    file.flush()
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_a_record() {
        let check = |bytes: &[u8], expected: &str| {
            let record = Record::new(5, "a", None, bytes);
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(line, expected);
            let read: Record = serde_json::from_str(&line).unwrap();
            assert_eq!(read.bytes().as_deref(), Some(bytes));
        };
        check(b"t=1\r\n", r#"{"ms":5,"source":"a","text":"t=1\r\n"}"#);
        check(b"\x00\xff", r#"{"ms":5,"source":"a","hex":"00ff"}"#);
        check(b"", r#"{"ms":5,"source":"a","text":""}"#);
    }

    #[test]
    fn damaged_records_have_no_bytes() {
        for line in [
            r#"{"ms":1,"source":"a"}"#,
            r#"{"ms":1,"source":"a","hex":"0g"}"#,
            r#"{"ms":1,"source":"a","hex":"é"}"#,
            r#"{"ms":1,"source":"a","hex":"00","text":""}"#,
        ] {
            let record: Record = serde_json::from_str(line).unwrap();
            assert_eq!(record.bytes(), None, "{line}");
        }
        assert!(is_header(r#"{"capture":1,"started":"2024-01-01T12:00:00Z"}"#));
        assert!(!is_header(r#"{"temp":21.5}"#));
    }
}
