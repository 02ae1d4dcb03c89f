//! What a subscriber wants of a channel (WebSocket API, section 3).
//!
//! A `subscribe` names a channel, **filters** that narrow it and **options** that shape it. Keys
//! stand at the top level, under `filters`, or both, where `filters` wins. Whatever is not
//! understood is refused, never silently ignored.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::{
    event::{Severity, Status},
    id::{DeviceId, Seq},
    time::parse_period,
};

/// The streams to which one can subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Readings.
    Telemetry,
    /// Alerts and their transitions.
    Alerts,
    /// Changes of the status of devices.
    Devices,
    /// The state of the server's host.
    System,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 4] = [Self::Telemetry, Self::Alerts, Self::Devices, Self::System];

    /// Returns the name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Alerts => "alerts",
            Self::Devices => "devices",
            Self::System => "system",
        }
    }

    /// Finds the channel of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.as_str() == name)
    }

    /// Returns the keys that narrow or shape this channel, beside those that every one has.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Telemetry => &["device_id", "metrics", "frequency", "historical"],
            Self::Alerts => &["device_id", "severity", "alert_type", "since", "log"],
            Self::Devices => &["device_id", "status_types", "since", "log"],
            Self::System => &["metrics", "frequency"],
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A metric's name, or the beginning of names: a trailing `*` is a wildcard, `\*` at the end is the
/// character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricPattern {
    /// This one metric.
    Exact(Box<str>),
    /// Every metric whose name begins so.
    Prefix(Box<str>),
}

impl MetricPattern {
    /// Reads a pattern; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match (text.strip_suffix("\\*"), text.strip_suffix('*')) {
            (Some(literal), _) => Self::Exact(format!("{literal}*").into()),
            (None, Some(prefix)) => Self::Prefix(prefix.into()),
            (None, None) => Self::Exact(text.into()),
        }
    }

    /// Tells whether the pattern covers this metric.
    #[must_use]
    pub fn matches(&self, metric: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *metric,
            Self::Prefix(prefix) => metric.starts_with(&**prefix),
        }
    }
}

/// How often a subscriber wants to hear of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Frequency {
    /// Every live reading.
    #[default]
    RealTime,
    /// At most one message a period for each device, with the newest value of each metric.
    Period(Duration),
}

/// The shortest period of telemetry: shorter ones cost more than `real-time`.
pub const MIN_TELEMETRY_PERIOD: Duration = Duration::from_millis(100);
/// The shortest period of system status, which is what `real-time` means there.
pub const MIN_SYSTEM_PERIOD: Duration = Duration::from_secs(1);
/// The period of system status when none is given.
pub const DEFAULT_SYSTEM_PERIOD: Duration = Duration::from_secs(5);
/// The longest period.
pub const MAX_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// A metric of `system_status_update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemMetric {
    /// Processor time in use, in percent.
    CpuUsage,
    /// Memory in use, in percent.
    MemoryUsage,
    /// Space in use on the disk of the data directory, in percent.
    DiskUsage,
    /// Authenticated WebSocket connections of subscribers.
    ActiveConnections,
    /// Memory in bytes.
    MemoryTotal,
    /// The load average of the last minute.
    LoadAverage,
    /// Seconds since the server started.
    UptimeSeconds,
    /// Readings that came in during the last second.
    MessagesPerSecond,
    /// Devices whose status is `online` or `warning`.
    DevicesOnline,
}

impl SystemMetric {
    /// The metrics that come when a subscriber names none: those of the original documentation.
    pub const DEFAULT: [Self; 4] =
        [Self::CpuUsage, Self::MemoryUsage, Self::DiskUsage, Self::ActiveConnections];
}

/// How much of a key that is not known comes back: enough to find a slip, and no answer is much
/// larger than what it answers.
const MAX_ECHO_BYTES: usize = 64;

/// What narrows a subscription; `None` restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Filters {
    /// These devices only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<Vec<DeviceId>>,
    /// These metrics only, as they were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
    /// Alerts that have, or have had, one of these severities only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Vec<Severity>>,
    /// Alerts of rules of these kinds only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_type: Option<Vec<String>>,
    /// Changes to one of these only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_types: Option<Vec<Status>>,
    /// How often, as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<String>,
}

