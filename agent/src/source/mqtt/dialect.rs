//! What is spoken over a broker.

use rumqttc::{LastWill, Publish};
use valtronics_protocol::time::UnixMillis;

use crate::source::{
    messages::{Messages, Taken},
    outlet::Outlet,
    sparkplug::Host,
};

/// Who reads the messages of a connection.
#[derive(Debug)]
pub(in crate::source) enum Dialect {
    /// Topics of templates, announcements and presets.
    Described(Box<Messages>),
    /// Sparkplug B.
    Sparkplug(Box<Host>),
}

impl Dialect {
    /// Returns what the broker is to say when the connection breaks.
    pub(super) fn last_will(&mut self, now: UnixMillis) -> Option<LastWill> {
        match self {
            Self::Described(_) => None,
            Self::Sparkplug(host) => host.last_will(now),
        }
    }

    /// Returns what is subscribed to on a new connection.
    pub(super) fn filters(&self) -> Vec<String> {
        match self {
            Self::Described(messages) => messages.filters().collect(),
            Self::Sparkplug(host) => host.filters(),
        }
    }

    /// Returns what is said on a new connection.
    pub(super) fn greeting(&mut self, now: UnixMillis) -> Vec<Publish> {
        match self {
            Self::Described(_) => Vec::new(),
            Self::Sparkplug(host) => host.greeting(now),
        }
    }

    /// Reads one message; what is wrong with it is counted and said.
    pub(super) fn take(
        &mut self,
        publish: &Publish,
        now: UnixMillis,
        outlet: &mut Outlet,
    ) -> Taken {
        match self {
            Self::Described(messages) => messages.take(publish, now, outlet),
            Self::Sparkplug(host) => host.take(publish, now, outlet),
        }
    }

    /// Returns what is said before the end.
    pub(super) fn goodbye(&self) -> Option<Publish> {
        match self {
            Self::Described(_) => None,
            Self::Sparkplug(host) => host.goodbye(),
        }
    }

    /// Notes that the connection is gone.
    pub(super) fn disconnected(&mut self) {
        match self {
            Self::Described(messages) => messages.disconnected(),
            Self::Sparkplug(host) => host.disconnected(),
        }
    }
}
