//! What the engine asks the store to make durable, and what the store made of it.
//!
//! Everything in one [`Commit`] is one transaction: readings, how far each numbering has come, and
//! the events that followed. Ids and positions (`alert_id`, `seq`) are given inside it, so a commit
//! that fails leaves no hole.

use std::{collections::BTreeMap, sync::Arc};

use valtronics_protocol::{
    event::{Alert, AlertStatus, DeviceStatusUpdate, Severity, Status},
    id::{DeviceId, Seq},
    time::UnixMillis,
    uplink::GapReason,
    value::Value,
};

use crate::{tally::AgentChange, used_key::UsedKey};

mod marks;

pub use marks::{Mark, Marks, Run};

/// The position of a metric among those of its device, in the order in which they were first named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricIndex(pub u32);

/// One reading whose names are resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Whose.
    pub device: DeviceId,
    /// Of what.
    pub metric: MetricIndex,
    /// When it was measured.
    pub at: UnixMillis,
    /// What was measured.
    pub value: Value,
}

/// Which of an agent's two numberings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Readings; in the JSON dialect everything.
    Readings = 0,
    /// Status events of our agent.
    Events = 1,
}

/// Names one numbering.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueKey {
    /// The subject of the token.
    pub sub: Arc<str>,
    /// The name that the agent gave.
    pub queue: Arc<str>,
    /// Which of its lanes.
    pub lane: Lane,
}

/// What becomes durable in one transaction.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Commit {
    /// When the newest of it came in.
    pub received_at: UnixMillis,
    /// Readings in the order in which they came.
    pub readings: Vec<Row>,
    /// Which of them do not count from when they were measured.
    pub marks: Marks,
    /// The last number of each numbering that is in here.
    pub queues: Vec<(QueueKey, u64)>,
    /// Changes of status and alerts, in order.
    pub events: Vec<EventDraft>,
    /// Rules that were edited over HTTP.
    pub rules: Vec<RuleChange>,
    /// The rules of files, as a JSON array, when they are others than before.
    pub file_rules: Option<Arc<str>>,
    /// What was counted of agents.
    pub agents: Vec<AgentChange>,
    /// Idempotency keys that were used up.
    pub keys: Vec<UsedKey>,
    /// What is remembered of devices under rules, such as a `for` that runs, as JSON; `None`: nothing
    /// any more.
    pub watches: BTreeMap<WatchKey, Option<Arc<str>>>,
    /// Readings that will never come.
    pub lost: Vec<Lost>,
    /// Numberings that have begun, with the machines that hold them.
    pub machines: Vec<QueueMachine>,
}

/// Readings of one device that its agent has lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// Whose; of readings whose device is not known, the gateway.
    pub device: DeviceId,
    /// The earliest of their timestamps.
    pub from: UnixMillis,
    /// The latest of their timestamps.
    pub to: UnixMillis,
    /// How many.
    pub readings: u64,
    /// What became of them.
    pub reason: GapReason,
}

/// Which machine holds a numbering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueMachine {
    /// The subject of the token.
    pub sub: Arc<str>,
    /// The name that the agent gave.
    pub queue: Arc<str>,
    /// The machine's id.
    pub machine: Arc<str>,
}

/// An edited rule: its JSON, or `None` when it was deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleChange {
    /// The rule's name.
    pub name: Arc<str>,
    /// The rule as JSON.
    pub json: Option<Arc<str>>,
}

/// An event that has no position yet.
#[derive(Debug, Clone, PartialEq)]
pub enum EventDraft {
    /// The status of a device changed.
    Status(StatusDraft),
    /// An alert changed.
    Alert(AlertDraft),
}

/// A change of a device's status.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusDraft {
    /// Which device.
    pub device: DeviceId,
    /// What it was.
    pub old: Status,
    /// What it is.
    pub new: Status,
    /// When it changed.
    pub at: UnixMillis,
    /// Why, in one sentence.
    pub reason: Arc<str>,
    /// The device's last sign of life.
    pub last_seen: Option<UnixMillis>,
}

