//! Messages from an MQTT broker.
//!
//! A message of QoS 1 is acknowledged when its readings are durable in the queue; one whose connection has
//! gone in the meantime comes again, so its acknowledgement is dropped here: the new connection
//! may have given its number to another message.

mod broker;
mod dialect;
mod look;

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    io,
    time::Duration,
};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing,
    Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::{
    sync::oneshot,
    time::{sleep, sleep_until},
};
use tracing::{info, warn};

use super::{
    messages::Messages,
    outlet::{Outlet, Stopping},
    topics,
};
use crate::{
    backoff::Backoff,
    clock,
    config::{fault::Fault, folder::Folder, section::Section},
    dial::{self, TlsError},
};
pub use broker::{Broker, Url};
pub(super) use dialect::Dialect;

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
/// The most requests on their way to the broker: an acknowledgement for each held message, and what
/// is subscribed to and not any more, when all that is announced changes at once.
const REQUESTS: usize = HELD + 32 * 1024;
/// How many topics a request has: a broker takes some thousand, in 256 KiB.
const TOPICS: usize = 100;
/// How long announcements have to be over until what they name is subscribed to: what is retained
/// there comes once, and all of a device's entities should be known then.
const QUIET: Duration = Duration::from_millis(300);
/// How often the broker hears from the agent at least; after one and a half of it without an answer
/// the connection counts as broken.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A table `[[mqtt]]`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker.
    pub broker: Broker,
    topics: topics::Config,
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
        let broker = Broker::read(section, folder)?;
        Ok(Self { broker, topics: topics::Config::read(section, rules)? })
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

impl Lost {
    fn overrun() -> Self {
        Self::Broken("it does not take requests".into())
    }
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

/// Reads until the outlet closes, and then acknowledges what is on its way to the queue.
pub async fn run(config: Config, outlet: Outlet) {
    let messages = Messages::new(&config.topics, &outlet.name);
    listen(&config.broker, Dialect::Described(Box::new(messages)), outlet).await;
}

/// The same, whatever is spoken.
pub(super) async fn listen(broker: &Broker, mut dialect: Dialect, mut outlet: Outlet) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut has_looked = false;
    loop {
        if let Dialect::Described(messages) = &mut dialect
            && !has_looked
        {
            has_looked = look::look(broker, messages, &mut outlet).await.is_ok();
        }
        let Err(lost) = read(broker, &mut dialect, &mut outlet, &mut backoff).await;
        dialect.disconnected();
        let ends = matches!(lost, Lost::Stopping(_)) || outlet.closing.is_cancelled();
        if ends || outlet.offline(&lost.to_string()).await.is_err() {
            return;
        }
        if outlet.closing.clone().run_until_cancelled(sleep(backoff.wait())).await.is_none() {
            return;
        }
    }
}

