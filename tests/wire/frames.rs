//! A client that speaks HTTP/2 one raw frame at a time, and says whatever it likes.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::harness::{HANG_GUARD, Mesh};

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

pub const NO_ERROR: u32 = 0x0;
pub const PROTOCOL_ERROR: u32 = 0x1;
pub const FRAME_SIZE_ERROR: u32 = 0x6;
pub const REFUSED_STREAM: u32 = 0x7;
pub const CANCEL: u32 = 0x8;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A whole head.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// The head of a request that nothing is wrong with.
pub fn request(stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
    headers(stream, flags, &well_formed(method, path))
}

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    request(stream, END_STREAM, "GET", path)
}

pub fn well_formed<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ]
}

/// A header block of literals that are never indexed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        string(name, &mut bytes);
        string(value, &mut bytes);
    }
    bytes
}

/// RFC 7541, section 5.2, without Huffman's code.
fn string(text: &str, out: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(0x80 | (length % 128) as u8);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

/// A frame that has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// The status of an answer's head, where HPACK's static table has it.
    pub fn status(&self) -> Option<u16> {
        const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        let index = self.payload.first()?.checked_sub(0x88)?;
        (self.kind == HEADERS).then_some(*STATUSES.get(usize::from(index))?)
    }
}

/// A connection to the proxy.
pub struct Http2 {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Http2 {
    /// With the preface and empty SETTINGS.
    pub fn connect(mesh: &Mesh) -> Self {
        let mut client = Self::connect_silently(mesh);
        client.send(PREFACE);
        client.send(&frame(SETTINGS, 0, 0, b""));
        client
    }

    pub fn connect_silently(mesh: &Mesh) -> Self {
        let stream = TcpStream::connect(mesh.address()).expect("the proxy listens");
        let _ = stream.set_read_timeout(Some(HANG_GUARD));
        let _ = stream.set_write_timeout(Some(HANG_GUARD));
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// False when the proxy takes no more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the connection stays open, and takes nothing")
            }
            sent => sent.is_ok(),
        }
    }

    /// The next frame; none once the proxy has closed, in whatever way.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.read.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the connection stays open, and nothing comes")
                }
                Err(_) => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (header, rest) = self.read.split_first_chunk::<9>()?;
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = rest.get(..length)?.to_vec();
        self.read.drain(..9 + length);
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    /// The next frame of which this is so; those before it are of no interest.
    pub fn until(&mut self, is_it: impl Fn(&Frame) -> bool) -> Frame {
        let mut seen = Vec::new();
        while let Some(frame) = self.next() {
            if is_it(&frame) {
                return frame;
            }
            seen.push((frame.kind, frame.stream, frame.code()));
        }
        panic!("the connection ends before it has come, after {seen:?}");
    }

    /// Whether such a frame comes before the proxy closes the connection.
    pub fn skip_to(&mut self, is_it: impl Fn(&Frame) -> bool) -> bool {
        while let Some(frame) = self.next() {
            if is_it(&frame) {
                return true;
            }
        }
        false
    }

    /// Waits until all that was sent has been seen: a PING is answered in its turn.
    pub fn is_heard(&mut self) -> bool {
        self.send(&frame(PING, 0, 0, b"in order"));
        self.skip_to(|frame| frame.kind == PING && frame.flags & ACK != 0)
    }

    /// The code of the last GOAWAY before the proxy closes the connection.
    pub fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = frame.code();
            }
        }
        code
    }

    /// What answers a stream first: a head, or its reset, or the end of the connection.
    pub fn answer(&mut self, stream: u32) -> Frame {
        self.until(|frame| {
            frame.kind == GOAWAY
                || frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM)
        })
    }
}
