//! `watch`: prints live messages readably, for a first look and for scripts.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

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

/// How long to wait before connecting again: doubles up to a cap.
const RETRY: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Prints messages until Ctrl-C.
///
/// # Errors
/// When there is no token or the server refuses it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| file.display().to_string())?
            .trim()
            .to_owned(),
        (None, None) => bail!("--token or --token-file is needed"),
    };
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
        refused = watch(&args, &token) => refused,
    }
}

/// Connects again and again; returns only what makes no sense to try again.
async fn watch(args: &Args, token: &str) -> anyhow::Result<()> {
    let mut attempt = 0;
    loop {
        match follow(args, token, &mut attempt).await {
            Ok(()) => eprintln!("the server has closed the connection"),
            Err(Ended::Refused(why)) => bail!("the server refuses the token: {why}"),
            Err(Ended::Broken(error)) => eprintln!("{error:#}; trying again"),
        }
        let delay = RETRY.get(attempt.min(RETRY.len() - 1)).copied().unwrap_or_default();
        attempt += 1;
        tokio::time::sleep(delay).await;
    }
}

enum Ended {
    Refused(String),
    Broken(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

async fn follow(args: &Args, token: &str, attempt: &mut usize) -> Result<(), Ended> {
    let request = args.url.as_str().into_client_request()?;
    if request.uri().scheme_str() != Some("ws") {
        return Err(anyhow::anyhow!("watch speaks ws:// only").into());
    }
    let host = request.uri().host().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned();
    let port = request.uri().port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .with_context(|| format!("connecting to {}", args.url))?;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    let auth = json!({"type": "auth", "token": token});
    let subscribe = |channel| json!({"type": "subscribe", "channel": channel});
    let mut hello = vec![auth];
    hello.extend(["telemetry", "alerts", "devices", "system"].map(subscribe));
    for message in hello {
        socket.feed(Message::text(message.to_string())).await?;
    }
    socket.flush().await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else {
            continue;
        };
        let message: Json = serde_json::from_str(&text)?;
        if kind(&message) == "auth_response" {
            if !succeeded(&message) {
                return Err(Ended::Refused(self::text(&message, "message")));
            }
            *attempt = 0;
        }
        if args.json {
            println!("{text}");
        } else {
            readable(&message).into_iter().for_each(|line| println!("{line}"));
        }
    }
    Ok(())
}

fn text(message: &Json, key: &str) -> String {
    message.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn kind(message: &Json) -> &str {
    message.get("type").and_then(Json::as_str).unwrap_or_default()
}

fn succeeded(message: &Json) -> bool {
    message.get("success").and_then(Json::as_bool).unwrap_or_default()
}

/// Writes a message as lines for people.
fn readable(message: &Json) -> Vec<String> {
    let text = |key| text(message, key);
    let at = text("timestamp");
    let device = message.get("device_id").map(|id| format!("device {id}")).unwrap_or_default();
    match kind(message) {
        "auth_response" => vec![format!("signed in as {}", text("user"))],
        "telemetry_update" => {
            let metrics = message.get("telemetry").and_then(Json::as_object).into_iter().flatten();
            let line = |(name, metric): (&String, &Json)| {
                let at = self::text(metric, "timestamp");
                let (value, unit) = (metric.get("value"), self::text(metric, "unit"));
                let value = value.map(ToString::to_string).unwrap_or_default();
                format!("{at:<24} {device:<12} {name:<20} {value} {unit}")
            };
            metrics.map(line).collect()
        }
        "alert" | "alert_update" => {
            let (severity, status) = (text("severity"), text("status"));
            let (title, why) = (text("title"), text("message"));
            vec![format!("{at:<24} {device:<12} ALERT {severity} {status}: {title} ({why})")]
        }
        "device_status_update" => {
            let (old, new, reason) = (text("old_status"), text("new_status"), text("reason"));
            vec![format!("{at:<24} {device:<12} {old} -> {new}: {reason}")]
        }
        "system_status_update" => {
            let metrics = message.get("metrics").map(ToString::to_string).unwrap_or_default();
            vec![format!("{at:<24} {:<12} {metrics}", "server")]
        }
        "subscribe_response" if !succeeded(message) => {
            vec![format!("not subscribed to {}: {}", text("channel"), text("message"))]
        }
        _ => Vec::new(),
    }
}
