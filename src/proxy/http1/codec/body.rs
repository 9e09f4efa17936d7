//! Reading bodies: which of the bytes that come are the body's, and where it ends.

use std::ops::Range;

use super::fields::{FieldsError, read_fields};
use super::{Framing, Limits};
use crate::proxy::http::head::Fields;

/// Takes a body apart as its bytes come. It keeps no byte of the body, so memory stays constant, and big bodies pass in
/// the caller's buffers without a copy.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    limits: Limits,
    /// Of the line before the chunk that is being read, without its LF.
    line_bytes: usize,
    extension_bytes: usize,
    /// Trailer lines that have come in part.
    trailer_bytes: Vec<u8>,
    trailers: Option<Box<Fields>>,
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Where in the input the body's bytes lie; empty when only framing came.
    pub data: Range<usize>,
    /// The body is whole. What follows in the input belongs to the next message.
    pub end: bool,
}

/// Why a body cannot be read on. The connection must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BodyError {
    pub reason: &'static str,
    /// The connection ended before the body did.
    pub truncated: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// This many bytes are to come; never 0.
    Length(u64),
    UntilClose,
    /// Before the first digit of a chunk's size.
    SizeStart,
    /// Behind at least one digit.
    Size(u64),
    /// Spaces behind the size: only an extension may follow.
    SizeSpace(u64),
    Extension(u64),
    /// The CR behind the size has come.
    SizeLf(u64),
    /// This many bytes of the chunk are to come; never 0.
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    End,
    Failed(BodyError),
}

impl BodyDecoder {
    pub fn new(framing: Framing) -> Self {
        Self::with_limits(framing, &Limits::DEFAULT)
    }

