//! Carries what the queue holds to the server, and tells the queue what is committed there.
//!
//! The outer loop, here, owns the waits between attempts; a [`connection`] serves until it ends and
//! says why.

pub mod connection;
mod end;
mod opening;
pub mod pace;
pub mod previews;
pub mod window;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use toml::Spanned;
use tracing::{error, info, warn};
use valtronics_protocol::{time::UnixMillis, uplink::Gateway};

use crate::{
    backoff::Backoff,
    clock,
    config::{fault::Fault, folder::Folder},
    queue::keeper::Handle,
};
use connection::Connection;
pub use end::End;
use previews::Previews;

/// The first wait after a connection that worked.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait: whoever mends a server wants to see its gateways within half a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The wait after a refused token: nothing changes until somebody puts a new one into the file.
const TOKEN_WAIT: Duration = Duration::from_secs(60);
/// The longest wait that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);
/// The longest flush interval (programs, "valtronics-agent").
const LONGEST_FLUSH: Duration = Duration::from_secs(60);
/// How long a stopping agent goes on sending what it has.
pub const GRACE: Duration = Duration::from_secs(5);

/// The section `[uplink]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server.
    pub url: Url,
    /// The file that holds the token; read again at each connection.
    pub token_file: Spanned<PathBuf>,
    /// Certificates to trust beside the system's, in PEM.
    pub ca_file: Option<Spanned<PathBuf>>,
    /// The least time between two frames of live readings.
    #[serde(deserialize_with = "flush", default = "default_flush")]
    pub flush: Duration,
}

/// A URL that can be dialled: `ws://` or `wss://`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url(pub http::Uri);

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted = "expected a URL such as \"wss://server:8000/uplink\"";
        let url: http::Uri = text.parse().map_err(|error| format!("{error}; {wanted}"))?;
        let secret = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
        match url.scheme_str() {
            Some("ws" | "wss") if secret => {
                Err(format!("a token goes into `token_file`; {wanted}"))
            }
            Some("ws" | "wss") => Ok(Self(url)),
            _ => Err(format!("`{text}` does not begin with ws:// or wss://; {wanted}")),
        }
    }
}

fn default_flush() -> Duration {
    Duration::from_millis(100)
}

fn flush<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let period = valtronics_protocol::time::period::deserialize(deserializer)?;
    if period > LONGEST_FLUSH {
        return Err(de::Error::custom("expected a period of 0 to \"60s\""));
    }
    Ok(period)
}

impl Config {
    /// Makes paths absolute and checks what the files hold.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn check(&mut self, folder: &Folder) -> Result<(), Fault> {
        folder.check_readable(&mut self.token_file)?;
        let Some(ca_file) = &mut self.ca_file else {
            return Ok(());
        };
        folder.check_readable(ca_file)?;
        crate::dial::tls(Some(ca_file.get_ref()))
            .map(drop)
            .map_err(|error| Fault::at(ca_file, error.to_string()))
    }
}

/// How the connection is, as `status` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Whether the server takes readings now.
    pub connected: bool,
    /// Since when it is so.
    pub since: UnixMillis,
    /// Why the last connection ended, or none came about.
    pub last_error: Option<String>,
    /// When the next attempt is made.
    pub next_try: Option<UnixMillis>,
    /// How far this clock is ahead of the server's, in ms; null until it is measured.
    pub clock_offset_ms: Option<i64>,
}

impl Link {
    fn up(&mut self) {
        *self = Self { connected: true, since: clock::now(), next_try: None, ..self.clone() };
    }

    fn down(&mut self, why: String, wait: Duration) {
        let now = clock::now();
        if self.connected || self.last_error.is_none() {
            self.since = now;
        }
        self.connected = false;
        self.last_error = Some(why);
        self.next_try = Some(now.plus(wait));
    }
}

/// Sends until `stopping` is cancelled and everything is committed; `gateway` introduces the agent.
///
/// A connection that ends while stopping is not opened again.
pub async fn run(
    config: Config,
    gateway: Gateway,
    queue: Handle,
    link: watch::Sender<Link>,
    stopping: CancellationToken,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut previews = Previews::default();
    loop {
        let is_last = stopping.is_cancelled();
        let opened = Connection::open(&config, &gateway, queue.clone(), &mut previews).await;
        let end = match opened {
            Ok(connection) => {
                info!(url = %config.url.0, "connected to the server");
                link.send_modify(Link::up);
                backoff.reset();
                connection.serve(&stopping).await
            }
            Err(end) => end,
        };
        if is_last || matches!(end, End::Stopped | End::Queue(_)) {
            return;
        }
        let wait = wait_after(&end, &mut backoff);
        link.send_modify(|link| link.down(end.to_string(), wait));
        report(&end, wait);
        if matches!(end, End::QueueTaken(_)) && queue.renew().await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = stopping.cancelled() => {}
        }
    }
}

fn wait_after(end: &End, backoff: &mut Backoff) -> Duration {
    let wait = backoff.wait();
    match end {
        End::Refused(_) => TOKEN_WAIT,
        End::Limited(asked) => wait.max((*asked).min(LONGEST_ASKED)),
        End::Stopped
        | End::QueueTaken(_)
        | End::Lost(_)
        | End::Silent
        | End::TokenFile(..)
        | End::Dial(_)
        | End::Socket(_)
        | End::Queue(_) => wait,
    }
}

fn report(end: &End, wait: Duration) {
    let again_in_ms = wait.as_millis() as u64;
    match end {
        End::Refused(_) | End::TokenFile(..) => error!(again_in_ms, "{end}"),
        _ => warn!(again_in_ms, "{end}"),
    }
}