async fn read(
    broker: &Broker,
    dialect: &mut Dialect,
    outlet: &mut Outlet,
    backoff: &mut Backoff,
) -> Result<Infallible, Lost> {
    let mut options = options(broker, &outlet.name)?;
    if let Some(will) = dialect.last_will(clock::now()) {
        options.set_last_will(will);
    }
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let mut held = Held::default();
    let mut wanted = BTreeSet::new();
    let mut quiet_at = clock::monotonic();
    let closing = outlet.closing.clone();
    loop {
        if closing.is_cancelled() && held.is_empty() {
            return disconnect(&client, &mut events, dialect.goodbye()).await;
        }
        let event = tokio::select! {
            () = closing.cancelled(), if !closing.is_cancelled() => continue,
            event = events.poll(), if held.has_room() => event?,
            publish = held.next(), if !held.is_empty() => {
                acknowledge(&client, &publish)?;
                continue;
            }
            () = sleep_until(quiet_at), if !wanted.is_empty() => {
                subscribe(&client, std::mem::take(&mut wanted))?;
                continue;
            }
        };
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                backoff.reset();
                subscribe(&client, dialect.filters())?;
                send(&client, dialect.greeting(clock::now()))?;
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                info!(source = %outlet.name, "subscribed at the broker");
                if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                    warn!(source = %outlet.name, "the broker refuses some of the topics");
                }
            }
            // It comes again: it is not acknowledged.
            Event::Incoming(Packet::Publish(_)) if closing.is_cancelled() => {}
            Event::Incoming(Packet::Publish(mut publish)) => {
                outlet.capture(Some(&publish.topic), &publish.payload).await;
                let now = clock::now();
                let taken = dialect.take(&publish, now, outlet);
                send(&client, taken.commands)?;
                if !taken.wanted.is_empty() {
                    quiet_at = clock::monotonic() + QUIET;
                }
                wanted.extend(taken.wanted.iter().map(ToString::to_string));
                for topic in &taken.unwanted {
                    wanted.remove(&**topic);
                    client.try_unsubscribe(&**topic).map_err(|_| Lost::overrun())?;
                }
                for (device, silence) in &taken.silences {
                    outlet.declare(device, *silence).await?;
                }
                if publish.qos == QoS::AtMostOnce {
                    outlet.send(now, taken.readings).await?;
                } else {
                    let receipt = outlet.send_for_receipt(now, taken.readings).await?;
                    // Only its number is still needed.
                    publish.payload.clear();
                    held.push(publish, receipt);
                }
                // After the readings: one that came in before a device went does not bring it back.
                for change in taken.changes {
                    outlet.report(change).await?;
                }
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

/// Each connection is a new one for the library too: nothing of the old one is left to be sent.
fn options(broker: &Broker, name: &str) -> Result<MqttOptions, Lost> {
    let Broker { url, password_file, ca_file } = broker;
    let mut options = MqttOptions::new(format!("valtronics-{name}"), &url.host, url.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_max_packet_size(MESSAGE_BYTES, MESSAGE_BYTES);
    if let Some(user) = &url.user {
        let password = match password_file {
            Some(path) => std::fs::read_to_string(path).map_err(Lost::Password)?,
            None => String::new(),
        };
        options.set_credentials(user, password.trim_end_matches(['\r', '\n']));
    }
    if url.secure {
        let tls = dial::tls(ca_file.as_deref())?;
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
    }
    Ok(options)
}

fn subscribe(client: &AsyncClient, filters: impl IntoIterator<Item = String>) -> Result<(), Lost> {
    let mut filters = filters.into_iter().peekable();
    while filters.peek().is_some() {
        let some = filters.by_ref().take(TOPICS);
        let some = some.map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
        client.try_subscribe_many(some).map_err(|_| Lost::overrun())?;
    }
    Ok(())
}

fn send(client: &AsyncClient, messages: impl IntoIterator<Item = Publish>) -> Result<(), Lost> {
    for Publish { topic, qos, retain, payload, .. } in messages {
        client.try_publish(topic, qos, retain, payload).map_err(|_| Lost::overrun())?;
    }
    Ok(())
}

fn acknowledge(client: &AsyncClient, publish: &Publish) -> Result<(), Lost> {
    // The next connection gets again what this one has not acknowledged.
    client.try_ack(publish).map_err(|_| Lost::overrun())
}

/// Sends the acknowledgements that wait, and says goodbye.
async fn disconnect(
    client: &AsyncClient,
    events: &mut EventLoop,
    goodbye: Option<Publish>,
) -> Result<Infallible, Lost> {
    let (mut waits, mut sent) = (goodbye.is_some(), None);
    send(client, goodbye)?;
    // A broker that cannot acknowledge it takes that for a broken connection.
    while waits {
        match events.poll().await? {
            Event::Outgoing(Outgoing::Publish(id)) => sent = Some(id),
            Event::Incoming(Packet::PubAck(ack)) => waits = sent != Some(ack.pkid),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
    client.try_disconnect().map_err(|_| Lost::overrun())?;
    while !matches!(events.poll().await?, Event::Outgoing(Outgoing::Disconnect)) {}
    Err(Stopping.into())
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
