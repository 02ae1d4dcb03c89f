//! `watch`: prints live messages readably, for a first look and for scripts.
//!
//! It is a subscriber like any other: it knows what the WebSocket API says and nothing else of the
//! server. The lines are made in `line`, the names of devices come from `names`.

use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

mod names;
mod line;

use line::{kind, succeeded};
use names::{Names, Server};

/// What to watch.
#[derive(clap::Args)]
pub struct Args {
    /// The server's address.
    #[arg(long, default_value = "ws://127.0.0.1:8000/ws")]
    url: String,
    /// A token that may read.
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds one.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Print the messages as they come.
    #[arg(long)]
    json: bool,
}

/// How long to wait at most before connecting again: doubles up to a cap.
const RETRY: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];
/// After how much silence the connection is dead: the server pings after 30 s.
const SILENCE: Duration = Duration::from_secs(75);

/// Prints messages until Ctrl-C, or until nobody reads them.
///
/// # Errors
/// When there is no token, the address is none, or the server refuses the token.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| file.display().to_string())?
            .trim()
            .to_owned(),
        (None, None) => bail!("--token or --token-file is needed"),
    };
    let server = server(&args.url)?;
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
        ended = watch(&args, &server, &token) => ended,
    }
}

fn server(url: &str) -> anyhow::Result<Server> {
    let request = url.into_client_request().with_context(|| url.to_owned())?;
    let uri = request.uri();
    match uri.scheme_str() {
        Some("ws") => {}
        Some("wss") => bail!("{url}: wss is not supported here, only ws"),
        _ => bail!("{url}: an address is such as ws://127.0.0.1:8000/ws"),
    }
    let host = uri.host().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned();
    let authority = uri.authority().map_or_else(|| host.clone(), ToString::to_string);
    Ok(Server { host, port: uri.port_u16().unwrap_or(80), authority })
}

/// Connects again and again; returns only what makes no sense to try again.
async fn watch(args: &Args, server: &Server, token: &str) -> anyhow::Result<()> {
    let mut names = Names::default();
    let mut attempt = 0;
    loop {
        let ended = follow(args, server, token, &mut names, &mut attempt).await;
        let longest = RETRY.get(attempt.min(RETRY.len() - 1)).copied().unwrap_or_default();
        attempt += 1;
        let delay = match ended {
            Ended::Unread => return Ok(()),
            Ended::Refused(why) => bail!("the server refuses the token: {why}"),
            Ended::Limited { why, retry_after } => {
                eprintln!("{why}; trying again in {} s", retry_after.as_secs());
                retry_after
            }
            Ended::Broken(error) => {
                eprintln!("{error:#}; trying again");
                jittered(longest)?
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// Draws from the upper half of a delay, so that clients of a server that restarts come apart.
fn jittered(longest: Duration) -> anyhow::Result<Duration> {
    let random = f64::from(getrandom::u32().map_err(std::io::Error::other)?) / f64::from(u32::MAX);
    Ok(longest.mul_f64(0.5 + random / 2.0))
}

/// Why a connection came to its end.
enum Ended {
    /// Nobody reads standard output any more.
    Unread,
    /// The token is not valid.
    Refused(String),
    /// A limit, for a time.
    Limited { why: String, retry_after: Duration },
    /// Anything else.
    Broken(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

async fn follow(
    args: &Args,
    server: &Server,
    token: &str,
    names: &mut Names,
    attempt: &mut usize,
) -> Ended {
    match follow_until(args, server, token, names, attempt).await {
        Ok(()) => Ended::Broken(anyhow::anyhow!("the server has closed the connection")),
        Err(ended) => ended,
    }
}

async fn follow_until(
    args: &Args,
    server: &Server,
    token: &str,
    names: &mut Names,
    attempt: &mut usize,
) -> Result<(), Ended> {
    let stream = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .with_context(|| format!("connecting to {}", args.url))?;
    let (mut socket, _) = tokio_tungstenite::client_async(args.url.as_str(), stream).await?;
    let subscribe = |channel| json!({"type": "subscribe", "channel": channel});
    let mut hello = vec![json!({"type": "auth", "token": token})];
    hello.extend(["telemetry", "alerts", "devices", "system"].map(subscribe));
    for message in hello {
        socket.feed(Message::text(message.to_string())).await?;
    }
    socket.flush().await?;
    while let Some(message) = timeout(SILENCE, socket.next()).await? {
        let Message::Text(text) = message? else {
            continue;
        };
        let message: Json = serde_json::from_str(&text)?;
        if kind(&message) == "auth_response" {
            admitted(&message)?;
            *attempt = 0;
        }
        if args.json {
            print(&text)?;
        } else {
            let id = message.get("device_id").and_then(Json::as_u64);
            let device = match id {
                Some(id) => names.of(id, server, token).await,
                None => "",
            };
            line::readable(&message, device).iter().try_for_each(|line| print(line))?;
        }
    }
    Ok(())
}

/// Reads the answer to `auth`.
fn admitted(answer: &Json) -> Result<(), Ended> {
    if succeeded(answer) {
        return Ok(());
    }
    let why = line::text(answer, "message");
    match answer.get("retry_after").and_then(Json::as_u64) {
        Some(seconds) => Err(Ended::Limited { why, retry_after: Duration::from_secs(seconds) }),
        None => Err(Ended::Refused(why)),
    }
}

/// Prints a line at once: `println!` would panic when the reader is gone.
fn print(line: &str) -> Result<(), Ended> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|_| Ended::Unread)
}
