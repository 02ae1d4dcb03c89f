//! `valtronics-agent status`: the running agent tells over a Unix socket in its data directory.
//!
//! Whoever connects gets one [`Report`] as JSON, and the end; nothing is read from him. The socket
//! is for the agent's user alone. Deliberately not here: what is counted ([`crate::tally`]).

mod text;

use std::{
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use valtronics_protocol::time::UnixMillis;

use crate::{
    clock,
    queue::keeper::{Closed, Handle},
    tally::Account,
    uplink::Link,
};

/// The socket's name in the data directory.
const SOCKET: &str = "status.sock";
/// How many are told at once: one asks by hand, one watches. Others wait in the system's queue.
const CLIENTS: usize = 8;
/// How long somebody may take to read, so that nobody holds a place for ever; and how long an agent
/// may take to answer.
const WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of a report: one of a thousand sources has a third of it.
const MAX_REPORT_BYTES: u64 = 1024 * 1024;
/// How long to wait after a connection that could not be accepted, usually for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The gateway's name.
    pub name: String,
    /// The agent's version.
    pub version: String,
    /// When this was said.
    pub time: UnixMillis,
    /// How the connection to the server is.
    pub uplink: Link,
    /// What was counted.
    #[serde(flatten)]
    pub account: Account,
    /// Whether the sums hold, as they always should.
    pub balanced: bool,
}

/// No agent could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens at the socket.
    #[error("no agent runs on {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket is another user's.
    #[error("{}: {error}", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The agent does not answer, or with something else.
    #[error("the agent does not answer as expected: {0}")]
    Answer(String),
}

/// Tells how the agent is, to whoever asks.
pub struct Teller {
    listener: UnixListener,
    name: String,
    queue: Handle,
    link: watch::Receiver<Link>,
}

impl Teller {
    /// Listens in the data directory, which is made where there is none.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(
        data_dir: &Path,
        name: &str,
        queue: Handle,
        link: watch::Receiver<Link>,
    ) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
        // Under its name it is there only when nobody else may come, and in place of one that a
        // killed agent left.
        let (path, new) = (data_dir.join(SOCKET), data_dir.join(format!("{SOCKET}.new")));
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, &path)?;
        Ok(Self { listener, name: name.to_owned(), queue, link })
    }

    /// Tells until the queue is closed.
    pub async fn run(self) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if clients.len() < CLIENTS => match accepted {
                    Ok((client, _)) => match self.report().await {
                        Ok(report) => drop(clients.spawn(timeout(WITHIN, tell(client, report)))),
                        Err(Closed) => return,
                    },
                    Err(_) => sleep(PAUSE).await,
                },
                // Who did not read to the end has gone.
                Some(_) = clients.join_next() => {}
            }
        }
    }

    async fn report(&self) -> Result<Report, Closed> {
        let account = self.queue.account().await?;
        Ok(Report {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: clock::now(),
            uplink: self.link.borrow().clone(),
            balanced: account.totals.balance(),
            account,
        })
    }
}

async fn tell(mut client: UnixStream, report: Report) -> io::Result<()> {
    let mut text = serde_json::to_vec(&report)?;
    text.push(b'\n');
    client.write_all(&text).await?;
    client.shutdown().await
}

/// Asks the agent that runs on a data directory.
///
/// # Errors
/// When none runs, or it does not answer.
pub async fn ask(data_dir: &Path) -> Result<Report, AskError> {
    let path = data_dir.join(SOCKET);
    let stream = UnixStream::connect(&path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning(data_dir.to_path_buf())
        }
        _ => AskError::Refused { path: path.clone(), error },
    })?;
    let mut text = Vec::new();
    let mut limited = stream.take(MAX_REPORT_BYTES);
    let read = timeout(WITHIN, limited.read_to_end(&mut text)).await;
    let answer = |why: String| AskError::Answer(why);
    read.map_err(|_| answer("it is silent".into()))?.map_err(|error| answer(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| answer(error.to_string()))
}
