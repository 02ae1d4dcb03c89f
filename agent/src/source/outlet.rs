//! What each source has in its hand: the way to the queue, its tally, and its devices.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use valtronics_protocol::{event::Status, reading::Reading, time::UnixMillis, uplink::DeviceInfo};

use super::{Config, SourceEvent, StatusChange, capture::Recorder};
use crate::{clock, tally::Tally};

/// How many events of all sources may wait for the queue: a burst of one second at 10 ms a read
/// from a few sources. When it is full the sources wait, and the system holds their bytes.
pub const EVENTS: usize = 256;
/// The most devices that a source remembers for its status: beyond, new ones get no status event.
pub const DEVICES: usize = 10_000;
/// A source that is broken says so this often, not with each line.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Nobody takes events any more: the agent stops.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the agent stops")]
pub struct Stopping;

/// A source's way out.
#[derive(Debug)]
pub struct Outlet {
    /// The source's name.
    pub name: Arc<str>,
    /// What was counted since readings were handed on the last time.
    pub tally: Tally,
    damaged: u64,
    recorder: Option<Recorder>,
    offline_after: Option<Duration>,
    events: mpsc::Sender<SourceEvent>,
    devices: BTreeSet<Arc<str>>,
    broken: Option<String>,
    last_complaint: Option<Instant>,
    /// The source is to end, when it has done what it owes to others.
    pub closing: CancellationToken,
}

impl Outlet {
    /// Makes the outlet of the source that `config` describes.
    #[must_use]
    pub fn new(
        config: &Config,
        events: mpsc::Sender<SourceEvent>,
        recorder: Option<Recorder>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            name: config.name.clone(),
            tally: Tally::default(),
            damaged: 0,
            recorder,
            offline_after: config.offline_after,
            events,
            devices: BTreeSet::new(),
            broken: None,
            last_complaint: None,
            closing,
        }
    }

    /// Records raw bytes, where the user asked for a capture.
    pub async fn capture(&self, topic: Option<&str>, bytes: &[u8]) {
        if let Some(recorder) = &self.recorder {
            recorder.record(&self.name, topic, bytes, clock::monotonic()).await;
        }
    }

    /// Hands readings on; they show that the source works.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn send(
        &mut self,
        received: UnixMillis,
        readings: Vec<Reading>,
    ) -> Result<(), Stopping> {
        self.hand_on(received, readings, None).await
    }

    /// Hands readings on; the returned receipt is told when they are durable in the
    /// queue, or committed by the server.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn send_for_receipt(
        &mut self,
        received: UnixMillis,
        readings: Vec<Reading>,
    ) -> Result<oneshot::Receiver<()>, Stopping> {
        let (receipt, received_it) = oneshot::channel();
        self.hand_on(received, readings, Some(receipt)).await?;
        Ok(received_it)
    }

    async fn hand_on(
        &mut self,
        received: UnixMillis,
        readings: Vec<Reading>,
        receipt: Option<oneshot::Sender<()>>,
    ) -> Result<(), Stopping> {
        let mut tally = std::mem::take(&mut self.tally);
        tally.queued = readings.len() as u64;
        self.damaged += tally.damaged;
        if tally == Tally::default() && receipt.is_none() {
            return Ok(());
        }
        if !readings.is_empty() && self.broken.take().is_some() {
            info!(source = %self.name, "readings come in again");
        }
        self.meet_devices(&readings).await?;
        let source = Arc::clone(&self.name);
        self.put(SourceEvent::Readings { source, tally, received, readings, receipt }).await
    }

    /// Says that the source gives nothing more, and why: a status event for each of its devices,
    /// or for the source itself while it has none. The same reason is said once.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn offline(&mut self, reason: &str) -> Result<(), Stopping> {
        if self.broken.as_deref() == Some(reason) {
            return Ok(());
        }
        warn!(source = %self.name, "{reason}");
        self.broken = Some(reason.into());
        let timestamp = clock::now();
        let devices = match self.devices.is_empty() {
            true => vec![self.name.clone()],
            false => self.devices.iter().cloned().collect(),
        };
        for device in devices {
            let change =
                StatusChange { device, status: Status::Offline, reason: reason.into(), timestamp };
            self.put(SourceEvent::Status(change)).await?;
        }
        Ok(())
    }

    /// Says what the source has heard of a device's status; that shows that the source works.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn report(&mut self, change: StatusChange) -> Result<(), Stopping> {
        self.broken = None;
        if self.devices.len() < DEVICES {
            self.devices.insert(Arc::clone(&change.device));
        }
        self.put(SourceEvent::Status(change)).await
    }

    /// Declares how long a device may be silent, unless the configuration says so.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn declare(
        &mut self,
        device: &str,
        offline_after: Option<Duration>,
    ) -> Result<(), Stopping> {
        if self.offline_after.is_some() {
            return Ok(());
        }
        self.put(SourceEvent::Device(DeviceInfo { device: device.into(), offline_after })).await
    }

    /// Says of one device that it gives nothing more, and why.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn device_offline(&self, device: &Arc<str>, reason: &str) -> Result<(), Stopping> {
        warn!(source = %self.name, device = %device, "{reason}");
        let (device, reason) = (Arc::clone(device), reason.into());
        let timestamp = clock::now();
        let change = StatusChange { device, status: Status::Offline, reason, timestamp };
        self.put(SourceEvent::Status(change)).await
    }

    /// Gets to know a device, which then has a status even if no reading of it ever comes.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn meet(&mut self, device: &Arc<str>) -> Result<(), Stopping> {
        if self.devices.contains(device) || self.devices.len() >= DEVICES {
            return Ok(());
        }
        self.devices.insert(Arc::clone(device));
        if self.offline_after.is_some() {
            let (device, offline_after) = (device.to_string(), self.offline_after);
            self.put(SourceEvent::Device(DeviceInfo { device, offline_after })).await?;
        }
        Ok(())
    }

    /// Logs why input was damaged, at most once a minute.
    pub fn complain(&mut self, cause: &str) {
        let now = clock::monotonic();
        let is_quiet = self.last_complaint.is_none_or(|last| now - last >= COMPLAIN_EVERY);
        if is_quiet {
            self.last_complaint = Some(now);
            let damaged = self.damaged + self.tally.damaged;
            warn!(source = %self.name, damaged, "damaged input: {cause}");
        }
    }

    async fn meet_devices(&mut self, readings: &[Reading]) -> Result<(), Stopping> {
        for reading in readings {
            self.meet(&reading.device).await?;
        }
        Ok(())
    }

    async fn put(&self, event: SourceEvent) -> Result<(), Stopping> {
        self.events.send(event).await.map_err(|_| Stopping)
    }
}
