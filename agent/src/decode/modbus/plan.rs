//! What is asked at once: registers that lie together, in blocks as large as a request may be.
//!
//! A device that refuses a block has a hole in it, or takes less at once: then the block is split at
//! its widest hole, or in the middle. A register that is refused alone leaves the plan.

use super::{Span, register::Register};

/// As many words between two registers are read along: that takes less time than a request of its
/// own, which is 13 bytes there and back and a pause.
const WORDS_BETWEEN: u16 = 16;
/// The same for bits.
const BITS_BETWEEN: u16 = 16 * WORDS_BETWEEN;

/// One request, and the registers that its answer holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// What is asked.
    pub span: Span,
    /// Ordered by address.
    pub registers: Vec<Register>,
    /// How often in a row it was not answered.
    pub misses: u32,
}

/// What came of splitting a block.
#[derive(Debug, PartialEq)]
pub enum Split {
    /// Smaller blocks stand in its place.
    Smaller,
    /// It held one register, which is left out from now on.
    Refused(Register),
}

/// The requests of one device.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In the order in which they are asked.
    pub blocks: Vec<Block>,
}

impl Plan {
    /// Puts registers into blocks.
    #[must_use]
    pub fn new(mut registers: Vec<Register>) -> Self {
        registers.sort_by_key(|register| (register.span.table, register.span.first));
        let mut blocks: Vec<Block> = Vec::new();
        for register in registers {
            match blocks.last_mut().and_then(|block| Some((joined(block, &register)?, block))) {
                Some((count, block)) => {
                    block.span.count = count;
                    block.registers.push(register);
                }
                None => {
                    blocks.push(Block { span: register.span, registers: vec![register], misses: 0 })
                }
            }
        }
        Self { blocks }
    }

    /// Takes a block apart that the device refused.
    pub fn split(&mut self, place: usize) -> Option<Split> {
        let mut block = (place < self.blocks.len()).then(|| self.blocks.remove(place))?;
        if block.registers.len() == 1 {
            return block.registers.pop().map(Split::Refused);
        }
        let rest = block.registers.split_off(weakest(&block.registers));
        for registers in [rest, block.registers] {
            if let Some(span) = around(&registers) {
                self.blocks.insert(place, Block { span, registers, misses: 0 });
            }
        }
        Some(Split::Smaller)
    }

    /// Takes registers in again that were refused, each as a block of its own.
    pub fn retry(&mut self, registers: impl IntoIterator<Item = Register>) {
        let block = |register: Register| Block {
            span: register.span,
            registers: vec![register],
            misses: 0,
        };
        self.blocks.extend(registers.into_iter().map(block));
    }
}

/// Returns how many items the block has when the register joins it.
fn joined(block: &Block, register: &Register) -> Option<u16> {
    let (known, new) = (block.span, register.span);
    let between = if known.table.is_bits() { BITS_BETWEEN } else { WORDS_BETWEEN };
    let end = end(known).max(end(new));
    let count = u16::try_from(end - u32::from(known.first)).ok()?;
    let near = u32::from(new.first) <= self::end(known) + u32::from(between);
    (known.table == new.table && near && count <= known.table.most()).then_some(count)
}

fn end(span: Span) -> u32 {
    u32::from(span.first) + u32::from(span.count)
}

/// Finds where a block is parted: before the register behind the widest hole, of equal ones that in
/// the middle.
fn weakest(registers: &[Register]) -> usize {
    let middle = registers.len() / 2;
    let hole = |(before, after): (&Register, &Register)| {
        u32::from(after.span.first).saturating_sub(end(before.span))
    };
    let holes = registers.iter().zip(registers.iter().skip(1)).map(hole);
    let places = holes.enumerate().map(|(before, hole)| (before + 1, hole));
    let widest = places.max_by_key(|(place, hole)| (*hole, usize::MAX - place.abs_diff(middle)));
    widest.map_or(middle, |(place, _)| place)
}

fn around(registers: &[Register]) -> Option<Span> {
    let first = registers.first()?.span;
    let end = registers.iter().map(|register| end(register.span)).max()?;
    Some(Span { count: u16::try_from(end - u32::from(first.first)).ok()?, ..first })
}

#[cfg(test)]
mod tests;
