//! Reading a watch: one JSON frame a line, from chunks that end anywhere.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{ClientError, segment};
use crate::api::{WatchFrame, WatchQuery};

/// A longer line is refused; the registry cuts its frames far below.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// The registry sends a heartbeat each 10 s; after this long without a byte the stream is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

pub fn path(query: &WatchQuery) -> String {
    let mut path = format!(
        "/v1/watch?sidecar={}&from={}",
        segment(&query.sidecar),
        query.from
    );
    if let Some(store) = &query.store {
        path.push_str("&store=");
        path.push_str(&segment(store));
    }
    let services = match &query.services {
        Some(services) => services
            .iter()
            .map(|name| segment(name))
            .collect::<Vec<_>>()
            .join(","),
        None => "*".to_owned(),
    };
    path.push_str("&services=");
    path.push_str(&services);
    path
}

pub struct WatchStream {
    body: Incoming,
    lines: Lines,
    url: String,
}

impl WatchStream {
    pub(super) fn new(body: Incoming, url: String) -> Self {
        Self {
            body,
            lines: Lines::default(),
            url,
        }
    }

    /// The next frame this version understands. An error ends the stream: watch again from the last revision in effect.
    /// Safe to drop between polls: nothing read is lost.
    pub async fn next(&mut self) -> Result<WatchFrame, ClientError> {
        loop {
            while let Some(line) = self.lines.ready.pop_front() {
                match self.parse(&line)? {
                    WatchFrame::Unknown => {}
                    frame => return Ok(frame),
                }
            }
            self.read().await?;
        }
    }

    fn parse(&self, line: &[u8]) -> Result<WatchFrame, ClientError> {
        serde_json::from_slice(line).map_err(|error| ClientError::Garbled {
            url: self.url.clone(),
            reason: error.to_string(),
        })
    }

    async fn read(&mut self) -> Result<(), ClientError> {
        let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
        let ended = |why: &str| ClientError::Ended(why.to_owned());
        match frame {
            Err(_) => Err(ended("no heartbeat for 30 s")),
            Ok(None) => Err(ended("the registry closed it")),
            Ok(Some(Err(error))) => Err(ended(&super::innermost(&error))),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self
                    .lines
                    .push(&data)
                    .map_err(|()| ended("a frame is too long")),
                Err(_) => Ok(()),
            },
        }
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines {
    ready: VecDeque<BytesMut>,
    rest: BytesMut,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<(), ()> {
        let mut data = data;
        while let Some(end) = memchr::memchr(b'\n', data) {
            self.rest.extend_from_slice(&data[..end]);
            data = &data[end + 1..];
            let line = self.rest.split();
            if !line.is_empty() {
                self.ready.push_back(line);
            }
        }
        self.rest.extend_from_slice(data);
        if self.rest.len() > FRAME_BYTES_MAX {
            Err(())
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_of_the_same_bytes_gives_the_same_lines() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n{}\n";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut lines = Lines::default();
                for part in [&text[..first], &text[first..second], &text[second..]] {
                    lines.push(part).unwrap();
                }
                let lines: Vec<&[u8]> = lines.ready.iter().map(|line| &line[..]).collect();
                assert_eq!(lines, [&b"{\"a\":1}"[..], b"{\"b\":2}", b"{}"]);
            }
        }
    }

    #[test]
    fn a_frame_of_a_newer_version_is_unknown_and_not_an_error() {
        let frame: WatchFrame =
            serde_json::from_str(r#"{"type":"teleport","to":{"x":1}}"#).unwrap();
        assert_eq!(frame, WatchFrame::Unknown);
        let frame: WatchFrame =
            serde_json::from_str(r#"{"type":"synced","revision":3,"mood":"good"}"#).unwrap();
        assert_eq!(frame, WatchFrame::Synced { revision: 3 });
    }

    #[test]
    fn the_selector_and_the_store_are_in_the_path() {
        let query = WatchQuery {
            sidecar: "cart 1".to_owned(),
            from: 7,
            store: Some("s".to_owned()),
            services: Some(vec!["shop/cart".to_owned(), "default/echo".to_owned()]),
        };
        assert_eq!(
            path(&query),
            "/v1/watch?sidecar=cart%201&from=7&store=s&services=shop%2Fcart,default%2Fecho"
        );
    }
}
