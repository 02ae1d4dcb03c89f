//! CRC-32C (Castagnoli): finds every single flipped bit, and bursts up to 32 bits.

const TABLE: [u32; 256] = table();

#[expect(clippy::indexing_slicing, reason = "computed while compiling")]
const fn table() -> [u32; 256] {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = if rest & 1 == 1 { (rest >> 1) ^ REVERSED_POLYNOMIAL } else { rest >> 1 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
}

/// Returns the sum over several parts as if they stood in a row.
pub(super) fn sum(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(u32::MAX, |rest, byte| {
        let entry = TABLE.get(usize::from(rest as u8 ^ byte)).copied().unwrap_or_default();
        entry ^ (rest >> 8)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(super::sum(&[b"1234", b"56789"]), 0xe306_9283);
    }
}
