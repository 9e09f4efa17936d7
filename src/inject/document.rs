//! Files of Kubernetes YAML: every pod and pod template in every document.

use serde_yaml::Value;

use super::pod::{Left, Outcome, inject_pod, settle_podman};
use super::settings::{Settings, Style};
use super::wishes::WishError;
use super::yaml::{self, text_at};
use crate::config::Problem;
use crate::config::problem::Page;
use crate::config::yaml as tree;

/// Where a pod is whose file does not say.
const DEFAULT_NAMESPACE: &str = "default";

/// A file with its sidecars.
#[derive(Clone, PartialEq, Debug)]
pub struct Injection {
    pub text: String,
    /// What has pods, in the order of the file.
    pub workloads: Vec<Workload>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// `Deployment shop`
    pub name: String,
    /// Why it has no sidecar; None where it has one.
    pub left: Option<Left>,
}

/// Puts sidecars into a file's pods. Documents in which nothing changes stay as they are, to the letter; of the others, comments
/// stay only above the first line. An error lists everything that is wrong.
pub fn inject_text(file: &str, text: &str, settings: &Settings) -> Result<Injection, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut workloads = Vec::new();
    let mut documents = Vec::new();
    for document in tree::split(text) {
        let (root, findings) = tree::parse(document.text);
        let page = Page::new(file, document.first_line, document.text);
        problems.extend(findings.iter().map(|finding| page.problem(finding)));
        let Some(root) = root else { continue };
        let before = yaml::read(&root);
        let mut after = before.clone();
        let refused = inject_object(&mut after, settings, &mut workloads);
        problems.extend(refused.into_iter().map(|refusal| Problem {
            line: document.first_line,
            column: 1,
            ..Problem::of_file(file, refusal, "")
        }));
        documents.push(match before == after {
            true => document.text.trim_matches('\n').to_owned() + "\n",
            false => opening_comments(document.text) + &yaml::write(&after),
        });
    }
    problems.retain(Problem::is_error);
    match problems.is_empty() {
        true => Ok(Injection {
            text: documents.join("---\n"),
            workloads,
        }),
        false => Err(problems),
    }
}

/// Injects into an object's pods, and says why some cannot be.
fn inject_object(
    object: &mut Value,
    settings: &Settings,
    workloads: &mut Vec<Workload>,
) -> Vec<String> {
    let kind = text_at(object, &["kind"]).unwrap_or_default().to_owned();
    if kind.ends_with("List") {
        let items = object.get_mut("items").and_then(Value::as_sequence_mut);
        return items
            .into_iter()
            .flatten()
            .flat_map(|item| inject_object(item, settings, workloads))
            .collect();
    }
    let Some(path) = pod_path(&kind) else {
        return Vec::new();
    };
    let name = text_at(object, &["metadata", "name"]).unwrap_or("without a name");
    let name = format!("{kind} {name}");
    let namespace = text_at(object, &["metadata", "namespace"]).unwrap_or(DEFAULT_NAMESPACE);
    let namespace = namespace.to_owned();
    let pod = path
        .iter()
        .try_fold(&mut *object, |value, key| value.get_mut(*key));
    let Some(pod) = pod else {
        return vec![format!("{name}: it has no {}", path.join("."))];
    };
    match inject(&kind, pod, &namespace, settings) {
        Ok(left) => {
            if left.is_none() {
                settle_podman(object, settings.style);
            }
            workloads.push(Workload { name, left });
            Vec::new()
        }
        Err(error) => vec![format!("{name}: {error}")],
    }
}

fn inject(
    kind: &str,
    pod: &mut Value,
    namespace: &str,
    settings: &Settings,
) -> Result<Option<Left>, WishError> {
    match inject_pod(pod, namespace, settings)? {
        Outcome::Left(left) => Ok(Some(left)),
        Outcome::Injected(_) if settings.style == Style::Plain && kind.ends_with("Job") => {
            Err(WishError::PlainJob)
        }
        Outcome::Injected(injected) => {
            *pod = injected;
            Ok(None)
        }
    }
}

/// Where a kind of object has its pod; None has none.
fn pod_path(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "Pod" => Some(&[]),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => Some(&["spec", "template"]),
        "CronJob" => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

fn opening_comments(text: &str) -> String {
    let comments = text
        .trim_start_matches('\n')
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('#'));
    comments.collect()
}
