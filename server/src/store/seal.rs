//! Blobs that tell when they are damaged, and blobs that are made of parts.

/// Closes a blob with its checksum (CRC-32).
pub(super) fn seal(mut body: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&body);
    body.extend(sum.to_le_bytes());
    body
}

/// Returns what was sealed, unless it is damaged.
pub(super) fn open(blob: &[u8]) -> Option<&[u8]> {
    let (body, sum) = blob.split_last_chunk()?;
    (crc32fast::hash(body) == u32::from_le_bytes(*sum)).then_some(body)
}

/// Joins parts, each after its length.
pub(super) fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        let length = u32::try_from(part.len()).expect("a row of SQLite is smaller");
        bytes.extend(length.to_le_bytes());
        bytes.extend(part);
    }
    bytes
}

/// Takes the next part of what was joined.
pub(super) fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(part)
}
