//! Reading a watch.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{ClientError, segment};
use crate::api::{FrameDecoder, WatchFrame, WatchQuery};

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
    decoder: FrameDecoder,
    url: String,
}

impl WatchStream {
    pub(super) fn new(body: Incoming, url: String) -> Self {
        Self {
            body,
            decoder: FrameDecoder::default(),
            url,
        }
    }

    /// The next frame this version understands. An error ends the stream: watch again from the last revision in effect.
    /// Safe to drop between polls: nothing read is lost.
    pub async fn next(&mut self) -> Result<WatchFrame, ClientError> {
        loop {
            let frame = self
                .decoder
                .next_frame()
                .map_err(|error| ClientError::Garbled {
                    url: self.url.clone(),
                    reason: error.to_string(),
                })?;
            match frame {
                Some(frame) => return Ok(frame),
                None => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), ClientError> {
        let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
        let ended = |why: &str| ClientError::Ended(why.to_owned());
        match frame {
            Err(_) => Err(ended("no heartbeat for 30 s")),
            Ok(None) => Err(ended("the registry closed it")),
            Ok(Some(Err(error))) => Err(ended(&super::innermost(&error))),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.decoder.push(&data);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
