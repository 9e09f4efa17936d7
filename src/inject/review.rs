//! An admission webhook's question, and its answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use serde_yaml::Value;

use super::patch;
use super::pod::{Outcome, inject_pod, is_injected};
use super::settings::Settings;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why there is no answer but a refusal of the request.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("the body is no AdmissionReview: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the body is `{api_version}` `{kind}`; this webhook answers {API_VERSION} {KIND}")]
    Other { api_version: String, kind: String },
    #[error("the AdmissionReview has no request")]
    NoRequest,
    #[error("the AdmissionReview's request has no uid")]
    NoUid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    object: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

/// What the webhook says to a request.
enum Verdict {
    Unchanged,
    /// As it is, with a word to whoever created it.
    Warned(String),
    Patched(Vec<patch::Operation>),
    Denied(String),
}

/// Answers an AdmissionReview. Pods that are created with the label get a sidecar; everything else, and pods that have one already,
/// is allowed as it is. A pod whose annotations cannot be understood is denied: without its sidecar it would be out of the mesh
/// unnoticed.
pub fn review(body: &[u8], settings: &Settings) -> Result<serde_json::Value, ReviewError> {
    let review: Review = serde_json::from_slice(body)?;
    if (&*review.api_version, &*review.kind) != (API_VERSION, KIND) {
        return Err(ReviewError::Other {
            api_version: review.api_version,
            kind: review.kind,
        });
    }
    let request = review.request.ok_or(ReviewError::NoRequest)?;
    if request.uid.is_empty() {
        return Err(ReviewError::NoUid);
    }
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "response": response(&request.uid, verdict(&request, settings)),
    }))
}

fn verdict(request: &Request, settings: &Settings) -> Verdict {
    let pod = match &request.object {
        Some(pod) if request.kind.kind == "Pod" && request.operation == "CREATE" => pod,
        _ => return Verdict::Unchanged,
    };
    if is_injected(pod) {
        return Verdict::Unchanged;
    }
    match inject_pod(pod, &request.namespace, settings) {
        Ok(Outcome::Injected(injected)) => Verdict::Patched(patch::between(pod, &injected)),
        Ok(Outcome::Left(left)) if left.surprises() => {
            Verdict::Warned(format!("this pod gets no sidecar of pillion: {left}"))
        }
        Ok(Outcome::Left(_)) => Verdict::Unchanged,
        Err(error) => Verdict::Denied(format!("pillion: {error}")),
    }
}

fn response(uid: &str, verdict: Verdict) -> serde_json::Value {
    match verdict {
        Verdict::Unchanged => json!({"uid": uid, "allowed": true}),
        Verdict::Warned(warning) => json!({"uid": uid, "allowed": true, "warnings": [warning]}),
        Verdict::Patched(operations) => json!({
            "uid": uid,
            "allowed": true,
            "patchType": "JSONPatch",
            // Texts and numbers always serialize.
            "patch": STANDARD.encode(serde_json::to_vec(&operations).unwrap_or_default()),
        }),
        Verdict::Denied(message) => json!({
            "uid": uid,
            "allowed": false,
            "status": {"code": 400, "reason": "BadRequest", "message": message},
        }),
    }
}
