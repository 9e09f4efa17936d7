//! Finding the next byte that matters, eight bytes at a time, and the byte classes of RFC 9110.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Whether a byte may stand in a name or a method.
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether these bytes are a field name.
pub fn valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token(*byte))
}

/// Whether these bytes may be a field value: no control character but HTAB, no DEL.
pub fn valid_value(value: &[u8]) -> bool {
    value_end(value, 0).is_none()
}

/// The first byte at or after `from` that ends a value: a control character except HTAB, or DEL.
#[inline]
pub(super) fn value_end(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let found = first(
            bytes,
            from,
            |word| below(word, 0x20) | equal(word, 0x7f),
            |byte| byte < 0x20 || byte == 0x7f,
        )?;
        if bytes[found] != b'\t' {
            return Some(found);
        }
        from = found + 1;
    }
}

/// The first byte at or after `from` that cannot stand in a target: a space, a control character, or DEL.
#[inline]
pub(super) fn target_end(bytes: &[u8], from: usize) -> Option<usize> {
    first(
        bytes,
        from,
        |word| below(word, 0x21) | equal(word, 0x7f),
        |byte| byte < 0x21 || byte == 0x7f,
    )
}

/// The first colon at or after `from`.
#[inline]
pub(super) fn colon(bytes: &[u8], from: usize) -> Option<usize> {
    first(bytes, from, |word| equal(word, b':'), |byte| byte == b':')
}

/// The first byte for which `mark` has set the high bit of its place in the word; `is_it` says the same of one byte.
#[inline(always)]
fn first(
    bytes: &[u8],
    from: usize,
    mark: impl Fn(u64) -> u64,
    is_it: impl Fn(u8) -> bool,
) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = mark(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(from + index * 8 + (marks.trailing_zeros() / 8) as usize);
        }
    }
    let tail_start = bytes.len() - tail.len();
    tail.iter()
        .position(|byte| is_it(*byte))
        .map(|index| tail_start + index)
}

/// High bits where a byte is below `limit` (at most 0x80). Borrows may set bits above a true one, so only the lowest
/// counts.
#[inline(always)]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH_BITS
}

/// High bits where a byte is `wanted`; as with [`below`], only the lowest counts.
#[inline(always)]
fn equal(word: u64, wanted: u8) -> u64 {
    below(word ^ (ONES * u64::from(wanted)), 1)
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_found_or_passed_at_every_offset() {
        for byte in 0..=255u8 {
            for offset in 0..20 {
                let mut bytes = [b'a'; 24];
                bytes[offset] = byte;
                let ends_value = (byte < 0x20 && byte != b'\t') || byte == 0x7f;
                assert_eq!(value_end(&bytes, 0), ends_value.then_some(offset), "{byte}");
                let ends_target = byte <= 0x20 || byte == 0x7f;
                assert_eq!(target_end(&bytes, 0), ends_target.then_some(offset));
                assert_eq!(colon(&bytes, 0), (byte == b':').then_some(offset));
            }
        }
    }

    #[test]
    fn the_first_of_several_counts_also_beside_bytes_that_borrow() {
        assert_eq!(value_end(b"\x80\x1f\x20\x00\x7f\x21ab", 0), Some(1));
        assert_eq!(value_end(b"ab\t\t\t\tcd\r\n", 0), Some(8));
        assert_eq!(colon(b"\x3b\x3a\x3b\x3aabcd", 0), Some(1));
        assert_eq!(value_end(b"abc", 7), None);
    }
}
