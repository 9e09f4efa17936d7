use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /v1/tasks`: a request to one instance of a service, made as soon as a fit one takes it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NewTask {
    #[serde(default = "default_namespace")]
    pub namespace: String,
    pub service: String,
    #[serde(default = "default_path")]
    pub path: String,
    #[serde(default = "default_method")]
    pub method: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// JSON; a text is sent as it is.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// In place of `body`: any bytes, in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_b64: Option<String>,
    /// `critical`, `default`, `batch` or `best-effort`.
    #[serde(default = "default_class")]
    pub class: String,
    /// Whose it is; tenants of a class have their turns.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Of two tasks of a service with the same key, the first is the one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How long to wait before the first attempt, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// When the first attempt may be made, in place of `delay`: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// After this time (RFC 3339) no attempt is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Of one attempt.
    #[serde(default = "default_timeout")]
    pub timeout: String,
    #[serde(default)]
    pub retry: TaskRetry,
}

/// What follows an attempt that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskRetry {
    /// All attempts, the first included.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each.
    pub backoff: String,
    pub backoff_max: String,
}

impl Default for TaskRetry {
    fn default() -> Self {
        Self {
            attempts: 20,
            backoff: "1s".to_owned(),
            backoff_max: "10m".to_owned(),
        }
    }
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn default_path() -> String {
    "/tasks".to_owned()
}

fn default_method() -> String {
    "POST".to_owned()
}

fn default_class() -> String {
    "default".to_owned()
}

fn default_timeout() -> String {
    "60s".to_owned()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Its time has not come, or that of its next attempt.
    Scheduled,
    /// It waits for its turn, or for an instance that is fit.
    Ready,
    Running,
    Done,
    /// Given up, kept to be looked at and tried again by hand.
    Dead,
    Cancelled,
    /// Its deadline came first.
    Expired,
}

impl TaskState {
    pub const ALL: [TaskState; 7] = [
        Self::Scheduled,
        Self::Ready,
        Self::Running,
        Self::Done,
        Self::Dead,
        Self::Cancelled,
        Self::Expired,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Nothing more becomes of it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Scheduled | Self::Ready | Self::Running)
    }
}

/// What submitting answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubmittedTask {
    pub id: String,
    /// A task of this key was there before.
    #[serde(default)]
    pub existed: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Task {
    pub id: String,
    pub state: TaskState,
    /// Attempts that counted.
    pub attempts: u32,
    /// RFC 3339, as all times.
    pub created: String,
    /// When the next attempt is due, or was.
    pub due: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// The instance that has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The status of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of the body of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(flatten)]
    pub task: NewTask,
}

/// `PUT /v1/lanes/{namespace}/{name}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskLaneChange {
    /// No attempt is begun while it is.
    pub paused: bool,
}

/// The tasks of one service that are due.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskLane {
    pub namespace: String,
    pub service: String,
    pub paused: bool,
    /// `fifo`, `priority`, `mlfq` or `auto`, as the lane of the service says.
    pub discipline: String,
    /// Tasks that its fit instances take at once.
    pub limit: u32,
    /// Those that wait for their turn.
    pub ready: u64,
    pub running: u64,
}

/// `GET /v1/lanes`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskLanes {
    pub lanes: Vec<TaskLane>,
}

/// `GET /v1/tasks`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tasks {
    pub tasks: Vec<Task>,
    /// Pass it as `after` for the next ones; None where these were the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