impl Filters {
    /// Returns the patterns of `metrics`, sorted and each once; empty when every metric is wanted.
    #[must_use]
    pub fn metric_patterns(&self) -> Vec<MetricPattern> {
        let written = self.metrics.iter().flatten();
        let mut patterns: Vec<_> = written.map(|text| MetricPattern::new(text)).collect();
        patterns.sort();
        patterns.dedup();
        if patterns.contains(&MetricPattern::Prefix("".into())) {
            patterns.clear();
        }
        patterns
    }

    /// Returns the metrics of system status that are wanted, in the order of the filter.
    #[must_use]
    pub fn system_metrics(&self) -> Vec<SystemMetric> {
        match &self.metrics {
            None => SystemMetric::DEFAULT.to_vec(),
            Some(names) => names.iter().filter_map(|name| system_metric(name)).collect(),
        }
    }

    /// Returns the frequency of telemetry.
    #[must_use]
    pub fn frequency(&self) -> Frequency {
        self.frequency
            .as_deref()
            .and_then(|text| parse_period(text).ok())
            .map_or(Frequency::RealTime, Frequency::Period)
    }

    /// Returns the sampling period of system status.
    #[must_use]
    pub fn system_period(&self) -> Duration {
        match &self.frequency {
            None => DEFAULT_SYSTEM_PERIOD,
            Some(text) => parse_period(text).unwrap_or(MIN_SYSTEM_PERIOD),
        }
    }
}

/// What shapes a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Deliver every event after this one first.
    pub since: Option<Seq>,
    /// The id of the log to which `since` belongs.
    pub log: Option<String>,
    /// Begin with the present state.
    pub snapshot: bool,
    /// Also deliver readings that come late.
    pub historical: bool,
    /// Several messages may come in one `batch`.
    pub batch: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { since: None, log: None, snapshot: true, historical: false, batch: false }
    }
}

/// A filter or an option that is not understood; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFilter(pub String);

fn refuse<T>(why: impl Into<String>) -> Result<T, InvalidFilter> {
    Err(InvalidFilter(why.into()))
}

/// Reads the filters and options of a `subscribe` on `channel`.
///
/// # Errors
/// When a key does not belong to the channel, or its value has the wrong type or range.
pub fn parse(
    channel: Channel,
    request: &Map<String, Json>,
) -> Result<(Filters, Options), InvalidFilter> {
    let nested = match request.get("filters") {
        None => None,
        Some(Json::Object(map)) => Some(map),
        Some(_) => return refuse("filters is an object"),
    };
    let top = request.iter().filter(|(key, _)| {
        let wins = nested.is_some_and(|map| map.contains_key(*key));
        !wins && !["type", "channel", "id", "filters"].contains(&key.as_str())
    });
    let (mut filters, mut options) = (Filters::default(), Options::default());
    for (key, value) in top.chain(nested.into_iter().flatten()) {
        read_key(channel, key, value, &mut filters, &mut options)?;
    }
    Ok((filters, options))
}

