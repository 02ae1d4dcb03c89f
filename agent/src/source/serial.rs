//! Text lines from a serial port, or from a TCP connection to one.
//!
//! A port that is missing at the start, is unplugged, or belongs to somebody else for now is tried
//! again for ever. Each opening begins a new line: half a line before does not complete one after.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncReadExt, time::sleep};
use tokio_serial::{Parity, StopBits};
use tracing::info;

use super::{
    lines::{self, Lines},
    outlet::{Outlet, Stopping},
    port::{self, FIRST_WAIT, LONGEST_WAIT, Line, OpenError},
};
use crate::{
    backoff::Backoff,
    clock,
    config::{fault::Fault, folder::Folder, section::Section},
    dial::{self, Stream},
};

/// How much is read at once: as much as a tty holds.
const READ_BYTES: usize = 4096;
/// How long reading lingers when it had to wait less than this, that is above 100 wakes a second:
/// 115,200 baud bring 115 bytes in this time, and a tty holds 4,096.
const LINGER: Duration = Duration::from_millis(10);

/// A table `[[serial]]`.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is opened.
    pub port: Port,
    baud: u32,
    lines: lines::Config,
}

#[derive(Deserialize)]
struct Keys {
    port: Port,
    #[serde(default = "default_baud", deserialize_with = "port::baud")]
    baud: u32,
}

fn default_baud() -> u32 {
    115_200
}

/// What is opened.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Port {
    /// A device file.
    Device(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl TryFrom<String> for Port {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let wanted = "expected a path such as \"/dev/ttyUSB0\", or \"tcp://host:port\"";
        match text.split_once("://") {
            None if text.is_empty() => Err(wanted),
            None => Ok(Self::Device(text.into())),
            Some(("tcp", address)) => match address.parse::<http::uri::Authority>() {
                Ok(authority) if authority.port_u16().is_some() => Ok(Self::Tcp(address.into())),
                _ => Err(wanted),
            },
            Some(_) => Err(wanted),
        }
    }
}

impl Port {
    /// Returns the name of a source that has none of its own: the last part of the path.
    #[must_use]
    pub fn usual_name(&self) -> String {
        match self {
            Self::Device(path) => path.file_name().unwrap_or_default().to_string_lossy().into(),
            Self::Tcp(address) => address.clone(),
        }
    }
}

impl Config {
    /// Reads what is left of a source's table; its rules were already taken out.
    ///
    /// # Errors
    /// When a value is none that this version knows.
    pub fn read(
        section: &mut Section<'_>,
        rules: Section<'_>,
        folder: &Folder,
    ) -> Result<Self, Fault> {
        let Keys { port, baud } = section.read()?;
        let port = match port {
            Port::Device(path) => Port::Device(folder.resolve(&path)),
            Port::Tcp(address) => Port::Tcp(address),
        };
        let lines = lines::Config::read(section, rules)?;
        Ok(Self { port, baud, lines })
    }
}

/// Why a port gives nothing; each is a sentence for a device's status.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("Serial port unplugged")]
    Unplugged,
    #[error("Connection closed by {0}")]
    Closed(String),
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

/// Reads for ever.
pub async fn run(config: Config, mut outlet: Outlet) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut lines = Lines::new(&config.lines, outlet.name.clone());
    loop {
        let Err(lost) = read(&config, &mut lines, &mut outlet, &mut backoff).await;
        if matches!(lost, Lost::Stopping(_)) || outlet.offline(&lost.to_string()).await.is_err() {
            return;
        }
        lines.restart();
        sleep(backoff.wait()).await;
    }
}

async fn read(
    config: &Config,
    lines: &mut Lines,
    outlet: &mut Outlet,
    backoff: &mut Backoff,
) -> Result<Infallible, Lost> {
    let mut port = open(config).await?;
    info!(source = %outlet.name, "opened");
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let asked = clock::monotonic();
        let count = match port.read(&mut buffer).await {
            // The end of a pty is 0 bytes, that of a tty EIO: both mean that it has gone.
            Ok(0) | Err(_) => return Err(gone(&config.port)),
            Ok(count) => count,
        };
        let woken = clock::monotonic();
        backoff.reset();
        let bytes = buffer.get(..count).unwrap_or_default();
        outlet.capture(None, bytes).await;
        lines.feed(bytes, outlet).await?;
        if woken - asked < LINGER {
            sleep(LINGER).await;
        }
    }
}

async fn open(config: &Config) -> Result<Box<dyn Stream>, OpenError> {
    let line = Line { baud: config.baud, parity: Parity::None, stop_bits: StopBits::One };
    match &config.port {
        Port::Tcp(address) => Ok(Box::new(dial::tcp(address).await?)),
        Port::Device(path) => port::open(path, line),
    }
}

fn gone(port: &Port) -> Lost {
    match port {
        Port::Device(_) => Lost::Unplugged,
        Port::Tcp(address) => Lost::Closed(address.clone()),
    }
}