    pub fn with_limits(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::SizeStart,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            limits: *limits,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: Vec::new(),
            trailers: None,
        }
    }

    /// Reads from the beginning of `input` up to the end of one stretch of body bytes and the framing behind it.
    /// Unless the body has ended, a call with any input consumes some of it, so no byte must be kept for a later call.
    pub fn decode(&mut self, input: &[u8]) -> Result<Piece, BodyError> {
        let piece = match self.state {
            State::Length(remaining) => self.take_length(input, remaining),
            State::UntilClose => Piece {
                consumed: input.len(),
                data: 0..input.len(),
                end: false,
            },
            State::End => Piece {
                end: true,
                ..Piece::default()
            },
            State::Failed(error) => return Err(error),
            _ => self.take_chunked(input).inspect_err(|error| {
                self.state = State::Failed(*error);
            })?,
        };
        Ok(piece)
    }

    /// The connection has ended: whether the body is whole now.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            State::End => Ok(()),
            State::Failed(error) => Err(error),
            _ => {
                let error = BodyError {
                    reason: "the connection ended before the body did",
                    truncated: true,
                };
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// How many bytes are still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(remaining) => Some(remaining),
            State::End => Some(0),
            _ => None,
        }
    }

    /// The fields behind a chunked body, once it has ended; without those that mean nothing good there.
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref().filter(|_| self.is_end())
    }

    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take().filter(|_| self.is_end())
    }

    #[inline]
    fn take_length(&mut self, input: &[u8], remaining: u64) -> Piece {
        let taken = bounded(remaining, input.len());
        let end = taken as u64 == remaining;
        self.state = if end {
            State::End
        } else {
            State::Length(remaining - taken as u64)
        };
        Piece {
            consumed: taken,
            data: 0..taken,
            end,
        }
    }

    fn take_chunked(&mut self, input: &[u8]) -> Result<Piece, BodyError> {
        let mut piece = Piece::default();
        while let Some(byte) = input.get(piece.consumed) {
            match self.state {
                State::Data(_) if !piece.data.is_empty() => break,
                State::Data(remaining) => {
                    let start = piece.consumed;
                    let taken = bounded(remaining, input.len() - start);
                    piece.data = start..start + taken;
                    piece.consumed += taken;
                    self.state = match remaining - taken as u64 {
                        0 => State::DataCr,
                        rest => State::Data(rest),
                    };
                }
                State::Trailers => {
                    piece.consumed += self.take_trailer_bytes(&input[piece.consumed..])?;
                }
                State::End => break,
                state => {
                    self.state = self.step(state, *byte)?;
                    piece.consumed += 1;
                }
            }
        }
        piece.end = self.is_end();
        Ok(piece)
    }

    /// One byte of the framing around chunks.
    #[inline]
    fn step(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        let next = match (state, byte) {
            (State::SizeStart, _) => {
                self.line_bytes = 0;
                State::Size(add_digit(0, byte).ok_or(NO_SIZE)?)
            }
            (State::Size(size) | State::SizeSpace(size), b';') => State::Extension(size),
            (State::Size(size) | State::SizeSpace(size), b' ' | b'\t') => State::SizeSpace(size),
            (State::Size(size) | State::Extension(size), b'\r') => State::SizeLf(size),
            (State::Size(size), _) => State::Size(add_digit(size, byte).ok_or(NO_SIZE)?),
            (State::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_bytes += 1;
                State::Extension(size)
            }
            (State::SizeLf(0), b'\n') => return Ok(State::Trailers),
            (State::SizeLf(size), b'\n') => return Ok(State::Data(size)),
            (State::DataCr, b'\r') => return Ok(State::DataLf),
            (State::DataLf, b'\n') => return Ok(State::SizeStart),
            (State::DataCr | State::DataLf, _) => {
                return Err(malformed("a chunk is longer than its size says"));
            }
            (State::Extension(_), _) => {
                return Err(malformed("a chunk extension has a control character in it"));
            }
            _ => return Err(NO_SIZE),
        };
        self.line_bytes += 1;
        if self.line_bytes > self.limits.chunk_line_max
            || self.extension_bytes > self.limits.chunk_extensions_max
        {
            return Err(malformed("the line before a chunk is too long"));
        }
        Ok(next)
    }

    /// Gathers trailer lines until all have come; how many bytes of the input were theirs.
    fn take_trailer_bytes(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        if self.trailer_bytes.is_empty() && input.starts_with(b"\r\n") {
            self.state = State::End;
            return Ok(2);
        }
        let before = self.trailer_bytes.len();
        let room = self.limits.trailer_bytes_max - before;
        self.trailer_bytes
            .extend_from_slice(&input[..input.len().min(room)]);
        let mut trailers = Fields::new();
        match read_fields(
            &self.trailer_bytes,
            0,
            self.limits.fields_max,
            &mut trailers,
        )? {
            None if self.trailer_bytes.len() == self.limits.trailer_bytes_max => {
                Err(malformed("the trailers are too large"))
            }
            None => Ok(self.trailer_bytes.len() - before),
            Some(end) => {
                trailers.retain(|field| !field.known.is_forbidden_in_trailers());
                self.trailers = (!trailers.is_empty()).then(|| Box::new(trailers));
                self.trailer_bytes = Vec::new();
                self.state = State::End;
                Ok(end - before)
            }
        }
    }
}

const NO_SIZE: BodyError = malformed("a chunk's size is not a hexadecimal number below 2^63");

const fn malformed(reason: &'static str) -> BodyError {
    BodyError {
        reason,
        truncated: false,
    }
}

impl From<FieldsError> for BodyError {
    fn from(error: FieldsError) -> Self {
        match error {
            FieldsError::Malformed(reason) => malformed(reason),
            FieldsError::TooMany => malformed("there are too many trailers"),
        }
    }
}

/// The size with one more digit, below 2^63.
#[inline]
fn add_digit(size: u64, byte: u8) -> Option<u64> {
    let digit = char::from(byte).to_digit(16)?;
    (size <= (i64::MAX as u64) >> 4).then_some((size << 4) | u64::from(digit))
}

/// As much of `wanted` as there is.
#[inline]
fn bounded(wanted: u64, available: usize) -> usize {
    usize::try_from(wanted).map_or(available, |wanted| wanted.min(available))
}
