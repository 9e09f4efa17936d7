//! A task as the store has it, and what is accepted as one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{NewTask, Task, TaskState};
use crate::base::units::parse_duration;
use crate::model::{Class, Name};

/// Milliseconds since 1970.
pub type Millis = u64;

/// Longest wait before a first attempt, and between two.
const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3_600);
const ATTEMPTS_MAX: u32 = 1_000;
const KEY_BYTES_MAX: usize = 256;
/// As it is stored, without what becomes of it.
const TASK_BYTES_MAX: usize = 52 << 10;
/// What the mesh itself says to the application.
const RESERVED: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

/// Beside what was submitted, what has become of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    pub task: NewTask,
    pub state: TaskState,
    pub created: Millis,
    pub due: Millis,
    #[serde(default)]
    pub finished: Option<Millis>,
    #[serde(default)]
    pub attempts: u32,
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub answer: Option<String>,
}

/// Why a task is not accepted: the field, what is wrong, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    pub field: &'static str,
    pub message: String,
    pub hint: &'static str,
}

fn wrong<T>(
    field: &'static str,
    message: impl Into<String>,
    hint: &'static str,
) -> Result<T, Wrong> {
    Err(Wrong {
        field,
        message: message.into(),
        hint,
    })
}

impl Record {
    /// A task that is accepted now.
    pub fn new(task: NewTask, now: Millis) -> Result<Self, Wrong> {
        check_target(&task)?;
        check_headers(&task)?;
        if Class::from_bytes(task.class.as_bytes()).is_none() {
            let message = format!("`{}` is no class", task.class);
            return wrong("class", message, "critical, default, batch or best-effort");
        }
        if task
            .key
            .as_ref()
            .is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX)
        {
            return wrong("key", "it is empty or too long", "1 to 256 bytes");
        }
        let timeout = duration("timeout", &task.timeout)?;
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            return wrong("timeout", "it is out of range", "1ms to 24h");
        }
        let retry = &task.retry;
        if !(1..=ATTEMPTS_MAX).contains(&retry.attempts) {
            return wrong("retry.attempts", "it is out of range", "1 to 1000");
        }
        duration("retry.backoff", &retry.backoff)?;
        duration("retry.backoff_max", &retry.backoff_max)?;
        body(&task)?;
        let due = due(&task, now)?;
        if let Some(deadline) = &task.deadline
            && time("deadline", deadline)? <= due
        {
            return wrong(
                "deadline",
                "it comes before the first attempt",
                "a later time",
            );
        }
        let record = Self {
            task,
            state: TaskState::Scheduled,
            created: now,
            due,
            finished: None,
            attempts: 0,
            instance: None,
            status: None,
            error: None,
            answer: None,
        };
        if record.to_bytes().len() > TASK_BYTES_MAX {
            return wrong(
                "body",
                "the task is too large",
                "52 KiB at most; say where the rest is instead",
            );
        }
        Ok(record)
    }

    pub fn service(&self) -> Name {
        Name::new(&self.task.namespace, &self.task.service)
    }

    pub fn class(&self) -> Class {
        Class::from_bytes(self.task.class.as_bytes()).unwrap_or_default()
    }

    pub fn deadline(&self) -> Option<Millis> {
        time_of(self.task.deadline.as_ref()?)
    }

    /// It was looked at when it was accepted.
    pub fn timeout(&self) -> Duration {
        parse_duration(&self.task.timeout).unwrap_or(TIMEOUT_MAX)
    }

    /// The bytes to send, and of what kind they are.
    pub fn body(&self) -> (Bytes, &'static str) {
        body(&self.task).unwrap_or_default()
    }

    /// The wait after so many failures, without jitter.
    pub fn backoff(&self) -> crate::base::backoff::Backoff {
        let read = |text: &str| parse_duration(text).unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let retry = &self.task.retry;
        crate::base::backoff::Backoff::new(read(&retry.backoff), read(&retry.backoff_max))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts, numbers and JSON always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// As it is told, with a state that only memory knows.
    pub fn view(self, id: &str, state: TaskState) -> Task {
        Task {
            id: id.to_owned(),
            state,
            attempts: self.attempts,
            created: rfc3339(self.created),
            due: rfc3339(self.due),
            finished: self.finished.map(rfc3339),
            instance: self.instance,
            status: self.status,
            error: self.error,
            answer: self.answer,
            task: self.task,
        }
    }
}

