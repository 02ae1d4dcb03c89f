//! Channel `system`: the state of the server's host, at each subscriber's own period.

use std::time::Instant;

use valtronics_protocol::{
    event::{Event, SystemMetrics, SystemStatusUpdate},
    filter::{Channel, Filters, Options, SystemMetric},
    time::UnixMillis,
    value::Value,
};

use super::{Hub, SessionId, subscription::SystemSubscription};
use crate::message::Packing;

/// The figures of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SystemSample {
    /// Processor time in use, in percent.
    pub cpu_usage: f64,
    /// Memory in use, in percent.
    pub memory_usage: f64,
    /// Space in use on the disk of the data directory, in percent.
    pub disk_usage: f64,
    /// Memory in bytes.
    pub memory_total: u64,
    /// The load average of the last minute.
    pub load_average: f64,
    /// Seconds since the server started.
    pub uptime_seconds: u64,
    /// Readings that came in during the last second.
    pub messages_per_second: u64,
    /// Devices whose status is `online` or `warning`.
    pub devices_online: u64,
}

impl Hub {
    pub(super) fn subscribe_system(
        &mut self,
        session: SessionId,
        filters: &Filters,
        options: &Options,
        now: Instant,
    ) {
        if let Some(subscriber) = self.subscribers.get_mut(&session) {
            subscriber.system = Some(SystemSubscription {
                metrics: filters.system_metrics(),
                period: filters.system_period(),
                packing: Packing::of(options),
                due_at: now,
            });
        }
    }

    /// Tells whether somebody wants system status by now.
    #[must_use]
    pub fn wants_system(&self, now: Instant) -> bool {
        let mut subscriptions = self.subscribers.values().filter_map(|s| s.system.as_ref());
        subscriptions.any(|subscription| subscription.due_at <= now)
    }

    /// Sends a sample to those for whom one is due.
    pub fn publish_system(&mut self, sample: &SystemSample, timestamp: UnixMillis, now: Instant) {
        let connections = self.subscribers.len();
        for subscriber in self.subscribers.values_mut() {
            let Some(subscription) = &mut subscriber.system else {
                continue;
            };
            if subscription.due_at > now {
                continue;
            }
            let next = subscription.due_at + subscription.period;
            subscription.due_at = if next > now { next } else { now + subscription.period };
            let figures = |metric: &SystemMetric| (*metric, sample.figure(*metric, connections));
            let update = Event::SystemStatusUpdate(SystemStatusUpdate {
                channel: Channel::System,
                metrics: SystemMetrics(subscription.metrics.iter().map(figures).collect()),
                timestamp,
            });
            if subscriber.outbox.push_system(&update, subscription.packing) {
                subscriber.backlog.merged_system += 1;
            }
        }
    }
}

impl SystemSample {
    fn figure(&self, metric: SystemMetric, connections: usize) -> Value {
        match metric {
            SystemMetric::CpuUsage => one_decimal(self.cpu_usage),
            SystemMetric::MemoryUsage => one_decimal(self.memory_usage),
            SystemMetric::DiskUsage => one_decimal(self.disk_usage),
            SystemMetric::ActiveConnections => Value::from(connections as u64),
            SystemMetric::MemoryTotal => Value::from(self.memory_total),
            SystemMetric::LoadAverage => Value::Float((self.load_average * 100.0).round() / 100.0),
            SystemMetric::UptimeSeconds => Value::from(self.uptime_seconds),
            SystemMetric::MessagesPerSecond => Value::from(self.messages_per_second),
            SystemMetric::DevicesOnline => Value::from(self.devices_online),
        }
    }
}

fn one_decimal(percent: f64) -> Value {
    Value::Float((percent * 10.0).round() / 10.0)
}
