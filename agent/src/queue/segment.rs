//! One file of a log: a header, then records; plain bytes in and out.
//!
//! ```text
//! header  magic 8 | version 4 | queue id 16 | first 8 | before 8 | salt 8 | crc 4     twice
//! record  length 4 | count 4 | received 8 | crc 4 | payload
//! ```
//!
//! Numbers are little-endian. A record's sum covers the salt, its number and all else, so that only
//! a record of this file at its place in the numbering is one: what the file held before it was
//! recycled is none, and neither is a torn one. Numbers follow each other inside a file; `before`
//! is where the numbering stood when the file began, so that a loss before it shows.

use valtronics_protocol::time::UnixMillis;

use super::crc;

/// The version of this format; a higher one is set aside, never deleted.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"VALTQUE\0";
const HEADER: usize = 52;
/// Where the second header stands; one flipped bit costs a header, not a file.
const SECOND: usize = 64;
/// Where the records begin.
pub(super) const RECORDS: usize = 128;
/// What stands before a record's payload.
pub(super) const RECORD: usize = 20;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) queue: u128,
    /// The number of the first record's first item.
    pub(super) first: u64,
    /// The first number that was not in the log when this file began; at most `first`.
    pub(super) before: u64,
    pub(super) salt: u64,
}

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("its header is damaged")]
    Damaged,
    #[error("a newer version has written it")]
    Newer,
}

impl Header {
    /// Returns both copies, as they stand before the records.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(RECORDS);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend(self.queue.to_le_bytes());
        header.extend(self.first.to_le_bytes());
        header.extend(self.before.to_le_bytes());
        header.extend(self.salt.to_le_bytes());
        header.extend(crc::sum(&[&header]).to_le_bytes());
        header.resize(SECOND, 0);
        header.extend_from_within(..);
        header
    }

    /// Reads whichever copy is whole.
    pub(super) fn read(file: &[u8]) -> Result<Self, Unreadable> {
        let copy = |at: usize| file.get(at..).and_then(Self::copy);
        if let Some(header) = copy(0).or_else(|| copy(SECOND)) {
            return Ok(header);
        }
        let is_newer = |at: usize| {
            let file = file.get(at..)?.strip_prefix(MAGIC)?;
            take::<4>(file).map(|(version, _)| u32::from_le_bytes(version) > VERSION)
        };
        match is_newer(0).is_some_and(|newer| newer) && is_newer(SECOND) != Some(false) {
            true => Err(Unreadable::Newer),
            false => Err(Unreadable::Damaged),
        }
    }

    fn copy(file: &[u8]) -> Option<Self> {
        let (header, rest) = file.split_at_checked(HEADER)?;
        let (sum, _) = take(rest)?;
        if crc::sum(&[header]) != u32::from_le_bytes(sum) {
            return None;
        }
        let (version, rest) = take(header.strip_prefix(MAGIC)?)?;
        if u32::from_le_bytes(version) != VERSION {
            return None;
        }
        let (queue, rest) = take(rest)?;
        let (first, rest) = take(rest)?;
        let (before, rest) = take(rest)?;
        let (salt, _) = take(rest)?;
        Some(Self {
            queue: u128::from_le_bytes(queue),
            first: u64::from_le_bytes(first),
            before: u64::from_le_bytes(before),
            salt: u64::from_le_bytes(salt),
        })
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk().map(|(taken, rest)| (*taken, rest))
}

/// Items that are numbered on from `first`, as they stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) first: u64,
    pub(super) count: u32,
    /// When the first of them came in.
    pub(super) received: UnixMillis,
    pub(super) payload: &'a [u8],
}

impl Record<'_> {
    /// Appends the record to `bytes`.
    pub(super) fn write(&self, salt: u64, bytes: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).expect("a record fits its file");
        bytes.extend(length.to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.received.0.to_le_bytes());
        bytes.extend(self.sum(salt).to_le_bytes());
        bytes.extend(self.payload);
    }

    fn sum(&self, salt: u64) -> u32 {
        crc::sum(&[
            &salt.to_le_bytes(),
            &self.first.to_le_bytes(),
            &self.count.to_le_bytes(),
            &self.received.0.to_le_bytes(),
            self.payload,
        ])
    }
}

