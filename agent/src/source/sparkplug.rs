//! A Sparkplug B 3.0 host: it listens to edge nodes over a broker, and asks them for their births.
//!
//! Only a host that the configuration gives an id is a primary one, on whose STATE nodes may wait:
//! others listen, and nothing depends on them. Unlike what the specification asks of hosts, the session
//! is kept, as for any `[[mqtt]]`: what nodes send with QoS 1 is not lost while the agent is away.

mod asking;

use std::sync::Arc;

use rumqttc::{LastWill, Publish, QoS};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use tracing::info;
use valtronics_protocol::{reading::is_name, time::UnixMillis};

use super::{
    attendance::Attendance,
    messages::{Taken, hold_back_retained},
    mqtt::{self, Broker, Dialect},
    outlet::Outlet,
};
use crate::{
    clock,
    config::{fault::Fault, folder::Folder, section::Section},
    decode::sparkplug::{
        rebirth,
        topic::{self, Topic},
    },
    describe::sparkplug::{News, Sparkplug},
    normalize::{Normalizer, Rules},
};
use asking::Asking;

/// A table `[[sparkplug]]`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker.
    pub broker: Broker,
    /// Which groups are read; `+` for all.
    groups: Vec<String>,
    /// Whether nodes are asked for their births.
    rebirth: bool,
    /// The id of a primary host.
    host_id: Option<String>,
    rules: Rules,
}

#[derive(Deserialize)]
struct Keys {
    groups: Option<Vec<Spanned<String>>>,
    #[serde(default = "yes")]
    rebirth: bool,
    host_id: Option<Spanned<String>>,
}

fn yes() -> bool {
    true
}

impl Config {
    /// Reads what is left of a source's table; its rules were already taken out.
    ///
    /// # Errors
    /// When a value is none that this version knows, or a file cannot be read.
    pub fn read(
        section: &mut Section<'_>,
        mut rules: Section<'_>,
        folder: &Folder,
    ) -> Result<Self, Fault> {
        let broker = Broker::read(section, folder)?;
        let span = section.span();
        let Keys { groups, rebirth, host_id } = section.read()?;
        for name in groups.iter().flatten().chain(&host_id) {
            if !is_name(name.get_ref()) || name.get_ref().contains(['/', '+', '#']) {
                let why = "expected a name without /, + and #, such as \"Plant 1\"";
                return Err(Fault::at(name, why));
            }
        }
        if groups.as_ref().is_some_and(Vec::is_empty) {
            return Err(Fault::in_span(span, "expected at least one of `groups`, or none for all"));
        }
        let groups = groups.map(|groups| groups.into_iter().map(Spanned::into_inner).collect());
        Ok(Self {
            broker,
            groups: groups.unwrap_or_else(|| vec!["+".into()]),
            rebirth,
            host_id: host_id.map(Spanned::into_inner),
            rules: rules.read()?,
        })
    }

    /// Listens only: nodes must not think that somebody keeps what they send.
    pub fn step_back(&mut self) {
        self.host_id = None;
    }
}

/// Reads until the outlet closes, and then acknowledges what is on its way to the queue.
pub async fn run(config: Config, outlet: Outlet) {
    let host = Host::new(&config, &outlet.name);
    mqtt::listen(&config.broker, Dialect::Sparkplug(Box::new(host)), outlet).await;
}

/// Reads the messages of one source.
#[derive(Debug)]
pub struct Host {
    nodes: Sparkplug,
    normalizer: Normalizer,
    attendance: Attendance,
    groups: Vec<String>,
    /// Absent where nodes are not asked.
    asking: Option<Asking>,
    state: Option<State>,
}

/// What a primary host says of itself (specification, "STATE").
#[derive(Debug)]
struct State {
    topic: String,
    /// When the connection began: its birth and its death have one time.
    since: UnixMillis,
}

#[derive(Serialize, Deserialize)]
struct Said {
    online: bool,
    timestamp: i64,
}

impl State {
    fn say(&self, online: bool) -> Publish {
        let said = Said { online, timestamp: self.since.0 };
        let said = serde_json::to_vec(&said).expect("two plain fields are JSON");
        let mut publish = Publish::new(&self.topic, QoS::AtLeastOnce, said);
        publish.retain = true;
        publish
    }
}

