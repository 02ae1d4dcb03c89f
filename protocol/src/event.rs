//! What the server tells its subscribers (WebSocket API, section 5).
//!
//! The types have exactly the shapes, the key order and the number forms of the original
//! documentation; what was added since stands after its last key.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::{
    filter::{Channel, SystemMetric},
    id::{AlertId, DeviceId, Seq},
    time::UnixMillis,
    value::Value,
};

/// The status of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It sends.
    Online,
    /// It does not send.
    Offline,
    /// It sends, but something is wrong.
    Warning,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Online, Self::Offline, Self::Warning];
}

/// How bad an alert is; greater is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Needs a look.
    Warning,
    /// Needs action.
    Critical,
}

impl Severity {
    /// Every severity.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// The condition holds.
    Active,
    /// It holds, and somebody has seen it.
    Acknowledged,
    /// It holds, and is put aside for a time.
    Shelved,
    /// It is over.
    Resolved,
}

/// A message to a subscriber.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// Readings of one device.
    TelemetryUpdate(#[serde(borrow)] TelemetryUpdate<'a>),
    /// An alert is new, or has risen in severity.
    Alert(Alert),
    /// An alert has changed in another way.
    AlertUpdate(Alert),
    /// The status of a device has changed.
    DeviceStatusUpdate(DeviceStatusUpdate),
    /// The state of the server's host.
    SystemStatusUpdate(SystemStatusUpdate),
    /// This connection reads too slowly: superseded messages were merged away.
    Lagged(Lagged),
}

/// Readings of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TelemetryUpdate<'a> {
    /// Always [`Channel::Telemetry`].
    pub channel: Channel,
    /// Whose readings these are.
    pub device_id: DeviceId,
    /// The readings.
    #[serde(borrow)]
    pub telemetry: Telemetry<'a>,
    /// Whether this is the state at the moment of subscribing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub snapshot: bool,
    /// Whether the readings came late.
    #[serde(default, skip_serializing_if = "is_false")]
    pub historical: bool,
}

/// The readings of an update in the order in which they came; on the wire a map by metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry<'a>(pub Vec<(Cow<'a, str>, MetricValue<'a>)>);

/// The value of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricValue<'a> {
    /// What was measured.
    pub value: Cow<'a, Value>,
    /// The unit's symbol; empty when unknown.
    #[serde(borrow)]
    pub unit: Cow<'a, str>,
    /// When it was measured.
    pub timestamp: UnixMillis,
    /// Whether it is past the metric's expected interval; in snapshots only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stale: bool,
}

/// An alert at one of its transitions; over HTTP without `channel` and `snapshot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// [`Channel::Alerts`] in messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// Which alert.
    pub alert_id: AlertId,
    /// The device that it is about.
    pub device_id: DeviceId,
    /// How bad it is.
    pub severity: Severity,
    /// The rule's title.
    pub title: Arc<str>,
    /// The rule's message, or one sentence with both values.
    pub message: Arc<str>,
    /// When the transition happened.
    pub timestamp: UnixMillis,
    /// The figures.
    pub metadata: AlertMetadata,
    /// The rule's kind.
    #[serde(default)]
    pub alert_type: Arc<str>,
    /// Where the alert stands now.
    #[serde(default = "active")]
    pub status: AlertStatus,
    /// The position of the transition in the channel.
    #[serde(default)]
    pub seq: Seq,
    /// Whether this is the state at the moment of subscribing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub snapshot: bool,
}

/// The figures of an alert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertMetadata {
    /// The rule's bound; null where the kind has none.
    pub threshold_value: Option<Value>,
    /// The value that crossed it; null where the kind has none.
    pub actual_value: Option<Value>,
    /// The metric's name.
    #[serde(default)]
    pub metric: Arc<str>,
    /// The rule's name.
    #[serde(default)]
    pub rule: Arc<str>,
}

/// A change of the status of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatusUpdate {
    /// Always [`Channel::Devices`].
    pub channel: Channel,
    /// Which device.
    pub device_id: DeviceId,
    /// What it was; `offline` before the first one.
    pub old_status: Status,
    /// What it is.
    pub new_status: Status,
    /// When it changed.
    pub timestamp: UnixMillis,
    /// Why, in one sentence that is true.
    pub reason: Arc<str>,
    /// When it was last heard.
    pub metadata: StatusMetadata,
    /// The position of the change in the channel.
    #[serde(default)]
    pub seq: Seq,
    /// Whether this is the state at the moment of subscribing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub snapshot: bool,
}

/// When a device was last heard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StatusMetadata {
    /// The moment of its last sign of life; null before the first.
    pub last_seen: Option<UnixMillis>,
}

/// The state of the server's host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemStatusUpdate {
    /// Always [`Channel::System`].
    pub channel: Channel,
    /// The figures.
    pub metrics: SystemMetrics,
    /// When they were taken.
    pub timestamp: UnixMillis,
}

/// The figures of a system status in the order of the filter; on the wire a map by metric.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemMetrics(pub Vec<(SystemMetric, Value)>);

/// Tells a connection that it reads too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lagged {
    /// The channel that was merged.
    pub channel: Channel,
    /// How many superseded messages were merged away since the last one.
    pub dropped: u64,
}

fn active() -> AlertStatus {
    AlertStatus::Active
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Serialize for Telemetry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (metric, value) in &self.0 {
            map.serialize_entry(metric, value)?;
        }
        map.end()
    }
}

impl Serialize for SystemMetrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (metric, value) in &self.0 {
            map.serialize_entry(metric, value)?;
        }
        map.end()
    }
}

/// Reads a map in the order in which its entries stand.
struct Entries<K, V>(std::marker::PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
    type Value = Vec<(K, V)>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Telemetry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(std::marker::PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for SystemMetrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(std::marker::PhantomData)).map(Self)
    }
}
