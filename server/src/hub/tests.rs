//! The hub with subscribers who read as they like, and a store that answers when it likes.

use std::{collections::VecDeque, task::Waker};

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use valtronics_protocol::{
    event::{
        Alert, AlertMetadata, AlertStatus, DeviceStatusUpdate, Severity, Status, StatusMetadata,
    },
    filter::{self, Channel},
    id::{AlertId, DeviceId, Seq},
    request::{Subscribe, Unsubscribe},
    time::UnixMillis,
};

use super::*;
use crate::{
    auth::DeviceGrant,
    commit::{
        CommittedAlert, CommittedEvent, RegisteredDevice, RegisteredMetric, RegistryChange,
        Severities,
    },
    message::Outgoing,
    state::EventLog,
};

mod events;
mod keys;
mod overlap;
mod telemetry;
mod turn;

/// How many events are at hand in these tests.
const AT_HAND: usize = 8;
const DEVICES: u64 = 4;
const METRICS: u32 = 3;

/// A hub with its surroundings.
struct World {
    hub: Hub,
    state: State,
    /// Every event of the one channel of a test that has any, as the store keeps them.
    stored: Vec<CommittedEvent>,
    alerts: u64,
    /// What events say.
    detail: Arc<str>,
    outboxes: HashMap<SessionId, Arc<Outbox>>,
    began: Instant,
    /// Milliseconds since.
    elapsed: u64,
}

impl World {
    fn new(queue_bytes: usize) -> Self {
        let limits = HubLimits { subscriptions: 1000, queue_bytes, coalesce: Duration::ZERO };
        let began = crate::clock::instant();
        let log = || {
            let log = EventLog::restore(Seq(1), Seq(0), Vec::new(), began);
            log.with_capacity(AT_HAND)
        };
        let mut state = State::new("log".into(), log(), log());
        for id in 1..=DEVICES {
            register(&mut state, DeviceId(id), &format!("d{id}"));
        }
        let (hub, outboxes) = (Hub::new(limits), HashMap::new());
        Self {
            hub,
            state,
            stored: Vec::new(),
            alerts: 0,
            detail: "so".into(),
            outboxes,
            began,
            elapsed: 0,
        }
    }

    /// Lets a device come into being.
    fn add_device(&mut self, name: &str) {
        let id = DeviceId(self.state.devices().len() as u64 + 1);
        register(&mut self.state, id, name);
        self.hub.device_added(self.state.device(id).unwrap());
    }

    fn instant(&self) -> Instant {
        self.began + Duration::from_millis(self.elapsed)
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(1_704_110_400_000 + self.elapsed as i64)
    }

    fn attach(&mut self, session: u64, devices: DeviceGrant) {
        let (session, outbox) = (SessionId(session), Arc::new(Outbox::default()));
        self.hub.attach(session, Arc::clone(&outbox), &claims(devices), &self.state);
        self.outboxes.insert(session, outbox);
    }

    fn subscribe(&mut self, session: u64, channel: Channel, request: &Json) {
        let (filters, options) = filter::parse(channel, request.as_object().unwrap()).unwrap();
        let request = Subscribe { channel, filters, options };
        let now = self.instant();
        self.hub.subscribe(SessionId(session), request, None, &self.state, now);
    }

    fn unsubscribe(&mut self, session: u64, channel: Channel, devices: Option<Vec<DeviceId>>) {
        let request = Unsubscribe { channel, devices };
        self.hub.unsubscribe(SessionId(session), &request, None);
    }

    /// Changes the status of a device, as if it had just been committed.
    fn change_status(&mut self, device: DeviceId, new_status: Status) {
        let event = CommittedEvent::Status(DeviceStatusUpdate {
            channel: Channel::Devices,
            device_id: device,
            old_status: Status::Offline,
            new_status,
            timestamp: self.now(),
            reason: Arc::clone(&self.detail),
            metadata: StatusMetadata { last_seen: None },
            seq: self.state.device_log.last().next(),
            snapshot: false,
        });
        self.commit(event);
    }

