//! Subscribing and unsubscribing, and who stands in which index.

use std::{sync::Arc, time::Instant};

use valtronics_protocol::{
    error::ErrorCode,
    filter::{Channel, Filters, Frequency, Options},
    id::DeviceId,
    request::{MessageId, Subscribe, Unsubscribe},
    response::{Failure, Response, SubscribeResponse, UnsubscribeResponse},
};

use super::{
    Hub, SessionId, Subscriber,
    events::log_of,
    index::{Index, Target},
    subscription::{Key, TelemetrySubscription},
    throttle::Throttles,
};
use crate::{
    message::Packing,
    state::{Device, EventLog, State},
};

impl Hub {
    /// Subscribes as the path of a connection asks, until the client subscribes itself (WebSocket
    /// API, section 1).
    pub fn subscribe_endpoint(
        &mut self,
        session: SessionId,
        request: Subscribe,
        state: &State,
        now: Instant,
    ) {
        let keys = keys_of(request.filters.device_id.as_deref());
        self.subscribe(session, request, None, state, now);
        if let Some(subscriber) = self.subscribers.get_mut(&session) {
            subscriber.endpoint = keys;
        }
    }

    /// Handles a `subscribe`, and begins to send what it asks for.
    pub fn subscribe(
        &mut self,
        session: SessionId,
        request: Subscribe,
        id: Option<MessageId>,
        state: &State,
        now: Instant,
    ) {
        let Some(subscriber) = self.subscribers.get(&session) else {
            return;
        };
        let ends = subscriber.ends_by(&request);
        if let Some(failure) = self.refusal(subscriber, &request, ends.len(), state) {
            let channel = Some(request.channel.as_str().to_owned());
            let failure = Failure { channel, id, ..failure };
            let response = SubscribeResponse { failure: Some(failure), ..Default::default() };
            subscriber.outbox.answer(&Response::SubscribeResponse(response));
            return;
        }
        let Subscribe { channel, filters, options } = request;
        let resumed = self.resumes(channel, &options, state);
        let log = match channel {
            Channel::Alerts => Some(&state.alert_log),
            Channel::Devices => Some(&state.device_log),
            Channel::Telemetry | Channel::System => None,
        };
        let response = SubscribeResponse {
            success: true,
            channel: Some(channel),
            filters: Some(filters.clone()),
            seq: log.map(EventLog::last),
            log: log.map(|_| state.log_id.clone()),
            resumed: options.since.map(|_| resumed),
            failure: None,
            id,
        };
        subscriber.outbox.answer(&Response::SubscribeResponse(response));
        match channel {
            Channel::Telemetry => self.subscribe_telemetry(session, &filters, &options),
            Channel::Alerts | Channel::Devices => {
                let since = options.since.filter(|_| resumed);
                self.subscribe_events(session, channel, filters, &options, since, (state, now));
            }
            Channel::System => self.subscribe_system(session, &filters, &options, now),
        }
        if !ends.is_empty() {
            // After the new keys are set: what was owed to the old ones stays owed to these.
            self.remove(session, channel, Some(&ends));
            self.reindex(session);
        }
        if let Some(subscriber) = self.subscribers.get_mut(&session) {
            subscriber.endpoint.clear();
            subscriber.outbox.note_subscriptions(subscriber.keys());
        }
        self.pump(session, state, now);
    }

    /// Says why a `subscribe` cannot be done, if so.
    fn refusal(
        &self,
        subscriber: &Subscriber,
        request: &Subscribe,
        ends: usize,
        state: &State,
    ) -> Option<Failure> {
        let channel = request.channel;
        if !subscriber.scopes.may_read(channel) {
            let why = format!("the token has no scope {channel}:read: get one that has");
            return Some(Failure::new(ErrorCode::Forbidden, why));
        }
        let wanted = request.filters.device_id.as_deref().unwrap_or_default();
        let forbidden = wanted.iter().find(|id| !subscriber.may_ask_for(**id, state));
        if let Some(id) = forbidden {
            let why = format!("the token does not allow device {id}");
            return Some(Failure::new(ErrorCode::Forbidden, why));
        }
        let keys = keys_of(request.filters.device_id.as_deref());
        let new = keys.into_iter().filter(|key| !subscriber.has(channel, *key)).count();
        let most = self.limits.subscriptions;
        if new > 0 && subscriber.keys() + new > most + ends {
            let why = format!("a connection holds at most {most} subscriptions: unsubscribe first");
            return Some(Failure::new(ErrorCode::SubscriptionLimit, why));
        }
        None
    }

