//! Subscriptions with a period: at most one message a period for each device, with the newest value
//! of every metric that changed in it.
//!
//! All subscribers of the same projection and period are one group: what is due is encoded once.
//! The first change after a quiet period goes out at once and the period runs from there; what
//! changes meanwhile is remembered as bits, so the last value of a burst always arrives.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use valtronics_protocol::id::DeviceId;

use super::{
    SessionId,
    index::{Index, Target},
    metric_set::MetricSet,
    projection::ProjectionId,
};
use crate::commit::MetricIndex;

pub(super) type GroupKey = (ProjectionId, Duration);

/// Every subscription with a period.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    groups: HashMap<GroupKey, Group, RandomState>,
    all: Vec<GroupKey>,
    by_device: HashMap<DeviceId, Vec<GroupKey>, RandomState>,
    /// In which groups a session stands.
    of_session: HashMap<SessionId, HashSet<GroupKey, RandomState>, RandomState>,
    /// When the periods that run end.
    ends: BTreeSet<(Instant, GroupKey, DeviceId)>,
}

#[derive(Debug, Default)]
struct Group {
    targets: Index,
    running: HashMap<DeviceId, Period, RandomState>,
}

/// A period that runs.
#[derive(Debug)]
struct Period {
    ends_at: Instant,
    /// What changed in it so far.
    changed: MetricSet,
}

/// What a group is to be told of a device.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) projection: ProjectionId,
    pub(super) metrics: MetricSet,
    pub(super) targets: Vec<Target>,
}

impl Throttles {
    /// Adds a target for one device, or for all.
    pub(super) fn insert(&mut self, key: Option<DeviceId>, target: Target, period: Duration) {
        let group_key = (target.projection, period);
        self.of_session.entry(target.session).or_default().insert(group_key);
        self.groups.entry(group_key).or_default().targets.insert(key, target);
        let listed = match key {
            None => &mut self.all,
            Some(device) => self.by_device.entry(device).or_default(),
        };
        if !listed.contains(&group_key) {
            listed.push(group_key);
        }
    }

    /// Removes a session from its groups; returns these. A group that nobody is left in runs on
    /// until [`Throttles::end_empty`], so that who only changes places loses nothing.
    pub(super) fn remove(&mut self, session: SessionId) -> HashSet<GroupKey, RandomState> {
        let left = self.of_session.remove(&session).unwrap_or_default();
        for group_key in &left {
            let Some(group) = self.groups.get_mut(group_key) else {
                continue;
            };
            for key in group.targets.remove(session) {
                match key {
                    None => self.all.retain(|known| known != group_key),
                    Some(device) => {
                        if let Some(listed) = self.by_device.get_mut(&device) {
                            listed.retain(|known| known != group_key);
                            if listed.is_empty() {
                                self.by_device.remove(&device);
                            }
                        }
                    }
                }
            }
        }
        left
    }

    /// Ends those of these groups in which nobody is left, and their periods.
    pub(super) fn end_empty(&mut self, groups: &HashSet<GroupKey, RandomState>) {
        for group_key in groups {
            if self.groups.get(group_key).is_some_and(|group| group.targets.is_empty())
                && let Some(group) = self.groups.remove(group_key)
            {
                for (device, period) in group.running {
                    self.ends.remove(&(period.ends_at, *group_key, device));
                }
            }
        }
    }

    /// Tells whether somebody stands here for a device.
    pub(super) fn has(&self, device: DeviceId) -> bool {
        !self.all.is_empty() || self.by_device.contains_key(&device)
    }

    /// Notes that metrics of a device changed; returns what is to be told at once.
    pub(super) fn changed(
        &mut self,
        device: DeviceId,
        covered: impl Fn(ProjectionId) -> Vec<MetricIndex>,
        now: Instant,
    ) -> Vec<Due> {
        let of_all = self.all.iter().map(|group_key| (group_key, true));
        let of_device = self.by_device.get(&device).into_iter().flatten();
        let listed = of_all.chain(of_device.map(|group_key| (group_key, false)));
        let mut due = Vec::new();
        for (group_key, is_of_all) in listed {
            let Some(group) = self.groups.get_mut(group_key) else {
                continue;
            };
            if !is_of_all && group.targets.has_all() {
                // Under "all devices" the whole group was told.
                continue;
            }
            let metrics = covered(group_key.0);
            if metrics.is_empty() {
                continue;
            }
            if let Some(period) = group.running.get_mut(&device) {
                metrics.into_iter().for_each(|metric| period.changed.insert(metric));
                continue;
            }
            let mut set = MetricSet::default();
            metrics.into_iter().for_each(|metric| set.insert(metric));
            let ends_at = now + group_key.1;
            group.running.insert(device, Period { ends_at, changed: MetricSet::default() });
            self.ends.insert((ends_at, *group_key, device));
            due.push(group.due(group_key.0, device, set));
        }
        due
    }

    /// Returns when the next period ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.first().map(|(at, ..)| *at)
    }

    /// Ends the next period that is over; returns what is to be told of which device.
    pub(super) fn expired(&mut self, now: Instant) -> Option<(DeviceId, Due)> {
        while self.ends.first().is_some_and(|(at, ..)| *at <= now) {
            let (_, group_key, device) = self.ends.pop_first()?;
            let group = self.groups.get_mut(&group_key)?;
            let mut period = group.running.remove(&device)?;
            if period.changed.is_empty() {
                continue;
            }
            let set = std::mem::take(&mut period.changed);
            // A period that could not be served in time does not make the next one shorter.
            period.ends_at = now + group_key.1;
            self.ends.insert((period.ends_at, group_key, device));
            group.running.insert(device, period);
            return Some((device, group.due(group_key.0, device, set)));
        }
        None
    }
}

impl Group {
    fn due(&self, projection: ProjectionId, device: DeviceId, metrics: MetricSet) -> Due {
        Due { projection, metrics, targets: self.targets.of(device).cloned().collect() }
    }
}