fn read_key(
    channel: Channel,
    key: &str,
    value: &Json,
    filters: &mut Filters,
    options: &mut Options,
) -> Result<(), InvalidFilter> {
    if !channel.keys().contains(&key) && !["snapshot", "batch"].contains(&key) {
        let key = key.get(..key.floor_char_boundary(MAX_ECHO_BYTES)).unwrap_or_default();
        return refuse(format!(
            "{key} is no key of {channel}, which knows {}, snapshot and batch",
            channel.keys().join(", ")
        ));
    }
    match key {
        "device_id" => filters.device_id = Some(device_ids(value)?),
        "metrics" if channel == Channel::System => {
            let known = "metrics of system are cpu_usage, memory_usage, disk_usage, \
                         active_connections, memory_total, load_average, uptime_seconds, \
                         messages_per_second, devices_online";
            filters.metrics = Some(one_or_more(value, known, |json| {
                text(json).filter(|name| system_metric(name).is_some())
            })?);
        }
        "metrics" => {
            let metrics = one_or_more(value, "metrics is a name or an array of names", text)?;
            filters.metrics = (!metrics.iter().any(|name| name == "*")).then_some(metrics);
        }
        "alert_type" => {
            let kinds = one_or_more(value, "alert_type is a kind or an array of kinds", text)?;
            filters.alert_type = Some(kinds);
        }
        "severity" => {
            let known = "severity is info, warning, critical, or an array of these";
            filters.severity = unless_all(one_or_more(value, known, typed)?, &Severity::ALL);
        }
        "status_types" => {
            let known = "status_types is online, offline, warning, or an array of these";
            filters.status_types = unless_all(one_or_more(value, known, typed)?, &Status::ALL);
        }
        "frequency" => filters.frequency = Some(frequency(channel, value)?),
        "since" => match value.as_u64() {
            Some(seq) => options.since = Some(Seq(seq)),
            None => return refuse("since is the seq of the last event seen, an integer from 0"),
        },
        "log" => match value.as_str() {
            Some(log) => options.log = Some(log.to_owned()),
            None => return refuse("log is the text that subscribe_response gave"),
        },
        "snapshot" => options.snapshot = truth(key, value)?,
        "historical" => options.historical = truth(key, value)?,
        "batch" => options.batch = truth(key, value)?,
        _ => return refuse(format!("{key} is not known")),
    }
    Ok(())
}

/// Reads the devices of a `subscribe` or an `unsubscribe`.
///
/// # Errors
/// When it is neither an integer nor an array of at least one.
pub fn device_ids(value: &Json) -> Result<Vec<DeviceId>, InvalidFilter> {
    let wanted = "device_id is an integer or an array of integers";
    // `1.0` is no integer here: the library tells the forms apart.
    one_or_more(value, wanted, |json| json.as_u64().map(DeviceId))
}

fn one_or_more<T: PartialEq>(
    value: &Json,
    wanted: &str,
    read: impl Fn(&Json) -> Option<T>,
) -> Result<Vec<T>, InvalidFilter> {
    let many = match value {
        Json::Array(many) => many.as_slice(),
        one => std::slice::from_ref(one),
    };
    if many.is_empty() {
        return refuse(format!("{wanted}; leave the key out to get all"));
    }
    let mut found = Vec::with_capacity(many.len());
    for one in many {
        match read(one) {
            Some(item) if !found.contains(&item) => found.push(item),
            Some(_) => {}
            None => return refuse(wanted),
        }
    }
    Ok(found)
}

/// Leaves out a list that names all there is: it restricts nothing.
fn unless_all<T: PartialEq>(named: Vec<T>, all: &[T]) -> Option<Vec<T>> {
    (!all.iter().all(|one| named.contains(one))).then_some(named)
}

fn text(json: &Json) -> Option<String> {
    json.as_str().map(str::to_owned)
}

fn typed<T: for<'de> Deserialize<'de>>(json: &Json) -> Option<T> {
    json.is_string().then(|| T::deserialize(json).ok()).flatten()
}

fn system_metric(name: &str) -> Option<SystemMetric> {
    typed(&Json::from(name))
}

fn truth(key: &str, value: &Json) -> Result<bool, InvalidFilter> {
    value.as_bool().map_or_else(|| refuse(format!("{key} is true or false")), Ok)
}

fn frequency(channel: Channel, value: &Json) -> Result<String, InvalidFilter> {
    let least = if channel == Channel::System { MIN_SYSTEM_PERIOD } else { MIN_TELEMETRY_PERIOD };
    let wanted = format!(
        "frequency is \"real-time\" or a period such as \"30s\", from {} to 24h",
        crate::time::format_period(least)
    );
    let Some(text) = value.as_str() else {
        return refuse(wanted);
    };
    let fits = |period: Duration| (least..=MAX_PERIOD).contains(&period);
    if text == "real-time" || parse_period(text).is_ok_and(fits) {
        return Ok(text.to_owned());
    }
    refuse(wanted)
}

#[cfg(test)]
mod tests;
