//! An answer's body on its way through an encoder. What is written is handed on in pieces; whenever the source pauses, all that it has
//! said so far goes out, so that a stream of events flows.

use std::io::{self, Write};
use std::task::{Context, Poll, ready};

use flate2::write::GzEncoder;

use super::body::{Cut, Sink};
use super::head::Fields;
use crate::model::Coding;

/// Bytes that are encoded at once; what is encoded of them waits here until the client takes it.
const PIECE: usize = 16 << 10;
/// Fast rather than small, as every answer is encoded anew: gzip 5, brotli 4, zstd 3.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// How far encoders look back, as a power of two: what one answer takes of memory.
const WINDOW: u32 = 18;

/// The encoder of one answer, and what it has encoded.
pub struct Packer {
    encoder: Encoder,
    /// The first byte of the encoder's output that the client has not got.
    sent: usize,
    /// Something was written since the last flush.
    dirty: bool,
    finished: bool,
    /// Encoded bytes that the client has got.
    pub bytes: u64,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// All is encoded.
    Done(Vec<u8>),
}

impl Packer {
    pub fn new(coding: Coding) -> Box<Self> {
        let out = Vec::with_capacity(PIECE);
        let encoder = match coding {
            Coding::Gzip => {
                Encoder::Gzip(GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Brotli => {
                let writer = brotli::CompressorWriter::new(out, PIECE, BROTLI_QUALITY, WINDOW);
                Encoder::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                // Fails for a level or a window that there is none of, and these are constants.
                let encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL);
                match encoder.and_then(|mut one| one.window_log(WINDOW).map(|()| one)) {
                    Ok(encoder) => Encoder::Zstd(encoder),
                    Err(_) => Encoder::Done(Vec::new()),
                }
            }
        };
        Box::new(Self {
            encoder,
            sent: 0,
            dirty: false,
            finished: false,
            bytes: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.dirty = true;
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Brotli(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::Done(_) => Err(io::Error::other("written after its end")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Done(_) => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        let encoder = std::mem::replace(&mut self.encoder, Encoder::Done(Vec::new()));
        let out = match encoder {
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Brotli(encoder) => encoder.into_inner(),
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Done(out) => out,
        };
        self.encoder = Encoder::Done(out);
        Ok(())
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
            Encoder::Done(out) => out,
        }
    }

    /// Hands on what is encoded.
    fn poll_drain(&mut self, cx: &mut Context<'_>, sink: &mut impl Sink) -> Poll<Result<(), Cut>> {
        loop {
            let sent = self.sent;
            let rest = &self.out()[sent..];
            if rest.is_empty() {
                break;
            }
            let count = ready!(sink.poll_write(cx, rest))?;
            self.sent += count;
            self.bytes += count as u64;
        }
        self.out().clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

/// A sink that gets all bytes encoded.
pub struct Packed<'a, S> {
    pub packer: &'a mut Packer,
    pub sink: &'a mut S,
}

impl<S: Sink> Sink for Packed<'_, S> {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        ready!(self.packer.poll_drain(cx, self.sink))?;
        let piece = &bytes[..bytes.len().min(PIECE)];
        self.packer.write(piece)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.packer.flush()?;
        ready!(self.packer.poll_drain(cx, self.sink))?;
        self.sink.poll_flush(cx)
    }

    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>> {
        self.packer.finish()?;
        ready!(self.packer.poll_drain(cx, self.sink))?;
        self.sink.poll_finish(cx, trailers)
    }
}
