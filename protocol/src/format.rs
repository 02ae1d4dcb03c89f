//! How the messages of a subscriber's connection are written: chosen by its subprotocol.

/// A way to write messages; what they say is the same in each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// JSON in text frames.
    #[default]
    Json,
    /// CBOR in binary frames.
    Cbor,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Json, Self::Cbor];

    /// Returns the subprotocol that chooses it; none at all chooses JSON.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "valtronics.v1.json",
            Self::Cbor => "valtronics.v1.cbor",
        }
    }

    /// Finds the format of a subprotocol.
    #[must_use]
    pub fn of_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.subprotocol() == name)
    }
}
