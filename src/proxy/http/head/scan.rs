//! Finding the next byte that matters, sixteen bytes at a time, and the byte classes of RFC 9110.

/// Whether a byte may stand in a name or a method.
#[inline]
pub(in crate::proxy) fn is_token(byte: u8) -> bool {
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
#[inline(always)]
pub(in crate::proxy) fn value_end(bytes: &[u8], from: usize) -> Option<usize> {
    first(
        bytes,
        from,
        |block| {
            block
                .below(0x20)
                .without(block.equal(b'\t'))
                .or(block.equal(0x7f))
        },
        |byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f,
    )
}

/// The first byte at or after `from` that cannot stand in a target: a space, a control character, or DEL.
#[inline(always)]
pub(in crate::proxy) fn target_end(bytes: &[u8], from: usize) -> Option<usize> {
    first(
        bytes,
        from,
        |block| block.below(0x21).or(block.equal(0x7f)),
        |byte| byte < 0x21 || byte == 0x7f,
    )
}

/// The first byte at or after `from` that ends a target, a `?` or a `#`.
#[inline(always)]
pub(in crate::proxy) fn target_mark(bytes: &[u8], from: usize) -> Option<usize> {
    first(
        bytes,
        from,
        |block| {
            let ends = block.below(0x21).or(block.equal(0x7f));
            ends.or(block.equal(b'?')).or(block.equal(b'#'))
        },
        |byte| byte < 0x21 || matches!(byte, 0x7f | b'?' | b'#'),
    )
}

/// The first colon at or after `from`.
#[inline(always)]
pub(in crate::proxy) fn colon(bytes: &[u8], from: usize) -> Option<usize> {
    first(bytes, from, |block| block.equal(b':'), |byte| byte == b':')
}

/// The first byte that `mark` marks in its block; `is_it` says the same of one byte, for slices shorter than a block.
#[inline(always)]
fn first(
    bytes: &[u8],
    from: usize,
    mark: impl Fn(Block) -> Marks,
    is_it: impl Fn(u8) -> bool,
) -> Option<usize> {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        if let Some(index) = mark(Block::new(block)).first_from(0) {
            return Some(at + index);
        }
        at += Block::LEN;
    }
    if at >= bytes.len() {
        return None;
    }
    match bytes.last_chunk() {
        // What is left lies in the last block, behind bytes that have been seen.
        Some(block) => {
            let start = bytes.len() - Block::LEN;
            let index = mark(Block::new(block)).first_from(at - start)?;
            Some(start + index)
        }
        None => {
            let index = bytes[at..].iter().position(|byte| is_it(*byte))?;
            Some(at + index)
        }
    }
}

use block::{Block, Marks};

/// Sixteen bytes in one register. All the `unsafe` here calls SSE2 instructions, which every x86-64 has.
#[cfg(target_arch = "x86_64")]
mod block {
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(super) struct Block(__m128i);

    #[derive(Clone, Copy)]
    pub(super) struct Marks(__m128i);

    impl Block {
        pub(super) const LEN: usize = 16;

        #[inline(always)]
        pub(super) fn new(bytes: &[u8; Self::LEN]) -> Self {
            // SAFETY: the reference covers the sixteen bytes that are loaded, at any alignment.
            Self(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
        }

        #[inline(always)]
        pub(super) fn equal(self, wanted: u8) -> Marks {
            // SAFETY: SSE2.
            Marks(unsafe { _mm_cmpeq_epi8(self.0, _mm_set1_epi8(wanted as i8)) })
        }

        #[inline(always)]
        pub(super) fn below(self, limit: u8) -> Marks {
            // SAFETY: SSE2.
            Marks(unsafe {
                let most = _mm_min_epu8(self.0, _mm_set1_epi8((limit - 1) as i8));
                _mm_cmpeq_epi8(most, self.0)
            })
        }
    }

