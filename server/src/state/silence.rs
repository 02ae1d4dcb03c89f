//! Which of a device's metrics are missed.

use std::sync::Arc;

use valtronics_protocol::{
    event::{DeviceStatusUpdate, Status},
    time::UnixMillis,
};

use super::Device;
use crate::domain::status::{Health, spoken};

#[cfg(test)]
mod tests;

impl Device {
    /// Begins with the last status before the server restarted at `now`; its metrics are known.
    pub fn restore(&mut self, update: &DeviceStatusUpdate, now: UnixMillis) {
        let (status, reason) = (update.new_status, &update.reason);
        self.health = Health::restored(status, reason, update.metadata.last_seen, now);
        self.status = Some(update.clone());
        match status {
            Status::Online => {}
            Status::Warning => {
                // The sentence is ours, and a metric ends what a metric began.
                let is_missed = |name: &str| reason.starts_with(&missed(name));
                if let Some(metric) = self.metrics.iter_mut().find(|m| is_missed(&m.name)) {
                    metric.freshness.restore_silent();
                    self.health.restore_missed_metric();
                }
            }
            Status::Offline => self.metrics.iter_mut().for_each(|m| m.freshness.restore_stale()),
        }
    }

    /// Looks which metrics are missed at this moment; returns by when to look again.
    ///
    /// What is heard until then moves no deadline to before that moment, and brings none.
    pub fn look_around(&mut self, now: UnixMillis) -> UnixMillis {
        let hearing = self.health.hearing(now);
        let looks = self.metrics.iter_mut().map(|metric| metric.freshness.look(hearing, now));
        let next = looks.flatten().fold(now.plus(hearing.least), UnixMillis::min);
        self.miss_metric(now);
        self.health.deadline().map_or(next, |at| next.min(at))
    }

    /// Says which metric is missed now, as one may be that was not before, or the other way round.
    pub fn miss_metric(&mut self, now: UnixMillis) {
        let least = self.health.least_silence();
        let silent = self.metrics.iter().find(|metric| metric.freshness.is_silent());
        let reason = silent.map(|metric| -> Arc<str> {
            let for_long = metric.freshness.patience(least).unwrap_or(least);
            (missed(&metric.name) + &spoken(for_long)).into()
        });
        self.health.miss_metric(reason, now);
    }
}

/// Begins the sentence about a metric that is missed.
fn missed(metric: &str) -> String {
    format!("No data from {metric} for ")
}
