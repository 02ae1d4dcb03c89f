//! What a token allows: scopes, and of which devices.

use std::sync::Arc;

use serde_json::Value as Json;
use valtronics_protocol::{
    error::TokenFault, filter::Channel, id::DeviceId, reading::MAX_NAME_BYTES,
};

use crate::domain::pattern::NamePattern;

/// The most entries of `devices` in a token: what fits 8 KiB.
const MAX_GRANTS: usize = 4096;

/// The most patterns of them: a token with more is refused. Ids are found at once, but each pattern
/// is tried on every device when a token comes, and 64 name more groups than a person keeps apart.
const MAX_PATTERNS: usize = 64;

/// What a scope allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Read readings.
    TelemetryRead,
    /// Read alerts and rules.
    AlertsRead,
    /// Change alerts and rules.
    AlertsWrite,
    /// Read devices.
    DevicesRead,
    /// Change devices.
    DevicesWrite,
    /// Read the server's state.
    SystemRead,
    /// Send readings.
    Uplink,
    /// Everything but send readings.
    Admin,
}

impl Scope {
    const ALL: [Self; 8] = [
        Self::TelemetryRead,
        Self::AlertsRead,
        Self::AlertsWrite,
        Self::DevicesRead,
        Self::DevicesWrite,
        Self::SystemRead,
        Self::Uplink,
        Self::Admin,
    ];

    /// Returns the name in a token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TelemetryRead => "telemetry:read",
            Self::AlertsRead => "alerts:read",
            Self::AlertsWrite => "alerts:write",
            Self::DevicesRead => "devices:read",
            Self::DevicesWrite => "devices:write",
            Self::SystemRead => "system:read",
            Self::Uplink => "uplink",
            Self::Admin => "admin",
        }
    }
}

/// The scopes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// What a token without `scope` may: read everything.
    #[must_use]
    pub fn reading() -> Self {
        let reading =
            [Scope::TelemetryRead, Scope::AlertsRead, Scope::DevicesRead, Scope::SystemRead];
        Self(reading.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }

    /// Reads names separated by spaces (RFC 6749, section 3.3); what is not known allows nothing.
    pub(super) fn parse(text: &str) -> Self {
        let known = |name: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
        Self(text.split(' ').filter_map(known).fold(0, |bits, scope| bits | 1 << scope as u8))
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Tells whether a scope is allowed; `admin` is everything but `uplink`.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.has(scope) || (self.has(Scope::Admin) && scope != Scope::Uplink)
    }

    /// Tells whether a channel may be read.
    #[must_use]
    pub fn may_read(self, channel: Channel) -> bool {
        self.contains(match channel {
            Channel::Telemetry => Scope::TelemetryRead,
            Channel::Alerts => Scope::AlertsRead,
            Channel::Devices => Scope::DevicesRead,
            Channel::System => Scope::SystemRead,
        })
    }

    /// Returns what the token came to, as names.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let had = Scope::ALL.into_iter().filter(|scope| self.contains(*scope));
        had.map(Scope::as_str).collect()
    }
}

/// The devices of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceGrant {
    /// All of them.
    All,
    /// These ids, and those whose name or key one of these patterns covers.
    Only {
        /// Ids, sorted.
        ids: Arc<[DeviceId]>,
        /// Patterns.
        patterns: Arc<[NamePattern]>,
    },
}

impl DeviceGrant {
    /// Tells whether every device is allowed.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Tells whether a device is allowed.
    #[must_use]
    pub fn allows(&self, id: DeviceId, name: &str, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only { ids, patterns } => {
                ids.binary_search(&id).is_ok()
                    || patterns.iter().any(|pattern| pattern.covers(name, key))
            }
        }
    }

    /// Tells whether a device may be brought into being: under ids none, which is not known yet.
    #[must_use]
    pub fn allows_new(&self, name: &str, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only { patterns, .. } => patterns.iter().any(|pattern| pattern.covers(name, key)),
        }
    }

    /// Tells whether a device that does not exist yet may be asked for: under ids only those, under
    /// patterns any, to be judged when it appears.
    #[must_use]
    pub fn knows_id(&self, id: DeviceId) -> bool {
        match self {
            Self::All => true,
            Self::Only { ids, patterns } => !patterns.is_empty() || ids.binary_search(&id).is_ok(),
        }
    }
}

/// Reads the claim `devices`.
pub(super) fn read_grant(devices: Option<&Json>) -> Result<DeviceGrant, TokenFault> {
    let entries = match devices {
        None => return Ok(DeviceGrant::All),
        Some(Json::Array(entries)) if entries.len() <= MAX_GRANTS => entries,
        Some(_) => return Err(TokenFault::Claims),
    };
    let (mut ids, mut patterns) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Json::Number(id) => ids.push(DeviceId(id.as_u64().ok_or(TokenFault::Claims)?)),
            Json::String(text) if !text.is_empty() && text.len() <= 2 * MAX_NAME_BYTES => {
                patterns.push(NamePattern::new(text));
            }
            _ => return Err(TokenFault::Claims),
        }
    }
    if patterns.len() > MAX_PATTERNS {
        return Err(TokenFault::Claims);
    }
    ids.sort();
    Ok(DeviceGrant::Only { ids: ids.into(), patterns: patterns.into() })
}