    fn resumes(&self, channel: Channel, options: &Options, state: &State) -> bool {
        let Some(since) = options.since else {
            return false;
        };
        let log = match channel {
            Channel::Alerts | Channel::Devices => log_of(channel, state),
            Channel::Telemetry | Channel::System => return false,
        };
        let ours = options.log.as_ref().is_none_or(|log| *log == state.log_id);
        ours && log.holds_all_after(since)
    }

    fn subscribe_telemetry(&mut self, session: SessionId, filters: &Filters, options: &Options) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        let format = subscriber.outbox.format();
        let keys = keys_of(filters.device_id.as_deref());
        for key in &keys {
            let subscription = TelemetrySubscription {
                projection: self.projections.acquire(filters.metric_patterns(), format),
                frequency: filters.frequency(),
                historical: options.historical,
                packing: Packing::of(options),
            };
            // Not before the new one is acquired: the same filters keep their projection, and what
            // waits for the end of their period.
            if let Some(replaced) = subscriber.telemetry.insert(*key, subscription) {
                self.projections.release(replaced.projection);
            }
        }
        subscriber.backlog.forget_snapshot(Some(&keys));
        self.reindex(session);
        if options.snapshot
            && let Some(subscriber) = self.subscribers.get_mut(&session)
        {
            subscriber.backlog.owe_telemetry(filters.device_id.clone());
        }
    }

    /// Handles an `unsubscribe`.
    pub fn unsubscribe(
        &mut self,
        session: SessionId,
        request: &Unsubscribe,
        id: Option<MessageId>,
    ) {
        let keys = request.devices.as_deref().map(|devices| keys_of(Some(devices)));
        self.remove(session, request.channel, keys.as_deref());
        if request.channel == Channel::Telemetry {
            self.reindex(session);
        }
        let Some(subscriber) = self.subscribers.get(&session) else {
            return;
        };
        subscriber.outbox.note_subscriptions(subscriber.keys());
        let response = UnsubscribeResponse {
            success: true,
            channel: Some(request.channel),
            failure: None,
            id,
        };
        subscriber.outbox.answer(&Response::UnsubscribeResponse(response));
    }

    /// Removes these keys, or the whole channel.
    pub(super) fn remove(&mut self, session: SessionId, channel: Channel, keys: Option<&[Key]>) {
        if channel == Channel::Telemetry {
            self.remove_telemetry(session, keys);
        }
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        let keyed = match channel {
            Channel::Telemetry => return subscriber.forget_unsubscribed(),
            Channel::Alerts => &mut subscriber.alerts,
            Channel::Devices => &mut subscriber.status,
            Channel::System => {
                if keys.is_none_or(|keys| keys.contains(&None)) {
                    subscriber.system = None;
                }
                return;
            }
        };
        keyed.remove(keys);
        let owed = subscriber.backlog.events_mut(channel);
        owed.forget(keys);
        if keyed.len() == 0 {
            owed.end();
        }
    }

    /// Removes these telemetry keys, or all; [`Hub::reindex`] is to follow.
    pub(super) fn remove_telemetry(&mut self, session: SessionId, keys: Option<&[Key]>) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        for subscription in subscriber.telemetry.remove(keys) {
            self.projections.release(subscription.projection);
        }
        subscriber.backlog.forget_snapshot(keys);
    }

    /// Puts the telemetry keys of a session into the indexes, as its token is now.
    pub(super) fn reindex(&mut self, session: SessionId) {
        self.live.remove(session);
        self.historical.remove(session);
        let left = self.throttles.remove(session);
        self.index(session);
        self.throttles.end_empty(&left);
    }

    fn index(&mut self, session: SessionId) {
        let Some(subscriber) = self.subscribers.get(&session) else {
            return;
        };
        let telemetry = &subscriber.telemetry;
        let mut ways = (&mut self.live, &mut self.historical, &mut self.throttles);
        if let Some(seen) = subscriber.sight.narrowed_to() {
            // Under a narrow token "all devices" is a list of devices, and a device that is not
            // there yet is judged when it appears.
            for device in seen {
                if let Some(subscription) = telemetry.for_device(*device) {
                    let target = subscriber.target(session, subscription, None);
                    place(&mut ways, Some(*device), target, subscription);
                }
            }
            return;
        }
        let mut own: Vec<DeviceId> = telemetry.keys().into_iter().flatten().collect();
        own.sort();
        let own: Option<Arc<[DeviceId]>> = (!own.is_empty()).then(|| own.into());
        for (key, subscription) in telemetry.iter() {
            let target = subscriber.target(session, subscription, own.clone());
            place(&mut ways, key, target, subscription);
        }
    }

    /// Shows a device that has just come into being to those whose narrow token sees it.
    pub fn device_added(&mut self, device: &Device) {
        let id = device.id();
        for (session, subscriber) in &mut self.subscribers {
            subscriber.sight.appeared(device);
            let narrow = subscriber.sight.narrowed_to().is_some();
            if narrow
                && subscriber.may_see(device)
                && let Some(subscription) = subscriber.telemetry.for_device(id)
            {
                let target = subscriber.target(*session, subscription, None);
                let mut ways = (&mut self.live, &mut self.historical, &mut self.throttles);
                place(&mut ways, Some(id), target, subscription);
            }
        }
    }
}

