//! Subscribing, unsubscribing, and what a new token changes.

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
    auth::Claims,
    message::Packing,
    state::{Device, EventLog, State},
};

impl Hub {
    /// Takes over a new token of a connection, and ends what it may not see any more.
    pub fn regrant(&mut self, session: SessionId, claims: &Claims, state: &State) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        subscriber.scopes = claims.scopes;
        subscriber.devices = claims.devices.clone();
        for channel in Channel::ALL {
            self.end_forbidden(session, channel, state);
        }
        if let Some(subscriber) = self.subscribers.get(&session) {
            let reads = subscriber.scopes.may_read(Channel::Telemetry);
            let may_see = |id| state.device(id).is_some_and(|device| subscriber.may_see(device));
            subscriber.outbox.keep_telemetry(|id| reads && may_see(id));
            subscriber.outbox.note_subscriptions(subscriber.keys());
            subscriber.outbox.done();
        }
    }

    fn end_forbidden(&mut self, session: SessionId, channel: Channel, state: &State) {
        let Some(subscriber) = self.subscribers.get(&session) else {
            return;
        };
        let in_scope = subscriber.scopes.may_read(channel);
        let keys = match channel {
            Channel::Telemetry => subscriber.telemetry.keys(),
            Channel::Alerts => subscriber.alerts.keys(),
            Channel::Devices => subscriber.status.keys(),
            Channel::System => subscriber.system.iter().map(|_| None).collect(),
        };
        let may_see = |id: DeviceId| match state.device(id) {
            Some(device) => subscriber.may_see(device),
            None => subscriber.devices.knows_id(id),
        };
        let gone: Vec<Key> =
            keys.into_iter().filter(|key| !in_scope || !key.is_none_or(may_see)).collect();
        for key in gone {
            let failure = Failure {
                channel: Some(channel.as_str().to_owned()),
                ..Failure::new(
                    ErrorCode::Forbidden,
                    "the new token does not allow this subscription any more: it has ended",
                )
            };
            let filters = Filters { device_id: key.map(|id| vec![id]), ..Filters::default() };
            let response = SubscribeResponse {
                filters: Some(filters),
                failure: Some(failure),
                ..SubscribeResponse::default()
            };
            self.remove(session, channel, Some(&[key]));
            if let Some(subscriber) = self.subscribers.get(&session) {
                subscriber.outbox.push(&Response::SubscribeResponse(response));
            }
        }
        // What stays may be narrower now: the index is made anew from the grant.
        self.reindex(session, state);
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
        if let Some(failure) = self.refusal(subscriber, &request, state) {
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
            Channel::Telemetry => self.subscribe_telemetry(session, &filters, &options, state),
            Channel::Alerts | Channel::Devices => {
                let since = options.since.filter(|_| resumed);
                self.subscribe_events(session, channel, filters, &options, since, (state, now));
            }
            Channel::System => self.subscribe_system(session, &filters, &options, now),
        }
        if let Some(subscriber) = self.subscribers.get(&session) {
            subscriber.outbox.note_subscriptions(subscriber.keys());
        }
        self.pump(session, state, now);
    }

    /// Says why a `subscribe` cannot be done, if so.
    fn refusal(
        &self,
        subscriber: &Subscriber,
        request: &Subscribe,
        state: &State,
    ) -> Option<Failure> {
        let channel = request.channel;
        if !subscriber.scopes.may_read(channel) {
            let why = format!("the token has no scope {channel}:read: get one that has");
            return Some(Failure::new(ErrorCode::Forbidden, why));
        }
        let wanted = request.filters.device_id.as_deref().unwrap_or_default();
        let forbidden = wanted.iter().find(|id| match state.device(**id) {
            Some(device) => !subscriber.may_see(device),
            None => !subscriber.devices.knows_id(**id),
        });
        if let Some(id) = forbidden {
            let why = format!("the token does not allow device {id}");
            return Some(Failure::new(ErrorCode::Forbidden, why));
        }
        let known = |key: Key| match channel {
            Channel::Telemetry => subscriber.telemetry.has(key),
            Channel::Alerts => subscriber.alerts.has(key),
            Channel::Devices => subscriber.status.has(key),
            Channel::System => subscriber.system.is_some(),
        };
        let keys = keys_of(request.filters.device_id.as_deref());
        let new = keys.into_iter().filter(|key| !known(*key)).count();
        let most = self.limits.subscriptions;
        if new > 0 && subscriber.keys() + new > most {
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

    fn subscribe_telemetry(
        &mut self,
        session: SessionId,
        filters: &Filters,
        options: &Options,
        state: &State,
    ) {
        let Some(subscriber) = self.subscribers.get(&session) else {
            return;
        };
        let format = subscriber.outbox.format();
        let keys = keys_of(filters.device_id.as_deref());
        self.remove_telemetry(session, Some(&keys));
        for key in keys {
            let subscription = TelemetrySubscription {
                projection: self.projections.acquire(filters.metric_patterns(), format),
                frequency: filters.frequency(),
                historical: options.historical,
                packing: Packing::of(options),
            };
            if let Some(subscriber) = self.subscribers.get_mut(&session) {
                subscriber.telemetry.insert(key, subscription);
            }
        }
        self.reindex(session, state);
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
        state: &State,
    ) {
        let keys = request.devices.as_deref().map(|devices| keys_of(Some(devices)));
        self.remove(session, request.channel, keys.as_deref());
        if request.channel == Channel::Telemetry {
            self.reindex(session, state);
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
    fn remove(&mut self, session: SessionId, channel: Channel, keys: Option<&[Key]>) {
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

    /// Removes these telemetry keys, or all; who keeps some is to be indexed again.
    pub(super) fn remove_telemetry(&mut self, session: SessionId, keys: Option<&[Key]>) {
        self.unindex(session);
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        for subscription in subscriber.telemetry.remove(keys) {
            self.projections.release(subscription.projection);
        }
        subscriber.backlog.forget_snapshot(keys);
    }

    fn unindex(&mut self, session: SessionId) {
        self.live.remove(session);
        self.historical.remove(session);
        let Some(subscriber) = self.subscribers.get(&session) else {
            return;
        };
        for (_, subscription) in subscriber.telemetry.iter() {
            if let Frequency::Period(period) = subscription.frequency {
                self.throttles.remove(session, subscription.projection, period);
            }
        }
    }

    /// Puts the telemetry keys of a session into the indexes, as its token is now.
    fn reindex(&mut self, session: SessionId, state: &State) {
        self.unindex(session);
        let Some(subscriber) = self.subscribers.get(&session) else {
            return;
        };
        let mut own: Vec<DeviceId> = subscriber.telemetry.keys().into_iter().flatten().collect();
        own.sort();
        let own: Option<Arc<[DeviceId]>> = (!own.is_empty()).then(|| own.into());
        for (key, subscription) in subscriber.telemetry.iter() {
            let keys: Vec<Key> = match key {
                // Under a narrow token "all devices" is a list of devices.
                None if !subscriber.devices.is_all() => state
                    .devices()
                    .iter()
                    .filter(|device| subscriber.may_see(device))
                    .map(|device| Some(device.id()))
                    .filter(|key| !subscriber.telemetry.has(*key))
                    .collect(),
                key => vec![key],
            };
            for key in keys {
                let target = subscriber.target(session, subscription, own.clone());
                let ways = (&mut self.live, &mut self.historical, &mut self.throttles);
                index(ways, key, target, subscription);
            }
        }
    }

    /// Shows a device that has just come into being to those whose narrow token sees it.
    pub fn device_added(&mut self, device: &Device) {
        let key = Some(device.id());
        for (session, subscriber) in &self.subscribers {
            let narrow = !subscriber.devices.is_all() && !subscriber.telemetry.has(key);
            let Some(all) = subscriber.telemetry.get(None).filter(|_| narrow) else {
                continue;
            };
            if subscriber.may_see(device) {
                let target = subscriber.target(*session, all, None);
                let ways = (&mut self.live, &mut self.historical, &mut self.throttles);
                index(ways, key, target, all);
            }
        }
    }
}

impl Subscriber {
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
fn index(
    (live, historical, throttles): (&mut Index, &mut Index, &mut Throttles),
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