    impl Marks {
        #[inline(always)]
        pub(super) fn or(self, other: Marks) -> Marks {
            // SAFETY: SSE2.
            Marks(unsafe { _mm_or_si128(self.0, other.0) })
        }

        #[inline(always)]
        pub(super) fn without(self, other: Marks) -> Marks {
            // SAFETY: SSE2.
            Marks(unsafe { _mm_andnot_si128(other.0, self.0) })
        }

        #[inline(always)]
        pub(super) fn first_from(self, index: usize) -> Option<usize> {
            // SAFETY: SSE2.
            let mask = unsafe { _mm_movemask_epi8(self.0) } & (-1 << index);
            (mask != 0).then(|| mask.trailing_zeros() as usize)
        }
    }
}

/// Eight bytes in one word, for all other processors.
#[cfg(not(target_arch = "x86_64"))]
mod block {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    const LOW_BITS: u64 = !HIGH_BITS;

    #[derive(Clone, Copy)]
    pub(super) struct Block(u64);

    /// The high bit of each marked byte.
    #[derive(Clone, Copy)]
    pub(super) struct Marks(u64);

    impl Block {
        pub(super) const LEN: usize = 8;

        #[inline(always)]
        pub(super) fn new(bytes: &[u8; Self::LEN]) -> Self {
            Self(u64::from_le_bytes(*bytes))
        }

        #[inline(always)]
        pub(super) fn equal(self, wanted: u8) -> Marks {
            Block(self.0 ^ (ONES * u64::from(wanted))).below(1)
        }

        /// `limit` is at most 0x80. The low seven bits are added apart, so that no byte carries into its neighbour.
        #[inline(always)]
        pub(super) fn below(self, limit: u8) -> Marks {
            let reaches = (self.0 & LOW_BITS) + ONES * u64::from(0x80 - limit);
            Marks(!(reaches | self.0) & HIGH_BITS)
        }
    }

    impl Marks {
        #[inline(always)]
        pub(super) fn or(self, other: Marks) -> Marks {
            Marks(self.0 | other.0)
        }

        #[inline(always)]
        pub(super) fn without(self, other: Marks) -> Marks {
            Marks(self.0 & !other.0)
        }

        #[inline(always)]
        pub(super) fn first_from(self, index: usize) -> Option<usize> {
            let mask = self.0 & (u64::MAX << (index * 8));
            (mask != 0).then(|| (mask.trailing_zeros() / 8) as usize)
        }
    }
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
            for offset in 0..39 {
                let mut bytes = [b'a'; 39];
                bytes[offset] = byte;
                let ends_value = (byte < 0x20 && byte != b'\t') || byte == 0x7f;
                assert_eq!(value_end(&bytes, 0), ends_value.then_some(offset), "{byte}");
                let ends_target = byte <= 0x20 || byte == 0x7f;
                assert_eq!(target_end(&bytes, 0), ends_target.then_some(offset));
                let marks_target = ends_target || byte == b'?' || byte == b'#';
                assert_eq!(target_mark(&bytes, 0), marks_target.then_some(offset));
                assert_eq!(colon(&bytes, 0), (byte == b':').then_some(offset));
            }
        }
    }

    #[test]
    fn the_first_of_several_counts_also_beside_bytes_that_borrow() {
        assert_eq!(value_end(b"\x80\x1f\x20\x00\x7f\x21ab", 0), Some(1));
        assert_eq!(value_end(b"ab\t\t\t\tcd\r\n", 0), Some(8));
        assert_eq!(
            value_end(b"\x80\x1f\x20\x00\x7f\x21ab0123456789", 0),
            Some(1)
        );
        assert_eq!(value_end(b"\t\t\x20\xff\x80\x7e\tb01234567\n", 0), Some(16));
        assert_eq!(colon(b"\x3b\x3a\x3b\x3aabcd", 0), Some(1));
        assert_eq!(value_end(b"abc", 7), None);
    }
}