impl Subscriber {
    fn has(&self, channel: Channel, key: Key) -> bool {
        match channel {
            Channel::Telemetry => self.telemetry.has(key),
            Channel::Alerts => self.alerts.has(key),
            Channel::Devices => self.status.has(key),
            Channel::System => self.system.is_some(),
        }
    }

    /// Lists the keys of the endpoint that end when this is subscribed to.
    fn ends_by(&self, request: &Subscribe) -> Vec<Key> {
        let wanted = keys_of(request.filters.device_id.as_deref());
        let ends = |key: &Key| self.has(request.channel, *key) && !wanted.contains(key);
        self.endpoint.iter().copied().filter(ends).collect()
    }

    /// Tells whether a device may be subscribed to, be it there or not.
    pub(super) fn may_ask_for(&self, id: DeviceId, state: &State) -> bool {
        match state.device(id) {
            Some(device) => self.may_see(device),
            None => self.sight.may_come(id),
        }
    }

    fn target(
        &self,
        session: SessionId,
        subscription: &TelemetrySubscription,
        own: Option<Arc<[DeviceId]>>,
    ) -> Target {
        let TelemetrySubscription { projection, packing, .. } = *subscription;
        Target { session, projection, packing, outbox: Arc::clone(&self.outbox), own }
    }
}

/// Returns the keys of a request: its devices, or "all devices".
pub(super) fn keys_of(devices: Option<&[DeviceId]>) -> Vec<Key> {
    devices.map_or_else(|| vec![None], |devices| devices.iter().copied().map(Some).collect())
}

/// Puts a target where its subscription belongs.
fn place(
    (live, historical, throttles): &mut (&mut Index, &mut Index, &mut Throttles),
    key: Key,
    target: Target,
    subscription: &TelemetrySubscription,
) {
    if subscription.historical {
        historical.insert(key, target.clone());
    }
    match subscription.frequency {
        Frequency::RealTime => live.insert(key, target),
        Frequency::Period(period) => throttles.insert(key, target, period),
    }
}