/// Names what is remembered of a device under a rule: the rule's name, and the device.
pub type WatchKey = (Arc<str>, DeviceId);

/// What an alert is about: there is at most one unresolved alert of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AlertKey {
    /// The rule's name.
    pub rule: Arc<str>,
    /// The device.
    pub device: DeviceId,
    /// The metric's name; empty where the rule's kind has none.
    pub metric: Arc<str>,
}

/// A transition of an alert.
///
/// The store continues the unresolved alert of this key. Where there is none, `Active` opens a new
/// one; any other status is about an alert that is over, and nothing comes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertDraft {
    /// Which alert.
    pub key: AlertKey,
    /// The rule's kind.
    pub alert_type: Arc<str>,
    /// Where it stands now.
    pub status: AlertStatus,
    /// How bad it is now.
    pub severity: Severity,
    /// The rule's title.
    pub title: Arc<str>,
    /// One sentence.
    pub message: Arc<str>,
    /// When the transition happened.
    pub at: UnixMillis,
    /// The rule's bound.
    pub threshold: Option<Value>,
    /// The value that crossed it.
    pub actual: Option<Value>,
}

/// What the store made of a [`Commit`].
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Committed {
    /// The events with their positions, in order.
    pub events: Vec<CommittedEvent>,
}

/// The oldest position of each channel that the store holds; of a channel without events, the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// In channel `alerts`.
    pub alert: Seq,
    /// In channel `devices`.
    pub device: Seq,
}

/// An event with its position.
#[derive(Debug, Clone, PartialEq)]
pub enum CommittedEvent {
    /// On channel `devices`.
    Status(DeviceStatusUpdate),
    /// On channel `alerts`.
    Alert(CommittedAlert),
}

/// An alert's transition with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedAlert {
    /// The message; `channel` is set.
    pub alert: Alert,
    /// Whether the alert is new or has risen in severity (`alert`), or not (`alert_update`).
    pub announces: bool,
    /// Every severity that it has had so far.
    pub had: Severities,
}

impl CommittedAlert {
    /// Returns what the alert is about.
    #[must_use]
    pub fn key(&self) -> AlertKey {
        AlertKey {
            rule: Arc::clone(&self.alert.metadata.rule),
            device: self.alert.device_id,
            metric: Arc::clone(&self.alert.metadata.metric),
        }
    }
}

/// A set of severities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Severities(pub u8);

impl Severities {
    /// Adds one.
    #[must_use]
    pub fn with(self, severity: Severity) -> Self {
        Self(self.0 | 1 << severity as u8)
    }

    /// Tells whether it is in the set.
    #[must_use]
    pub fn contains(self, severity: Severity) -> bool {
        self.0 & (1 << severity as u8) != 0
    }
}

impl CommittedEvent {
    /// Returns the position in its channel.
    #[must_use]
    pub fn seq(&self) -> Seq {
        match self {
            Self::Status(update) => update.seq,
            Self::Alert(committed) => committed.alert.seq,
        }
    }
}

/// What came into being, or changed, in the registry of devices and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryChange {
    /// A device that was named for the first time, or came from another gateway than before.
    Device(RegisteredDevice),
    /// A metric that was named for the first time, or whose unit changed.
    Metric(RegisteredMetric),
}

/// A device as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredDevice {
    /// Its id.
    pub id: DeviceId,
    /// The subject of the token that named it first.
    pub sub: Arc<str>,
    /// Its name, as it was sent.
    pub name: Arc<str>,
    /// The gateway through which it comes; `None` for agents that others write.
    pub gateway: Option<Arc<str>>,
}

impl RegisteredDevice {
    /// Returns `{sub}/{name}`, by which a device is known.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.sub, self.name)
    }
}

/// A metric as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredMetric {
    /// Whose.
    pub device: DeviceId,
    /// Its position among those of the device.
    pub index: MetricIndex,
    /// Its name.
    pub name: Arc<str>,
    /// The canonical symbol of its unit; empty when unknown.
    pub unit: Arc<str>,
}
