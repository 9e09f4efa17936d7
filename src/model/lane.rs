use std::sync::Arc;
use std::time::Duration;

use crate::base::cidr::Cidr;

/// How important a piece of work is, the most important first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Class {
    Critical,
    #[default]
    Default,
    Batch,
    BestEffort,
}

impl Class {
    pub const COUNT: usize = 4;

    pub const ALL: [Class; Self::COUNT] = [
        Class::Critical,
        Class::Default,
        Class::Batch,
        Class::BestEffort,
    ];

    /// As documents, fields and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Critical => "critical",
            Class::Default => "default",
            Class::Batch => "batch",
            Class::BestEffort => "best-effort",
        }
    }

    pub fn from_bytes(text: &[u8]) -> Option<Class> {
        Class::ALL
            .into_iter()
            .find(|class| class.as_str().as_bytes() == text)
    }
}

/// A `lane`: the queue in front of a service's application, in its inbound sidecar; or, as `outbound_lane`, in its callers'.
#[derive(Clone, PartialEq, Debug)]
pub struct Lane {
    pub limit: LaneLimit,
    pub discipline: Discipline,
    /// What may wait at once; 0 refuses whatever finds no free slot.
    pub queue_max: u32,
    /// How long anything may wait.
    pub queue_timeout: Duration,
    pub floors: Floors,
    /// The field that names a request's tenant; None takes its client's address.
    pub tenant: Option<Arc<str>>,
    /// Networks whose clients may raise their class above `default`; anybody may lower it.
    pub class_from: Vec<Cidr>,
}

impl Lane {
    /// A lane of which nothing but its limit was said.
    pub fn new(limit: LaneLimit) -> Self {
        Self {
            limit,
            discipline: Discipline::default(),
            queue_max: 1_024,
            queue_timeout: Duration::from_millis(500),
            floors: Floors::default(),
            tenant: None,
            class_from: Vec::new(),
        }
    }
}

/// How many of a lane's requests the application has at once: its slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneLimit {
    Fixed(u32),
    /// Found from the service time and the queueing delay.
    Adaptive,
}

/// Who is next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Discipline {
    /// Who came first, whatever class or tenant.
    Fifo,
    /// The class, and in it the tenants in turn.
    #[default]
    Priority,
    /// The class, and in it the tenants that have had the least service lately (multilevel feedback queue).
    Mlfq,
    /// `Fifo` while there is room, `Mlfq` while there is not.
    Auto,
}

impl Discipline {
    /// As documents and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Discipline::Fifo => "fifo",
            Discipline::Priority => "priority",
            Discipline::Mlfq => "mlfq",
            Discipline::Auto => "auto",
        }
    }
}

/// What is left to those who would starve, in percent of the slot-seconds; counted in time and not in turns, because a turn of
/// theirs may take a hundred times as long as one of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floors {
    pub batch_percent: u8,
    pub best_effort_percent: u8,
    /// The lowest level of a class under `mlfq`.
    pub lowest_level_percent: u8,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            batch_percent: 5,
            best_effort_percent: 1,
            lowest_level_percent: 5,
        }
    }
}
