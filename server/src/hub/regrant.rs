//! What a new token of a connection changes.

use valtronics_protocol::{
    error::ErrorCode,
    filter::{Channel, Filters},
    id::DeviceId,
    response::{Failure, Response, SubscribeResponse},
};

use super::{Hub, SessionId, sight::Sight, subscription::Key};
use crate::{auth::Claims, state::State};

impl Hub {
    /// Takes over a new token of a connection, and ends what it may not see any more.
    pub fn regrant(&mut self, session: SessionId, claims: &Claims, state: &State) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        subscriber.scopes = claims.scopes;
        let changed = *subscriber.sight.grant() != claims.devices;
        if changed {
            subscriber.sight = Sight::new(claims.devices.clone(), state);
        }
        let before = subscriber.telemetry.len();
        for channel in Channel::ALL {
            self.end_forbidden(session, channel, state);
        }
        let left = self.subscribers.get(&session).map(|subscriber| subscriber.telemetry.len());
        if changed || left != Some(before) {
            self.reindex(session);
        }
        if let Some(subscriber) = self.subscribers.get(&session) {
            let reads = subscriber.scopes.may_read(Channel::Telemetry);
            subscriber.outbox.keep_telemetry(|id| reads && subscriber.sight.sees(id));
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
        let may_see = |id: DeviceId| subscriber.may_ask_for(id, state);
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
    }
}