/// The beginning of an answer that is kept.
pub const ANSWER_BYTES_MAX: usize = 4 << 10;

fn check_target(task: &NewTask) -> Result<(), Wrong> {
    let is_name = |text: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !text.is_empty() && text.len() <= 253 && text.bytes().all(fits)
    };
    if !is_name(&task.service) {
        return wrong("service", "it is no name of a service", "such as cart");
    }
    if !is_name(&task.namespace) {
        return wrong(
            "namespace",
            "it is no name of a namespace",
            "such as default",
        );
    }
    let is_path = task.path.starts_with('/') && task.path.parse::<Uri>().is_ok();
    if !is_path {
        return wrong("path", "it is no path", "such as /tasks");
    }
    match Method::from_bytes(task.method.as_bytes()) {
        Ok(method) if method != Method::CONNECT => Ok(()),
        _ => wrong("method", "it is no method for a task", "such as POST"),
    }
}

fn check_headers(task: &NewTask) -> Result<(), Wrong> {
    for (name, value) in &task.headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return wrong(
                "headers",
                format!("`{name}` is no name of a header"),
                "such as x-user",
            );
        };
        if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("x-mesh-") {
            return wrong(
                "headers",
                format!("`{name}` is the mesh's to say"),
                "leave it out",
            );
        }
        if HeaderValue::from_str(value).is_err() {
            return wrong(
                "headers",
                format!("the value of `{name}` cannot be sent"),
                "visible ASCII",
            );
        }
    }
    Ok(())
}

fn body(task: &NewTask) -> Result<(Bytes, &'static str), Wrong> {
    match (&task.body, &task.body_b64) {
        (Value::Null, None) => Ok((Bytes::new(), "application/json")),
        (Value::Null, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Ok((bytes.into(), "application/octet-stream")),
            Err(_) => wrong("body_b64", "it is not Base64", "or say `body`"),
        },
        (Value::String(text), None) => Ok((text.clone().into(), "text/plain; charset=utf-8")),
        (json, None) => Ok((json.to_string().into(), "application/json")),
        (_, Some(_)) => wrong("body_b64", "`body` is there too", "say one of them"),
    }
}

fn due(task: &NewTask, now: Millis) -> Result<Millis, Wrong> {
    match (&task.delay, &task.at) {
        (None, None) => Ok(now),
        (Some(delay), None) => Ok(now + duration("delay", delay)?.as_millis() as Millis),
        (None, Some(at)) => {
            let at = time("at", at)?;
            match at > now + WAIT_MAX.as_millis() as Millis {
                true => wrong("at", "it is too far away", "366 days at most"),
                false => Ok(at.max(now)),
            }
        }
        (Some(_), Some(_)) => wrong("at", "`delay` is there too", "say one of them"),
    }
}

fn duration(field: &'static str, text: &str) -> Result<Duration, Wrong> {
    match parse_duration(text) {
        Ok(duration) if duration <= WAIT_MAX => Ok(duration),
        Ok(_) => wrong(field, "it is too long", "366 days at most"),
        Err(error) => wrong(
            field,
            format!("`{text}`: {error}"),
            "such as 500ms, 30s or 2h",
        ),
    }
}

fn time(field: &'static str, text: &str) -> Result<Millis, Wrong> {
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(Millis::try_from(time.as_millisecond()).unwrap_or(0)),
        Err(_) => wrong(
            field,
            format!("`{text}` is no time"),
            "such as 2026-01-31T18:00:00Z",
        ),
    }
}

/// Of RFC 3339; None for what is none.
pub fn time_of(text: &str) -> Option<Millis> {
    time("", text).ok()
}

pub fn rfc3339(time: Millis) -> String {
    let time = i64::try_from(time)
        .ok()
        .and_then(|time| Timestamp::from_millisecond(time).ok());
    time.map_or_else(String::new, |time| time.to_string())
}

pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
}

/// By time, then by chance: 48 and 80 bits, so that ids sort by when they were given.
pub fn new_id(now: Millis, rng: &mut fastrand::Rng) -> String {
    format!("{now:012x}{:020x}", rng.u128(..) & ((1 << 80) - 1))
}
