use std::fmt;
use std::time::Duration;

use super::Nanos;

/// Why a lane refused something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// No slot is free and the queue is full.
    Full,
    /// It would not be done in time.
    Deadline,
    /// The queue is full, and something of a higher class came.
    Class,
    /// The queue is full, and its tenant held more of it than the one that came.
    Tenant,
    /// It has waited as long as anything may.
    Timeout,
}

impl Reason {
    pub const COUNT: usize = 5;

    pub const ALL: [Reason; Self::COUNT] = [
        Reason::Full,
        Reason::Deadline,
        Reason::Class,
        Reason::Tenant,
        Reason::Timeout,
    ];

    /// As answers and metrics say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Full => "full",
            Reason::Deadline => "deadline",
            Reason::Class => "class",
            Reason::Tenant => "tenant",
            Reason::Timeout => "timeout",
        }
    }
}

/// For people.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Full => "its queue is full",
            Reason::Deadline => "the request would not be done in time",
            Reason::Class => "its queue is full, and a more important request came",
            Reason::Tenant => "its queue is full, and the tenant held more of it than others",
            Reason::Timeout => "the request has waited for as long as it may",
        })
    }
}

/// A refusal, and when it may be worth to come again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub reason: Reason,
    /// Whole seconds, 1 to 30.
    pub retry_after: Duration,
}

impl Refusal {
    /// The longest that anybody is told to stay away.
    const AFTER_MAX: u64 = 30;

    /// `wait` is how long the queue is expected to last.
    pub(super) fn new(reason: Reason, wait: Nanos) -> Self {
        let seconds = Duration::from_nanos(wait).as_secs_f64().ceil() as u64;
        Self {
            reason,
            retry_after: Duration::from_secs(seconds.clamp(1, Self::AFTER_MAX)),
        }
    }
}
