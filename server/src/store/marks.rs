//! Marks as a blob beside their readings: 16 bytes a run, sealed; no blob where nothing is marked.

use valtronics_protocol::time::UnixMillis;

use super::seal;
use crate::commit::{Mark, Marks, Run};

/// What stands in the place of a moment where there is none.
const HISTORICAL: i64 = i64::MIN;

/// Writes marks.
pub(super) fn encode(marks: &Marks) -> Option<Vec<u8>> {
    let count = |count: usize| u32::try_from(count).expect("a commit has fewer readings");
    let mut blob = Vec::new();
    for Run { places, mark } in marks.runs() {
        let latest = match mark {
            Mark::Historical => HISTORICAL,
            Mark::Until(latest) => latest.0,
        };
        blob.extend(count(places.start).to_le_bytes());
        blob.extend(count(places.len()).to_le_bytes());
        blob.extend(latest.to_le_bytes());
    }
    (!blob.is_empty()).then(|| seal::seal(blob))
}

/// Reads marks, unless they are damaged.
pub(super) fn decode(blob: Option<&[u8]>) -> Option<Marks> {
    let Some(blob) = blob else { return Some(Marks::default()) };
    let (runs, rest) = seal::open(blob)?.as_chunks::<16>();
    rest.is_empty().then(|| runs.iter().map(run).collect())
}

fn run(bytes: &[u8; 16]) -> Run {
    let number = u128::from_le_bytes(*bytes);
    let (start, count) = (number as u32 as usize, (number >> 32) as u32 as usize);
    let mark = match (number >> 64) as u64 as i64 {
        HISTORICAL => Mark::Historical,
        latest => Mark::Until(UnixMillis(latest)),
    };
    Run { places: start..start + count, mark }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back() {
        let mut marks = Marks::default();
        assert_eq!((encode(&marks), decode(None)), (None, Some(marks.clone())));
        let until = |at| Mark::Until(UnixMillis(at));
        for (place, mark) in [
            (0, Mark::Historical),
            (1, Mark::Historical),
            (2, until(-7)),
            (9, until(i64::MAX)),
            (100_000, Mark::Historical),
        ] {
            marks.push(place, Some(mark));
        }
        let blob = encode(&marks).unwrap();
        assert_eq!(blob.len(), 4 * 16 + 4);
        assert_eq!(decode(Some(&blob)), Some(marks));
        assert_eq!(decode(Some(&blob[1..])), None);
    }
}
