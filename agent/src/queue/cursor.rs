//! How far things have come, in two checksummed slots that are written in turn: a torn write costs
//! the newer one, and the older one says less but nothing wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{crc, disk::Disk};

/// A slot is a block of its own, so that writing one cannot tear the other.
const SLOT: u64 = 4096;
/// The last byte is the version; a higher one is set aside.
const MAGIC: &[u8; 8] = b"VALTCUR\x01";
const LENGTH: usize = 84;

/// What is written down; pairs are the lane of readings and that of status events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) queue: u128,
    /// Numbers up to here may have been given.
    pub(super) reserved: [u64; 2],
    /// The server has committed everything up to here.
    pub(super) released: [u64; 2],
    /// The logs held everything below this: what is missing has been lost.
    pub(super) end: [u64; 2],
}

impl Cursor {
    fn bytes(&self, generation: u64) -> Vec<u8> {
        let mut slot = Vec::with_capacity(LENGTH);
        slot.extend(MAGIC);
        slot.extend(generation.to_le_bytes());
        slot.extend(self.queue.to_le_bytes());
        for number in [self.reserved, self.released, self.end].as_flattened() {
            slot.extend(number.to_le_bytes());
        }
        slot.extend(crc::sum(&[&slot]).to_le_bytes());
        slot
    }

    fn read(slot: &[u8]) -> Option<(u64, Self)> {
        let (content, sum) = slot.get(..LENGTH)?.split_last_chunk()?;
        if crc::sum(&[content]) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (generation, rest) = content.strip_prefix(MAGIC)?.split_first_chunk()?;
        let (queue, rest) = rest.split_first_chunk()?;
        let (numbers, _) = rest.as_chunks();
        let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let [reserved, released, end] = numbers.as_chunks().0 else { return None };
        let (reserved, released, end) = (*reserved, *released, *end);
        let queue = u128::from_le_bytes(*queue);
        Some((u64::from_le_bytes(*generation), Self { queue, reserved, released, end }))
    }
}

/// The file that holds them.
#[derive(Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
    generation: u64,
    /// What the disk has for sure.
    pub(super) durable: Option<Cursor>,
}

impl CursorFile {
    /// Reads the newest slot that is whole.
    pub(super) fn open(disk: &Disk, path: PathBuf) -> Self {
        let file = disk.read(&path).unwrap_or_default();
        let version = file.strip_prefix(b"VALTCUR").and_then(<[u8]>::first);
        if version > MAGIC.last() {
            // Where that fails it is written over, like one that is damaged.
            let _ = disk.rename(&path, &path.with_extension("newer"));
        }
        let slot = |at: u64| file.get(usize::try_from(at).ok()?..).and_then(Cursor::read);
        let newest = [slot(0), slot(SLOT)].into_iter().flatten().max_by_key(|(at, _)| *at);
        let (generation, durable) = newest.unzip();
        Self { path, generation: generation.unwrap_or(0), durable }
    }

    /// Writes into the older slot.
    pub(super) fn write(&mut self, disk: &Disk, cursor: Cursor) -> io::Result<()> {
        let generation = self.generation + 1;
        let is_new = disk.size(&self.path).is_err();
        let file = disk.open(&self.path)?;
        if is_new {
            file.write_at(&[0; 2 * SLOT as usize], 0)?;
            disk.sync_folder(self.folder())?;
        }
        file.write_at(&cursor.bytes(generation), generation % 2 * SLOT)?;
        file.sync()?;
        self.generation = generation;
        self.durable = Some(cursor);
        Ok(())
    }

    /// Writes into both slots, for what must not be forgotten with one of them.
    pub(super) fn write_both(&mut self, disk: &Disk, cursor: Cursor) -> io::Result<()> {
        self.write(disk, cursor)?;
        self.write(disk, cursor)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}
