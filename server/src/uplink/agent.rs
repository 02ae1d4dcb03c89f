//! The dialect of our own agent: control in JSON, readings in binary batches.

use valtronics_protocol::{
    batch,
    close::CloseCode,
    error::ErrorCode,
    id::DeviceId,
    reading::{MAX_NAME_BYTES, MAX_SENTENCE_BYTES, is_clean, is_name},
    uplink::{
        Ack, AgentMessage, Auth, FrameHeader, Gap, Loss, MAX_GAP_LOSSES, MAX_QUEUE_NAME_BYTES,
    },
};

use super::{
    End,
    frames::{Frames, Hello, Received, unavailable},
    refusal,
};
use crate::{
    clock,
    commit::{Lost, MetricIndex, Row},
    ingest::{Batch, Item, StatusReport, push_row, resolve::merge},
    store_task::{RegisterError, Wanted},
};

/// Reads the first message.
pub(super) fn hello(text: &str) -> Option<Hello> {
    let Ok(AgentMessage::Auth(Auth { token, queue, gateway })) = serde_json::from_str(text) else {
        return None;
    };
    let named = queue
        .as_ref()
        .is_none_or(|queue| !queue.is_empty() && is_clean(queue, MAX_QUEUE_NAME_BYTES));
    let known = gateway.as_ref().is_none_or(|gateway| {
        let said = [&gateway.machine_id, &gateway.version];
        is_name(&gateway.name) && said.iter().all(|text| is_clean(text, MAX_NAME_BYTES))
    });
    (named && known).then_some(Hello { token, queue, gateway })
}

/// The batches of one connection, with the ids of the series that they announce.
#[derive(Default)]
pub(super) struct Decoder {
    batches: batch::Decoder,
    generation: u64,
    ids: Vec<(DeviceId, MetricIndex)>,
}

impl Decoder {
    /// Takes in a frame of readings.
    pub(super) async fn receive(
        &mut self,
        frame: &[u8],
        frames: &mut Frames,
    ) -> Result<Received, End> {
        let (header, payload) = FrameHeader::read(frame).map_err(|error| damaged(&error))?;
        match header {
            // What is live shares tables, and a backlog comes between it.
            FrameHeader::Numbered { historical: true, .. } => {
                Self::default().take(header, payload, frames).await
            }
            FrameHeader::Numbered { historical: false, .. } | FrameHeader::Preview => {
                self.take(header, payload, frames).await
            }
        }
    }

    async fn take(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        frames: &mut Frames,
    ) -> Result<Received, End> {
        let rows = self.batches.decode(payload).map_err(|error| damaged(&error))?.len();
        if self.generation != self.batches.generation() {
            self.generation = self.batches.generation();
            self.ids.clear();
        }
        self.learn(frames).await?;
        let mut received = Received::default();
        received.batch.received_at = clock::now();
        let (historical, first) = match header {
            FrameHeader::Numbered { historical, first } => (historical, first),
            FrameHeader::Preview => {
                received.batch.preview = true;
                self.resolve(0, false, &mut received.batch);
                return Ok(received);
            }
        };
        let known = frames
            .admitted
            .accepted
            .seq
            .map_or(0, |seq| seq.saturating_add(1).saturating_sub(first));
        let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(rows);
        received.duplicates = skipped;
        let tally = &mut received.batch.tally;
        tally.received = rows as u64;
        tally.duplicated = skipped as u64;
        received.ack_again = skipped > 0;
        self.resolve(skipped, historical, &mut received.batch);
        let last = first.saturating_add(rows as u64).saturating_sub(1);
        if rows > skipped {
            frames.reach(Ack { seq: Some(last), event: None }, &mut received.batch);
        }
        Ok(received)
    }

    /// Fills a batch with the rows after those that are known.
    fn resolve(&self, skipped: usize, historical: bool, batch: &mut Batch) {
        let mut begin = 0;
        let mut previous = None;
        for row in self.batches.rows().iter().skip(skipped) {
            let Some((device, metric)) = self.ids.get(row.series as usize) else {
                continue;
            };
            if previous != Some((*device, row.timestamp)) {
                begin = batch.rows.len();
            }
            previous = Some((*device, row.timestamp));
            let at = batch.plausible(Some(row.timestamp));
            let row = Row { device: *device, metric: *metric, at, value: row.value.clone() };
            push_row(batch, begin, row, historical);
        }
        // What has no id is counted, not passed over.
        let missing = self.batches.rows().len() - skipped - batch.rows.len();
        batch.tally.refuse(ErrorCode::Internal, missing as u64);
    }

    /// Has the names of every series looked up again: a new token may be for other devices.
    pub(super) fn forget_ids(&mut self) {
        self.ids.clear();
    }