impl Host {
    /// Reads messages as configured; `name` is the source's.
    #[must_use]
    pub fn new(config: &Config, name: &Arc<str>) -> Self {
        let state = config.host_id.as_deref().map(topic::state);
        Self {
            nodes: Sparkplug::default(),
            normalizer: Normalizer::new(config.rules.clone(), Arc::clone(name)),
            attendance: Attendance::default(),
            groups: config.groups.clone(),
            asking: config.rebirth.then(Asking::default),
            state: state.map(|topic| State { topic, since: UnixMillis(0) }),
        }
    }

    /// Returns what is subscribed to.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        let nodes = self.groups.iter().flat_map(|group| topic::filters(group));
        self.state.iter().map(|state| state.topic.clone()).chain(nodes).collect()
    }

    /// Reads a topic, if it is one of a wanted group: a session may have others from before.
    fn topic<'t>(&self, topic: &'t str) -> Option<Topic<'t>> {
        let wanted = |topic: &Topic<'_>| self.groups.iter().any(|g| g == "+" || g == topic.group);
        Topic::read(topic).filter(wanted)
    }

    /// Begins a connection; returns what the broker is to say when it breaks.
    pub fn last_will(&mut self, now: UnixMillis) -> Option<LastWill> {
        let state = self.state.as_mut()?;
        state.since = now;
        let Publish { topic, payload, qos, retain, .. } = state.say(false);
        Some(LastWill { topic, message: payload, qos, retain })
    }

    /// Returns what is said on a new connection: that the host is there, and to each node that it
    /// should say anew what it has, for its births may have been missed.
    pub fn greeting(&mut self, now: UnixMillis) -> Vec<Publish> {
        let unborn: Vec<Arc<str>> = self.nodes.unborn().cloned().collect();
        let state = self.state.as_ref().map(|state| state.say(true));
        state.into_iter().chain(unborn.iter().filter_map(|node| self.ask(node, now))).collect()
    }

    /// Returns what is said before the end.
    #[must_use]
    pub fn goodbye(&self) -> Option<Publish> {
        self.state.as_ref().map(|state| state.say(false))
    }

    /// Notes that the connection is gone: the next one hears anew who is there.
    pub fn disconnected(&mut self) {
        self.nodes.disconnected();
        self.attendance.clear();
    }

    /// Reads one message; what is wrong with it is counted and said.
    pub fn take(&mut self, publish: &Publish, now: UnixMillis, outlet: &mut Outlet) -> Taken {
        let mut taken = Taken::default();
        if let Some(state) = self.state.as_ref().filter(|state| state.topic == publish.topic) {
            taken.commands.extend(contradiction(state, &publish.payload));
            return taken;
        }
        let Some(topic) = self.topic(&publish.topic) else {
            outlet.tally.foreign += 1;
            return taken;
        };
        match self.nodes.hear(&topic, &publish.payload, now) {
            Err(refused) => {
                outlet.tally.damaged += 1;
                outlet.complain(&format!("{refused} on topic {}", publish.topic));
            }
            Ok(News { mut samples, unfit, presences, unborn }) => {
                outlet.tally.good += 1;
                outlet.tally.read += unfit;
                outlet.tally.held_back.unfit += unfit;
                hold_back_retained(publish, &mut samples, outlet);
                taken.readings = self.normalizer.readings(samples, now, &mut outlet.tally);
                taken.changes = self.attendance.changes(&presences, now);
                if let Some(command) = unborn.and_then(|node| self.ask(&node, now)) {
                    info!(source = %outlet.name, topic = command.topic, "a node is asked for its births");
                    taken.commands.push(command);
                }
            }
        }
        taken
    }

    /// Makes the request for a node's births, unless it was asked a moment ago.
    fn ask(&mut self, node: &Arc<str>, now: UnixMillis) -> Option<Publish> {
        let may_ask = self.asking.as_mut()?.may_ask(node, clock::monotonic());
        let (group, node) = node.split_once('/').filter(|_| may_ask)?;
        Some(Publish::new(topic::command(group, node), QoS::AtMostOnce, rebirth(now)))
    }
}

/// Speaks up when somebody says that the host is gone. What was said on a connection before counts
/// for nobody, since it has an older time.
fn contradiction(state: &State, said: &[u8]) -> Option<Publish> {
    let said: Said = serde_json::from_slice(said).ok()?;
    (!said.online && said.timestamp >= state.since.0).then(|| state.say(true))
}
