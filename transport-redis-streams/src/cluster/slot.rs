//! Slots: what a Redis Cluster divides its keys by.

/// How many there are.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of a key: by the part of it between the first `{` and the next `}`, unless that is
/// empty, or by all of it.
pub(crate) fn slot_of(key: &str) -> u16 {
    let key = key.as_bytes();
    let tag = |open: usize| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then_some(&rest[..close])
    };
    let open = key.iter().position(|byte| *byte == b'{');
    crc16(open.and_then(tag).unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let index = (crc >> 8) ^ u16::from(*byte);
        (crc << 8) ^ TABLE[usize::from(index)]
    })
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index: u16 = 0;
    while index < 256 {
        let mut crc = index << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = match crc & 0x8000 {
                0 => crc << 1,
                _ => (crc << 1) ^ 0x1021,
            };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn the_tag_alone_decides_where_there_is_one() {
        // What `CLUSTER KEYSLOT` of a Redis 7.0 answers.
        for (key, slot) in [
            ("", 0),
            ("foo", 12_182),
            ("{foo}", 12_182),
            ("{foo}-events", 12_182),
            ("dlq.{foo}.{bar}", 12_182),
            ("bar", 5_061),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("{bar", 4_015),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }
}