    /// Looks up the series that were announced since.
    async fn learn(&mut self, frames: &mut Frames) -> Result<(), End> {
        let announced = self.batches.series().get(self.ids.len()..).unwrap_or_default();
        let wanted = announced.iter().filter_map(|series| {
            let unit = Some(series.unit.as_deref().unwrap_or_default());
            frames.names.unknown(&series.device, std::iter::once((&*series.metric, unit)))
        });
        frames.names.learn(merge(wanted.collect())).await.map_err(refuse_names)?;
        for series in announced {
            let device = frames.names.device(&series.device);
            // Whatever its unit: of two that a frame announces the last one is known.
            let metric =
                device.and_then(|device| frames.names.metric(device, &series.metric, None));
            let Some((device, metric)) = device.zip(metric) else {
                return Err(unavailable());
            };
            self.ids.push((device.id, metric));
        }
        Ok(())
    }
}

fn damaged(error: &impl std::fmt::Display) -> End {
    End::Close(CloseCode::Protocol, format!("a frame of readings is damaged: {error}"))
}

impl Frames {
    /// Takes in a message of control.
    pub(super) async fn control(&mut self, text: &str) -> Result<Received, End> {
        let mut received = Received::default();
        received.batch.received_at = clock::now();
        let message = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => {
                let why = format!("not a message of an agent: {error}");
                received.answers.push(refusal(ErrorCode::InvalidMessage, why, None));
                return Ok(received);
            }
        };
        match message {
            AgentMessage::Auth(auth) => {
                if let Err((code, why)) = self.renew(&auth.token, &mut received).await {
                    received.answers.push(refusal(code, why, None));
                }
            }
            AgentMessage::Device(info) => {
                if let Some(id) = self.device(&info.device).await? {
                    received.batch.items.push(Item::OfflineAfter(id, info.offline_after));
                }
            }
            AgentMessage::Counters(counters) => received.batch.reported = Some(Box::new(counters)),
            AgentMessage::Status(event) => {
                received.batch.tally.events_received += 1;
                if self.admitted.queue.is_some() && Some(event.seq) <= self.admitted.accepted.event
                {
                    received.batch.tally.events_duplicated += 1;
                    received.duplicates += 1;
                    received.ack_again = true;
                    return Ok(received);
                }
                let Some(device) = self.device(&event.device).await? else {
                    return Ok(received);
                };
                let reason =
                    if is_clean(&event.reason, MAX_SENTENCE_BYTES) { &*event.reason } else { "" };
                let at = received.batch.plausible(Some(event.timestamp));
                let (status, reason) = (event.status, reason.into());
                let report = StatusReport { device, status, reason, at };
                received.batch.items.push(Item::Status(report));
                self.reach(Ack { seq: None, event: Some(event.seq) }, &mut received.batch);
            }
            AgentMessage::Gap(gap) => self.lose(gap, &mut received).await?,
        }
        Ok(received)
    }

    /// Takes in which readings will never come.
    async fn lose(&mut self, gap: Gap, received: &mut Received) -> Result<(), End> {
        if self.is_known(Some(gap.last)) {
            received.ack_again = true;
            return Ok(());
        }
        let own = self.admitted.gateway.clone();
        // By its numbers, whatever it knows of their readings, and without those that came after all.
        let next = self.admitted.accepted.seq.map_or(0, |seq| seq.saturating_add(1));
        received.batch.tally.lost = gap.last.saturating_sub(gap.first.max(next)).saturating_add(1);
        for loss in gap.devices.iter().take(MAX_GAP_LOSSES) {
            // What nobody is known for is the gateway's own.
            let Some(name) = loss.device.as_deref().or(own.as_deref()) else { continue };
            if let Some(device) = self.device(name).await? {
                let Loss { from, to, readings, .. } = *loss;
                let lost = Lost { device, from, to, readings, reason: gap.reason };
                received.batch.items.push(Item::Lost(lost));
            }
        }
        self.reach(Ack { seq: Some(gap.last), event: None }, &mut received.batch);
        Ok(())
    }

    async fn device(&mut self, name: &str) -> Result<Option<DeviceId>, End> {
        if !is_name(name) {
            return Ok(None);
        }
        let wanted: Vec<Wanted> =
            self.names.unknown(name, std::iter::empty()).into_iter().collect();
        self.names.learn(wanted).await.map_err(refuse_names)?;
        Ok(self.names.device(name).map(|device| device.id))
    }
}

/// Ends the connection: our agent numbers readings without holes, it cannot leave some of them out.
fn refuse_names(error: RegisterError) -> End {
    match error {
        RegisterError::Unavailable => unavailable(),
        RegisterError::Full(full) => {
            End::Close(CloseCode::Limited, format!("{full}; retry_after=600"))
        }
        // By this word the agent knows that its queue is taken over, and a name may hold it.
        RegisterError::Forbidden(why) if why.contains("queue") => {
            End::Close(CloseCode::Forbidden, "the token is not for one of the devices".into())
        }
        RegisterError::Forbidden(why) => End::Close(CloseCode::Forbidden, why),
    }
}
