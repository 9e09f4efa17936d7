//! From the bytes of a watch to its frames: one JSON object a line, in chunks that end anywhere.
//!
//! Pure, and any bytes give an answer. What comes from a newer registry (types and fields not known here) is skipped;
//! what is not a frame at all is an error, after which the stream is of no use.

use bytes::BytesMut;

use super::WatchFrame;

/// A longer line is refused; the registry cuts its frames far below.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame is longer than {FRAME_BYTES_MAX} bytes")]
    TooLong,
    #[error("not a frame: {0}")]
    Garbled(#[from] serde_json::Error),
}

/// Push bytes as they come, then take frames until there is none.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    /// No line ends before this.
    searched: usize,
}

impl FrameDecoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame that this version understands; None when more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<WatchFrame>, FrameError> {
        while let Some(line) = self.next_line()? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(&line)? {
                WatchFrame::Unknown => {}
                frame => return Ok(Some(frame)),
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
        let length = found.map_or(self.buffer.len(), |at| self.searched + at);
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        if found.is_none() {
            self.searched = length;
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some(self.buffer.split_to(length + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(chunks: &[&[u8]]) -> Result<Vec<WatchFrame>, FrameError> {
        let (mut decoder, mut frames) = (FrameDecoder::default(), Vec::new());
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    const STREAM: &[u8] = b"{\"type\":\"synced\",\"revision\":3,\"mood\":\"good\"}\r\n\n{\"type\":\"teleport\",\"to\":{\"x\":1}}\n{\"type\":\"heartbeat\",\"revision\":4}\n";

    #[test]
    fn any_split_of_the_same_bytes_gives_the_same_frames() {
        let expected = [
            WatchFrame::Synced { revision: 3 },
            WatchFrame::Heartbeat { revision: 4 },
        ];
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let chunks = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(
                    frames(&chunks).expect("good frames"),
                    expected,
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for garbage in [
            "nonsense\n",
            "{\"type\":\"synced\"}\n",
            "[]\n",
            "{\"revision\":1}\n",
            "\u{0}\n",
        ] {
            assert!(
                matches!(frames(&[garbage.as_bytes()]), Err(FrameError::Garbled(_))),
                "{garbage}"
            );
        }
        let deep = format!("{{\"type\":\"unheard\",\"x\":{}\n", "[".repeat(100_000));
        assert!(frames(&[deep.as_bytes()]).is_err());
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        let chunk = vec![b' '; 1 << 20];
        let chunks: Vec<&[u8]> = (0..=FRAME_BYTES_MAX >> 20)
            .map(|_| chunk.as_slice())
            .collect();
        assert!(matches!(frames(&chunks), Err(FrameError::TooLong)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_answer(chunks: Vec<Vec<u8>>) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = frames(&chunks);
        }
    }
}