/// Reads a file's records, up to the first that is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Records {
    pub(super) salt: u64,
    /// Where the next record stands.
    pub(super) offset: usize,
    /// The number that it must have.
    pub(super) next: u64,
}

impl Records {
    pub(super) fn of(header: &Header) -> Self {
        Self { salt: header.salt, offset: RECORDS, next: header.first }
    }

    /// Returns the next record, and goes on behind it.
    pub(super) fn read<'a>(&mut self, file: &'a [u8]) -> Option<Record<'a>> {
        let (record, sum) = self.at(file)?;
        if record.sum(self.salt) != sum {
            return None;
        }
        self.skip(&record);
        Some(record)
    }

    /// Returns where the numbering ends if records follow behind one that is damaged.
    pub(super) fn end_beyond_damage(mut self, file: &[u8]) -> Option<u64> {
        let (damaged, _) = self.at(file)?;
        self.skip(&damaged);
        self.read(file)?;
        while self.read(file).is_some() {}
        Some(self.next)
    }

    fn skip(&mut self, record: &Record<'_>) {
        self.offset += RECORD + record.payload.len();
        self.next = record.first.saturating_add(u64::from(record.count));
    }

    /// What stands here, whether it is a record or not.
    fn at<'a>(&self, file: &'a [u8]) -> Option<(Record<'a>, u32)> {
        let (length, rest) = take(file.get(self.offset..)?)?;
        let (count, rest) = take(rest)?;
        let (received, rest) = take(rest)?;
        let (sum, rest) = take(rest)?;
        let payload = rest.get(..usize::try_from(u32::from_le_bytes(length)).ok()?)?;
        let record = Record {
            first: self.next,
            count: u32::from_le_bytes(count),
            received: UnixMillis(i64::from_le_bytes(received)),
            payload,
        };
        (record.count > 0).then_some((record, u32::from_le_bytes(sum)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { queue: 7, first: 10, before: 9, salt: 11 };

    fn file(records: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = HEADER.bytes();
        for (first, payload) in records {
            let record = Record { first: *first, count: 2, received: UnixMillis(5), payload };
            record.write(HEADER.salt, &mut file);
        }
        file.resize(512, 0);
        file
    }

    #[test]
    fn a_header_outlives_any_flipped_bit() {
        let whole = file(&[]);
        for bit in 0..RECORDS * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&damaged), Ok(HEADER), "bit {bit}");
        }
        let mut newer = whole;
        newer[8] = 2;
        newer[SECOND + 8] = 2;
        assert_eq!(Header::read(&newer), Err(Unreadable::Newer));
        assert_eq!(Header::read(&[0; 512]), Err(Unreadable::Damaged));
    }

    #[test]
    fn only_what_belongs_here_is_a_record() {
        let mut records = Records::of(&HEADER);
        let bytes = file(&[(10, b"one"), (12, b"two"), (15, b"jumps")]);
        assert_eq!(records.read(&bytes).unwrap().payload, b"one");
        assert_eq!(records.read(&bytes).unwrap().payload, b"two");
        assert_eq!((records.read(&bytes), records.next), (None, 14));
        let mut recycled = Records::of(&Header { salt: 12, ..HEADER });
        assert_eq!(recycled.read(&bytes), None);
    }

    #[test]
    fn a_loss_in_the_middle_is_told_from_a_torn_end() {
        let mut bytes = file(&[(10, b"one"), (12, b"two"), (14, b"three")]);
        bytes[RECORDS + RECORD] ^= 1;
        assert_eq!(Records::of(&HEADER).read(&bytes), None);
        assert_eq!(Records::of(&HEADER).end_beyond_damage(&bytes), Some(16));
        let mut torn = file(&[(10, b"one")]);
        torn[RECORDS + RECORD] ^= 1;
        assert_eq!(Records::of(&HEADER).end_beyond_damage(&torn), None);
    }
}
