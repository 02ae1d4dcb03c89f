//! Messages from an MQTT broker.
//!
//! A message of QoS 1 is acknowledged when its readings are durable in the queue; one whose connection has
//! gone in the meantime comes again, so its acknowledgement is dropped here: the new connection
//! may have given its number to another message.

use std::{collections::VecDeque, convert::Infallible, io, path::PathBuf, time::Duration};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use serde::Deserialize;
use tokio::{sync::oneshot, time::sleep};
use toml::Spanned;
use tracing::{info, warn};

use super::{
    messages::{self, Messages},
    outlet::{Outlet, Stopping},
};
use crate::{
    backoff::Backoff,
    clock,
    config::{fault::Fault, folder::Folder, section::Section},
    dial::{self, TlsError},
};

/// The first wait for a broker.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait for a broker: it usually runs on the same machine or in the same house.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The most bytes in a message: a document of Zigbee2MQTT takes hundreds of KiB, and the library's
/// 10 KiB would reconnect for ever.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The most messages that wait for the queue: as many as their 16-bit numbers tell apart. Many
/// brokers stop at 20 or 100, others send all that they have kept.
const HELD: usize = u16::MAX as usize;
/// The most requests on their way to the broker: an acknowledgement for each held message, and the
/// subscription.
const REQUESTS: usize = HELD + 1;
/// How often the broker hears from the agent at least; after one and a half of it without an answer
/// the connection counts as broken.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A table `[[mqtt]]`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker.
    pub url: Url,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    messages: messages::Config,
}

#[derive(Deserialize)]
struct Keys {
    url: Url,
    password_file: Option<Spanned<PathBuf>>,
    ca_file: Option<Spanned<PathBuf>>,
}

/// Where a broker is: `mqtt://` or `mqtts://`, perhaps with a user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    /// The broker's host.
    pub host: String,
    port: u16,
    secure: bool,
    user: Option<String>,
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted = "expected a URL such as \"mqtt://user@10.0.0.2:1883\"";
        let url: http::Uri = text.parse().map_err(|error| format!("{error}; {wanted}"))?;
        let secure = match url.scheme_str() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            _ => return Err(format!("the URL does not begin with mqtt:// or mqtts://; {wanted}")),
        };
        if !matches!(url.path(), "" | "/") {
            return Err(format!("topics go into `read`; {wanted}"));
        }
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        if user.is_some_and(|user| user.contains(':')) {
            return Err(format!("a password goes into `password_file`; {wanted}"));
        }
        Ok(Self {
            host: url.host().unwrap_or_default().trim_matches(['[', ']']).into(),
            port: url.port_u16().unwrap_or(if secure { 8883 } else { 1883 }),
            secure,
            user: user.map(str::to_owned),
        })
    }
}

impl Config {
    /// Reads what is left of a source's table; its rules were already taken out.
    ///
    /// # Errors
    /// When a value is none that this version knows, or a file cannot be read.
    pub fn read(
        section: &mut Section<'_>,
        rules: &Section<'_>,
        folder: &Folder,
    ) -> Result<Self, Fault> {
        let mut keys: Keys = section.read()?;
        for file in [&mut keys.password_file, &mut keys.ca_file] {
            file.as_mut().map_or(Ok(()), |file| folder.check_readable(file))?;
        }
        Ok(Self {
            url: keys.url,
            password_file: keys.password_file.map(Spanned::into_inner),
            ca_file: keys.ca_file.map(Spanned::into_inner),
            messages: messages::Config::read(section, rules)?,
        })
    }
}

/// Why a broker gives nothing; each is a sentence for a device's status.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("MQTT broker refuses the user or the password")]
    Refused,
    #[error("MQTT broker unreachable: {0}")]
    Unreachable(io::Error),
    #[error("Connection to MQTT broker lost: {0}")]
    Broken(String),
    #[error("Password file of MQTT broker unreadable: {0}")]
    Password(io::Error),
    #[error("Certificates for MQTT broker unusable: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

