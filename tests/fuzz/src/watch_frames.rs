//! Any bytes are frames or an error, the same however they are split; a frame survives being written; and frames in any
//! order leave a mirror that answers.

use pillion::api::{Frame, FrameDecoder, Registration, WatchFrame};
use pillion::discovery::mirror::Mirror;
use serde::{Serialize, de::DeserializeOwned};

use crate::pieces::{ends, steps_and_bytes};

pub fn check(data: &[u8]) {
    let Some((steps, bytes)) = steps_and_bytes(data) else {
        return;
    };
    let whole = read(bytes, std::iter::once(bytes.len()));
    assert_eq!(read(bytes, ends(steps, bytes.len())), whole);
    apply(whole.0);
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(frame) = serde_json::from_slice::<Frame>(line) {
            check_written(&frame);
        }
        let _ = serde_json::from_slice::<Registration>(line);
    }
}

/// The frames, and whether nothing else came.
fn read(bytes: &[u8], ends: impl Iterator<Item = usize>) -> (Vec<WatchFrame>, bool) {
    let mut decoder = FrameDecoder::default();
    let mut frames = Vec::new();
    let mut start = 0;
    for end in ends {
        decoder.push(&bytes[start..end]);
        start = end;
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
    }
    (frames, true)
}

fn apply(frames: Vec<WatchFrame>) {
    let mut mirror = Mirror::default();
    for frame in frames {
        check_written(&frame);
        if mirror.apply(frame).is_err() {
            mirror.disconnected();
        }
    }
    let services: Vec<_> = mirror.services().cloned().collect();
    for service in services {
        let _ = mirror.endpoints(&service);
    }
}

/// Not that it is equal: a fraction may differ in its last digit.
fn check_written<T: Serialize + DeserializeOwned>(frame: &T) {
    let written = serde_json::to_vec(frame).expect("a frame is plain data");
    let again = serde_json::from_slice::<T>(&written);
    assert!(again.is_ok(), "what we write is what we accept");
}