    fn raise_alert(&mut self, device: DeviceId) {
        self.alerts += 1;
        self.change_alert(AlertId(self.alerts), device, AlertStatus::Active);
    }

    fn change_alert(&mut self, id: AlertId, device: DeviceId, status: AlertStatus) {
        let alert = Alert {
            channel: Some(Channel::Alerts),
            alert_id: id,
            device_id: device,
            severity: Severity::Warning,
            title: "so".into(),
            message: Arc::clone(&self.detail),
            timestamp: self.now(),
            metadata: AlertMetadata::default(),
            alert_type: "threshold".into(),
            status,
            seq: self.state.alert_log.last().next(),
            snapshot: false,
        };
        let had = Severities::default().with(Severity::Warning);
        let announces = status == AlertStatus::Active;
        self.commit(CommittedEvent::Alert(CommittedAlert { alert, announces, had }));
    }

    fn log(&self, channel: Channel) -> &EventLog {
        super::events::log_of(channel, &self.state)
    }

    /// The last event of everything that a snapshot is to show.
    fn open(&self, channel: Channel) -> Vec<CommittedEvent> {
        match channel {
            Channel::Alerts => {
                self.state.open_alerts.values().cloned().map(CommittedEvent::Alert).collect()
            }
            _ => {
                let devices = self.state.devices().iter();
                devices.filter_map(|d| d.status.clone()).map(CommittedEvent::Status).collect()
            }
        }
    }

    fn commit(&mut self, event: CommittedEvent) {
        self.stored.push(event.clone());
        let now = self.instant();
        self.state.publish(event, now);
        self.hub.events_published(&self.state, now);
    }

    /// Lets the store answer the next request with up to so many events.
    fn read_page(&mut self, most: usize) -> bool {
        let Some(request) = self.hub.next_page() else { return false };
        self.hub.page_asked();
        let after = self.stored.iter().skip(usize::try_from(request.after.0).unwrap());
        let events = Some(after.take(most).cloned().collect());
        let now = self.instant();
        self.hub.page_read(Page { request, events }, &self.state, now);
        true
    }

    /// Lets a connection read up to so many bytes, and ask for more if it was told to.
    fn read(&mut self, session: u64, most_bytes: usize) -> Vec<Json> {
        let outbox = Arc::clone(&self.outboxes[&SessionId(session)]);
        let mut messages = VecDeque::new();
        let taken = outbox.take(most_bytes, &mut messages, Waker::noop(), self.instant());
        if taken.more {
            let now = self.instant();
            self.hub.drained(SessionId(session), &self.state, now);
        }
        let parse = |taken: &Outgoing| serde_json::from_slice(taken.message().payload()).unwrap();
        messages.iter().map(parse).collect()
    }

    /// Lets a connection read, and the store answer, until nothing is left.
    fn read_all(&mut self, session: u64) -> Vec<Json> {
        let mut messages = Vec::new();
        loop {
            let read = self.read(session, usize::MAX);
            let idle = read.is_empty();
            messages.extend(read);
            if !self.read_page(3) && idle {
                return messages;
            }
        }
    }
}

fn register(state: &mut State, id: DeviceId, name: &str) {
    let (sub, name) = ("site".into(), name.into());
    state.register(RegistryChange::Device(RegisteredDevice { id, sub, name, gateway: None }));
    for index in (0..METRICS).map(MetricIndex) {
        let (name, unit) = (format!("m{}", index.0).into(), "".into());
        state.register(RegistryChange::Metric(RegisteredMetric { device: id, index, name, unit }));
    }
}

fn claims(devices: DeviceGrant) -> Claims {
    let (sub, scopes) = ("ops".into(), Scopes::reading());
    Claims { sub, scopes, devices, expires_at: UnixMillis(i64::MAX), jti: None }
}
