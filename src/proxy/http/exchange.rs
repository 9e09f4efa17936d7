//! The facts of one request and its answer, gathered for the access log and the metrics. It observes; it decides nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::explained::{self, Explanation};
use super::head::{Fields, RequestHead};
use super::mirror::Copies;
use super::persistence::Kept;
use crate::proxy::cluster::EndpointId;
use crate::proxy::filter::Grant;
use crate::telemetry::flags::{Flag, Flags};
use crate::telemetry::metrics::RequestSeries;

pub struct Exchange {
    pub start: Instant,
    pub wall: Option<SystemTime>,
    pub status: u16,
    pub flags: Flags,
    /// Why the answer is ours or another service's, or that two endpoints were asked, in words; empty when it is simply that of
    /// the service that was meant.
    pub details: String,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub attempts: u32,
    /// Until the upstream's final head.
    pub first_byte: Option<Instant>,
    pub route: Option<Arc<str>>,
    pub service: Option<Arc<str>>,
    pub endpoint: Option<std::net::SocketAddr>,
    pub series: Option<Arc<RequestSeries>>,
    /// Where requests of one client stay with one endpoint.
    pub kept: Option<Box<Kept>>,
    /// Of a request that is to be explained to whoever has sent it.
    pub explanation: Option<Box<Explanation>>,
    /// What every answer is to tell the browser.
    pub grant: Option<Box<Grant>>,
    /// How long the request is held back on purpose.
    pub delay: Option<Duration>,
    /// For other services, once the body has come.
    pub copies: Option<Box<Copies>>,
    /// What the client has asked for, where backends are asked for something else.
    pub asked: Option<Box<Asked>>,
    /// Endpoints that were tried for it.
    pub tried: SmallVec<[EndpointId; 4]>,
}

pub struct Asked {
    pub authority: Vec<u8>,
    pub path_and_query: Vec<u8>,
}

impl Exchange {
    pub fn new(start: Instant, wall: Option<SystemTime>) -> Self {
        Self {
            start,
            wall,
            status: 0,
            flags: Flags::NONE,
            details: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            attempts: 0,
            first_byte: None,
            route: None,
            service: None,
            endpoint: None,
            series: None,
            kept: None,
            explanation: None,
            grant: None,
            delay: None,
            copies: None,
            asked: None,
            tried: SmallVec::new(),
        }
    }

    /// Before the first filter rewrites the request.
    #[cold]
    pub fn keep_asked(&mut self, request: &RequestHead) {
        self.asked.get_or_insert_with(|| {
            Box::new(Asked {
                authority: request.authority().to_vec(),
                path_and_query: request.path_and_query().to_vec(),
            })
        });
    }

    /// Adds what every answer to this request is to tell.
    #[inline]
    pub fn tell(&mut self, fields: &mut Fields) {
        if let Some(grant) = &self.grant {
            grant.tell(fields);
        }
        if self.explanation.is_some() {
            explained::tell(self, fields);
        }
    }

    pub fn flag(&mut self, flag: Flag) {
        self.flags.insert(flag);
    }
}
