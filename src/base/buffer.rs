//! Read buffers that cost nothing while a connection is idle.
//!
//! A [`Buffer`] borrows its memory from a pool of the worker's thread and gives it back as soon as it is empty
//! and told to rest, so ten thousand idle connections share a handful of buffers.

use std::cell::RefCell;

/// Enough for the head of nearly every message.
pub const SMALL: usize = 8 * 1024;
/// What bulk bodies are read with, and the longest head that can be read.
pub const LARGE: usize = 64 * 1024;

/// How many free blocks of each size a thread keeps.
const SMALL_FREE_MAX: usize = 128;
const LARGE_FREE_MAX: usize = 16;

type Block = Box<[u8]>;

#[derive(Default)]
struct Pool {
    small: Vec<Block>,
    large: Vec<Block>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

fn take(size: usize) -> Block {
    let free = POOL.with_borrow_mut(|pool| {
        if size == SMALL {
            pool.small.pop()
        } else {
            pool.large.pop()
        }
    });
    free.unwrap_or_else(|| vec![0; size].into_boxed_slice())
}

fn give(block: Block) {
    // `try_with`: a buffer may be dropped while the thread's locals are being destroyed.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        match block.len() {
            SMALL if pool.small.len() < SMALL_FREE_MAX => pool.small.push(block),
            LARGE if pool.large.len() < LARGE_FREE_MAX => pool.large.push(block),
            _ => {}
        }
    });
}

/// Bytes read and not yet used. Dropping it gives its memory back to the thread's pool.
#[derive(Default)]
pub struct Buffer {
    block: Block,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn filled(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `count` bytes, which must be there.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// The room behind the filled bytes; never empty unless the buffer is [`LARGE`] and full.
    /// Takes a block, or moves the bytes to the front or to a larger block, where that is needed to have room.
    pub fn room(&mut self) -> &mut [u8] {
        if self.block.is_empty() {
            self.block = take(SMALL);
        } else if self.end == self.block.len() {
            if self.start > 0 {
                self.block.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.grow();
            }
        }
        &mut self.block[self.end..]
    }

    /// Marks `count` bytes of [`Self::room`] as filled.
    pub fn advance(&mut self, count: usize) {
        debug_assert!(self.end + count <= self.block.len());
        self.end += count;
    }

    pub fn is_full(&self) -> bool {
        self.len() == LARGE
    }

    /// Moves to a [`LARGE`] block: worth it once reads fill a small one.
    pub fn grow(&mut self) {
        if self.block.len() == LARGE {
            return;
        }
        let mut large = take(LARGE);
        let length = self.len();
        large[..length].copy_from_slice(self.filled());
        let old = std::mem::replace(&mut self.block, large);
        self.start = 0;
        self.end = length;
        if !old.is_empty() {
            give(old);
        }
    }

    /// Puts bytes that were read elsewhere in front of what will be read; at most [`LARGE`] in all.
    pub fn extend(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while !bytes.is_empty() && !self.is_full() {
            let room = self.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.advance(count);
            bytes = &bytes[count..];
        }
    }

    /// Gives the memory back if nothing is in it.
    pub fn rest(&mut self) {
        if self.is_empty() && !self.block.is_empty() {
            give(std::mem::take(&mut self.block));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.block.is_empty() {
            give(std::mem::take(&mut self.block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in_through_every_growth() {
        let mut buffer = Buffer::default();
        let message: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
        buffer.extend(&message[..5]);
        buffer.consume(2);
        buffer.extend(&message[5..]);
        assert_eq!(buffer.filled(), &message[2..]);
    }

    #[test]
    fn an_empty_buffer_that_rests_holds_no_memory() {
        let mut buffer = Buffer::default();
        buffer.extend(b"x");
        buffer.rest();
        assert_eq!(buffer.filled(), b"x");
        buffer.consume(1);
        buffer.rest();
        assert!(buffer.block.is_empty());
    }
}
