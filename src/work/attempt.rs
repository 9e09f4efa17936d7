//! One attempt: the request of a task to an instance, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::record::{ANSWER_BYTES_MAX, Record};
use super::workers::Worker;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What is read of an answer.
const READ_BYTES_MAX: usize = 64 << 10;

/// The connections to instances.
#[derive(Clone)]
pub struct Courier(Client<HttpConnector, Full<Bytes>>);

/// What became of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// 2xx.
    Done { status: u16, answer: String },
    /// The instance has not taken it: it was not reached, or says that it has no room (429, 503). No attempt.
    Refused {
        error: String,
        after: Option<Duration>,
    },
    /// It may have been done in part: another answer, or none in time.
    Failed {
        status: Option<u16>,
        error: String,
        after: Option<Duration>,
    },
    /// It will not be otherwise next time: 3xx, or 4xx but 408 and 425.
    Hopeless { status: u16, answer: String },
}

impl Default for Courier {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new());
        builder.pool_idle_timeout(Duration::from_secs(20));
        Self(builder.build(connector))
    }
}

impl Courier {
    /// Sends the task and waits for its answer, no longer than its timeout.
    pub async fn send(&self, id: &str, record: &Record, worker: &Worker) -> Verdict {
        let request = match request(id, record, worker) {
            Ok(request) => request,
            // Everything was looked at when it was accepted; an address may still be none.
            Err(error) => {
                return Verdict::Refused {
                    error: format!("{}: {error}", worker.address),
                    after: None,
                };
            }
        };
        match tokio::time::timeout(record.timeout(), self.ask(request)).await {
            Ok(verdict) => verdict,
            Err(_) => failed(
                None,
                format!("no answer within {}", record.task.timeout),
                None,
            ),
        }
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Verdict {
        let response = match self.0.request(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Verdict::Refused {
                    error: chain(&error),
                    after: None,
                };
            }
            Err(error) => return failed(None, chain(&error), None),
        };
        let (head, body) = response.into_parts();
        let after = head.headers.get(http::header::RETRY_AFTER);
        let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
        let after = after.map(Duration::from_secs);
        let body = Limited::new(body, READ_BYTES_MAX).collect().await;
        let answer = match body {
            Ok(body) => beginning(&body.to_bytes()),
            // A longer one is an answer too.
            Err(error) if error.is::<http_body_util::LengthLimitError>() => String::new(),
            Err(error) => return failed(None, format!("the answer broke off: {error}"), None),
        };
        judge(head.status, answer, after)
    }
}

fn request(
    id: &str,
    record: &Record,
    worker: &Worker,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let (body, content_type) = record.body();
    let task = &record.task;
    let mut request = Request::builder()
        .method(&*task.method)
        .uri(format!("http://{}{}", worker.address, task.path))
        .header("host", format!("{}.{}", task.service, task.namespace))
        .header("x-mesh-task-id", id)
        .header("x-mesh-task-attempt", record.attempts + 1)
        .header("x-mesh-class", &task.class)
        .header("idempotency-key", id);
    if !task
        .headers
        .keys()
        .any(|name| name.eq_ignore_ascii_case("content-type"))
    {
        request = request.header("content-type", content_type);
    }
    for (name, value) in &task.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body))
}

fn judge(status: StatusCode, answer: String, after: Option<Duration>) -> Verdict {
    let code = status.as_u16();
    match code {
        200..=299 => Verdict::Done {
            status: code,
            answer,
        },
        429 | 503 => Verdict::Refused {
            error: format!("answered {code}"),
            after,
        },
        408 | 425 | 500.. => failed(Some(code), format!("answered {code}: {answer}"), after),
        _ => Verdict::Hopeless {
            status: code,
            answer,
        },
    }
}

fn failed(status: Option<u16>, error: String, after: Option<Duration>) -> Verdict {
    Verdict::Failed {
        status,
        error: beginning(error.as_bytes()),
        after,
    }
}

fn beginning(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(ANSWER_BYTES_MAX / 2)];
    String::from_utf8_lossy(bytes).into_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_to_try_again() {
        let verdict = |code: u16| {
            let status = StatusCode::from_u16(code).expect("a status");
            match judge(status, String::new(), None) {
                Verdict::Done { .. } => "done",
                Verdict::Refused { .. } => "refused",
                Verdict::Failed { .. } => "failed",
                Verdict::Hopeless { .. } => "hopeless",
            }
        };
        for (code, expected) in [
            (200, "done"),
            (204, "done"),
            (302, "hopeless"),
            (400, "hopeless"),
            (404, "hopeless"),
            (408, "failed"),
            (425, "failed"),
            (429, "refused"),
            (500, "failed"),
            (502, "failed"),
            (503, "refused"),
            (504, "failed"),
        ] {
            assert_eq!(verdict(code), expected, "{code}");
        }
    }
}