impl From<ConnectionError> for Lost {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
            ) => Self::Refused,
            ConnectionError::Io(error) => Self::Unreachable(error),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// Reads for ever.
pub async fn run(config: Config, mut outlet: Outlet) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut messages = Messages::new(&config.messages, &outlet.name);
    loop {
        let Err(lost) = read(&config, &mut messages, &mut outlet, &mut backoff).await;
        if matches!(lost, Lost::Stopping(_)) || outlet.offline(&lost.to_string()).await.is_err() {
            return;
        }
        sleep(backoff.wait()).await;
    }
}

async fn read(
    config: &Config,
    messages: &mut Messages,
    outlet: &mut Outlet,
    backoff: &mut Backoff,
) -> Result<Infallible, Lost> {
    let options = options(config, &outlet.name)?;
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let mut held = Held::default();
    loop {
        let event = tokio::select! {
            event = events.poll(), if held.has_room() => event?,
            publish = held.next(), if !held.is_empty() => {
                acknowledge(&client, &publish)?;
                continue;
            }
        };
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                backoff.reset();
                subscribe(&client, &config.messages);
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                info!(source = %outlet.name, "subscribed at the broker");
                if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                    warn!(source = %outlet.name, "the broker refuses some of the topics");
                }
            }
            Event::Incoming(Packet::Publish(mut publish)) => {
                outlet.capture(Some(&publish.topic), &publish.payload).await;
                let now = clock::now();
                let readings = messages.take(&publish, now, outlet);
                if publish.qos == QoS::AtMostOnce {
                    outlet.send(now, readings).await?;
                } else {
                    let receipt = outlet.send_for_receipt(now, readings).await?;
                    // Only its number is still needed.
                    publish.payload.clear();
                    held.push(publish, receipt);
                }
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

/// Each connection is a new one for the library too: nothing of the old one is left to be sent.
fn options(config: &Config, name: &str) -> Result<MqttOptions, Lost> {
    let url = &config.url;
    let mut options = MqttOptions::new(format!("valtronics-{name}"), &url.host, url.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_max_packet_size(MESSAGE_BYTES, MESSAGE_BYTES);
    if let Some(user) = &url.user {
        let password = match &config.password_file {
            Some(path) => std::fs::read_to_string(path).map_err(Lost::Password)?,
            None => String::new(),
        };
        options.set_credentials(user, password.trim_end_matches(['\r', '\n']));
    }
    if url.secure {
        let tls = dial::tls(config.ca_file.as_deref())?;
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
    }
    Ok(options)
}

fn subscribe(client: &AsyncClient, messages: &messages::Config) {
    let filters = messages.filters().map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
    client
        .try_subscribe_many(filters)
        .expect("filters are valid, and a new connection has room for one request");
}

fn acknowledge(client: &AsyncClient, publish: &Publish) -> Result<(), Lost> {
    // The next connection gets again what this one has not acknowledged.
    let full = |_| Lost::Broken("it does not take acknowledgements".into());
    client.try_ack(publish).map_err(full)
}

/// Messages that are not yet acknowledged, in the order in which they came.
#[derive(Default)]
struct Held(VecDeque<(Publish, oneshot::Receiver<()>)>);

impl Held {
    fn push(&mut self, publish: Publish, receipt: oneshot::Receiver<()>) {
        self.0.push_back((publish, receipt));
    }

    fn has_room(&self) -> bool {
        self.0.len() < HELD
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until the oldest message's readings are durable in the queue.
    ///
    /// Safe to drop: the message leaves only when its receipt has come.
    async fn next(&mut self) -> Publish {
        if let Some((_, receipt)) = self.0.front_mut() {
            // A queue that has ended acknowledges nothing, and the agent ends with it.
            let _ = receipt.await;
        }
        match self.0.pop_front() {
            Some((publish, _)) => publish,
            None => std::future::pending().await,
        }
    }
}
