//! What of an update a subscriber gets: encoded once for all who get the same.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Instant};

use valtronics_protocol::{
    event::{Event, MetricValue, Telemetry, TelemetryUpdate},
    filter::{Channel, MetricPattern},
    format::Format,
    time::UnixMillis,
    value::Value,
};

use crate::{
    commit::MetricIndex,
    message::{TelemetryFrame, to_message},
    state::Device,
};

/// The most bytes of one message: Python's client takes 1 MiB by default (WebSocket API, section 5).
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// Names a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectionId(u32);

/// Every projection that somebody gets, each once.
#[derive(Debug, Default)]
pub struct Projections {
    known: Vec<Projection>,
    by_content: HashMap<(Vec<MetricPattern>, Format), ProjectionId>,
    /// Places of `known` that nobody uses.
    free: Vec<ProjectionId>,
}

/// Which metrics, all when there is no pattern; and how they are written.
#[derive(Debug, Default)]
struct Projection {
    patterns: Vec<MetricPattern>,
    format: Format,
    users: usize,
}

/// A reading on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Which metric.
    pub metric: MetricIndex,
    /// What was measured.
    pub value: &'a Value,
    /// When.
    pub at: UnixMillis,
    /// When it came in, if this is its first way out.
    pub arrived_at: Option<Instant>,
}

/// What an update is marked as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A live reading.
    Live,
    /// The state at the moment of subscribing.
    Snapshot,
    /// A reading that came late.
    Historical,
}

impl Projections {
    /// Finds or makes the projection of these patterns (sorted, each once) in this format, and counts
    /// its user.
    pub fn acquire(&mut self, patterns: Vec<MetricPattern>, format: Format) -> ProjectionId {
        let content = (patterns, format);
        let id = self.by_content.get(&content).copied().or_else(|| self.free.pop());
        let id = id.unwrap_or_else(|| {
            self.known.push(Projection::default());
            ProjectionId(u32::try_from(self.known.len() - 1).expect("limited by connections"))
        });
        if let Some(projection) = self.known.get_mut(id.0 as usize) {
            projection.users += 1;
            projection.patterns.clone_from(&content.0);
            projection.format = format;
        }
        self.by_content.insert(content, id);
        id
    }

    /// Counts a user less.
    pub fn release(&mut self, id: ProjectionId) {
        if let Some(projection) = self.known.get_mut(id.0 as usize) {
            projection.users -= 1;
            if projection.users == 0 {
                let patterns = std::mem::take(&mut projection.patterns);
                self.by_content.remove(&(patterns, projection.format));
                self.free.push(id);
            }
        }
    }

    /// Tells whether a metric is part of the projection.
    pub fn covers(&self, id: ProjectionId, metric: &str) -> bool {
        self.known.get(id.0 as usize).is_some_and(|projection| projection.covers(metric))
    }

    /// Encodes what the projection shows of these readings of a device: no frame when that is
    /// nothing, several when one would be too large.
    pub fn encode<'a>(
        &self,
        id: ProjectionId,
        device: &'a Device,
        changes: &[Change<'a>],
        mark: Mark,
    ) -> Vec<Arc<TelemetryFrame>> {
        let mut frames = Vec::with_capacity(1);
        let Some(projection) = self.known.get(id.0 as usize) else {
            return frames;
        };
        let covered = |change: &&Change<'a>| {
            device.metric(change.metric).is_some_and(|metric| projection.covers(&metric.name))
        };
        let shown: Vec<Change<'a>> = changes.iter().filter(covered).copied().collect();
        if !shown.is_empty() {
            encode_split(device, &shown, mark, projection.format, &mut frames);
        }
        frames
    }
}

/// Readings of a device on their way out: encoded once for each projection that somebody gets.
pub(super) struct Encoded<'a> {
    projections: &'a Projections,
    device: &'a Device,
    changes: &'a [Change<'a>],
    mark: Mark,
    known: Vec<(ProjectionId, Vec<Arc<TelemetryFrame>>)>,
}

impl<'a> Encoded<'a> {
    pub(super) fn new(
        projections: &'a Projections,
        device: &'a Device,
        changes: &'a [Change<'a>],
        mark: Mark,
    ) -> Self {
        Self { projections, device, changes, mark, known: Vec::new() }
    }

    /// Returns all that was encoded.
    pub(super) fn into_frames(self) -> impl Iterator<Item = (ProjectionId, Arc<TelemetryFrame>)> {
        let with_id = |(id, frames): (_, Vec<_>)| frames.into_iter().map(move |frame| (id, frame));
        self.known.into_iter().flat_map(with_id)
    }

    /// Returns what a projection shows of them.
    pub(super) fn frames(&mut self, id: ProjectionId) -> &[Arc<TelemetryFrame>] {
        let at = self.known.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            let frames = self.projections.encode(id, self.device, self.changes, self.mark);
            self.known.push((id, frames));
            self.known.len() - 1
        });
        self.known.get(at).map(|(_, frames)| frames.as_slice()).unwrap_or_default()
    }
}

impl Projection {
    fn covers(&self, metric: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(metric))
    }
}

fn encode_split<'a>(
    device: &'a Device,
    changes: &[Change<'a>],
    mark: Mark,
    format: Format,
    frames: &mut Vec<Arc<TelemetryFrame>>,
) {
    let entry = |change: Change<'a>| {
        let metric = device.metric(change.metric);
        let (name, unit) = metric.map_or(("", ""), |metric| (&*metric.name, &*metric.unit));
        let value = MetricValue {
            value: Cow::Borrowed(change.value),
            unit: Cow::Borrowed(unit),
            timestamp: change.at,
            stale: mark == Mark::Snapshot
                && metric.is_some_and(|metric| metric.freshness.is_stale()),
        };
        (Cow::Borrowed(name), value)
    };
    let update = Event::TelemetryUpdate(TelemetryUpdate {
        channel: Channel::Telemetry,
        device_id: device.id(),
        telemetry: Telemetry(changes.iter().copied().map(entry).collect()),
        snapshot: mark == Mark::Snapshot,
        historical: mark == Mark::Historical,
    });
    let message = to_message(&update, format).of(Channel::Telemetry);
    if message.size() > MAX_MESSAGE_BYTES && changes.len() > 1 {
        let (first, rest) = changes.split_at(changes.len() / 2);
        encode_split(device, first, mark, format, frames);
        encode_split(device, rest, mark, format, frames);
        return;
    }
    let metrics = changes.iter().map(|change| change.metric).collect();
    let arrived_at = changes.first().and_then(|change| change.arrived_at);
    frames.push(Arc::new(TelemetryFrame { message, device: device.id(), metrics, arrived_at }));
}
