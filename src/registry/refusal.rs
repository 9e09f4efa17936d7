use std::fmt;

use http::StatusCode;

use crate::api::{ErrorBody, ErrorDetail, Problem};
use crate::store::StoreError;

/// Why a request was not done: what its answer says.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub detail: Box<ErrorDetail>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let detail = ErrorDetail {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            problems: Vec::new(),
        };
        Self {
            status,
            detail: Box::new(detail),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("{what} does not exist"),
        )
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "revision_conflict",
            message,
        )
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "limit_reached", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    pub fn problems(problems: Vec<Problem>) -> Self {
        let message = match problems.len() {
            1 => "1 problem; nothing was changed".to_owned(),
            count => format!("{count} problems; nothing was changed"),
        };
        let mut refusal = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_documents",
            message,
        );
        refusal.detail.problems = problems;
        refusal
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.detail.hint = Some(hint.into());
        self
    }

    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: (*self.detail).clone(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Limit(message) => Self::too_large(message).hint("send it in smaller parts"),
            error => Self::unavailable(error.to_string()),
        }
    }
}

/// As a human reads it in a terminal.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.detail.message)?;
        for problem in &self.detail.problems {
            write!(f, "\n  {problem}")?;
        }
        match &self.detail.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}
