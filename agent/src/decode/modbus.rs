//! Modbus, as its master: what is asked of a device, and what its answers mean.
//!
//! A [`register`] is one value of a device, as a configuration or a [`profile`] describes it, or as a
//! [`sunspec`] device says itself. A [`plan`] puts those that lie together into blocks; a [`frame`]
//! asks for a block and reads the answer, whose words become samples. Only the four functions that
//! read are known here: nothing is ever written to a device.

pub mod register;
pub mod profile;
pub mod sunspec;
pub mod plan;
pub mod frame;

/// The tables of a device (Modbus Application Protocol V1.1b3, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Bits that a master may switch.
    Coil,
    /// Bits of inputs.
    Discrete,
    /// Words of inputs.
    Input,
    /// Words that a master may set.
    Holding,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Coil, Self::Discrete, Self::Input, Self::Holding];

    /// Returns the name in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Input => "input",
            Self::Holding => "holding",
        }
    }

    /// Tells whether its items are bits, not words of 16 bits.
    #[must_use]
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// Returns the number of the function that reads it.
    #[must_use]
    pub fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// Returns the most items that one request may ask for (sections 6.1 to 6.4).
    #[must_use]
    pub fn most(self) -> u16 {
        if self.is_bits() { 2000 } else { 125 }
    }
}

/// Items that lie together in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub table: Table,
    /// The first item's address, as on the wire.
    pub first: u16,
    /// How many items.
    pub count: u16,
}

/// The items of a span as a device answered them: words, or bits as 0 and 1.
#[derive(Debug, Clone, Copy)]
pub struct Words<'w> {
    /// The first item's address.
    pub first: u16,
    /// The items.
    pub words: &'w [u16],
}

impl<'w> Words<'w> {
    /// Returns `count` items from `address` on, if all of them are here.
    #[must_use]
    pub fn at(&self, address: u16, count: u16) -> Option<&'w [u16]> {
        let begin = usize::from(address.checked_sub(self.first)?);
        self.words.get(begin..begin + usize::from(count))
    }
}
