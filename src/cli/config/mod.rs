//! `pillion config`: the mesh documents in the registry, by revision.

mod batch;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::client::{Connection, Failure, Output, problem_of};
use super::services::table;
use crate::api::client::segment;
use crate::api::{
    AUTHOR_HEADER, Acknowledged, Applied, Client, Diff, Document, Documents, History,
};
use crate::config::problem;
use batch::Batch;

#[derive(clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  pillion config apply mesh.yaml --dry-run
  pillion config apply mesh/ --wait
  pillion config get HTTPRoute cart
  pillion config history
  pillion config diff 41 42
  pillion config rollback 41 --wait

Exit codes: 0 done, and with --wait in effect everywhere; 1 refused, failed, or not everywhere yet."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Apply every document of files and folders, or none; more than 100 go in parts, each of them whole or not at all
    Apply {
        /// YAML files or folders; - is standard input
        #[arg(required = true, value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        change: Change,
    },
    /// Print a document as it was applied, or all of a kind
    Get {
        kind: String,
        /// Without a name all of the kind are printed
        name: Option<String>,
        #[arg(long, short, default_value = "default")]
        namespace: String,
        /// As it was at this revision
        #[arg(long)]
        revision: Option<u64>,
    },
    /// List the documents
    List {
        #[arg(long)]
        kind: Option<String>,
        #[arg(long, short)]
        namespace: Option<String>,
        /// As they were at this revision
        #[arg(long)]
        revision: Option<u64>,
    },
    /// Who changed what and when, newest first
    History {
        #[arg(long)]
        kind: Option<String>,
        #[arg(long, short)]
        namespace: Option<String>,
        #[arg(long)]
        name: Option<String>,
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// What changed between two revisions
    Diff {
        from: u64,
        /// The newest unless given
        to: Option<u64>,
    },
    /// Make the documents what they were at a revision; that is a new revision
    Rollback {
        to: u64,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a document
    Delete {
        kind: String,
        name: String,
        #[arg(long, short, default_value = "default")]
        namespace: String,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(clap::Args)]
struct Change {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Wait until every sidecar has it in effect; else name those that have not
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait_seconds: u64,
    /// Refuse when one of the documents was changed after this revision
    #[arg(long, value_name = "REVISION")]
    unchanged_since: Option<u64>,
    /// Who makes the change; the user's name unless given
    #[arg(long, env = "PILLION_AUTHOR")]
    author: Option<String>,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let connection = &arguments.connection;
    connection.run(async |client| match &arguments.command {
        Command::Apply { paths, change } => apply(connection, &client, paths, change).await,
        Command::Get {
            kind,
            name,
            namespace,
            revision,
        } => {
            get(
                connection,
                &client,
                kind,
                name.as_deref(),
                namespace,
                *revision,
            )
            .await
        }
        Command::List {
            kind,
            namespace,
            revision,
        } => {
            let path = query(
                "/v1/documents",
                &[
                    ("kind", kind),
                    ("namespace", namespace),
                    ("revision", &text(revision)),
                ],
            );
            let documents: Documents = client.get(&path).await?;
            connection.print(&documents, table_of_documents);
            Ok(())
        }
        Command::History {
            kind,
            namespace,
            name,
            limit,
        } => {
            let limit = Some(limit.to_string());
            let parameters = [
                ("kind", kind),
                ("namespace", namespace),
                ("name", name),
                ("limit", &limit),
            ];
            let history: History = client.get(&query("/v1/history", &parameters)).await?;
            connection.print(&history, table_of_history);
            Ok(())
        }
        Command::Diff { from, to } => {
            let diff: Diff = client
                .get(&query(
                    "/v1/diff",
                    &[("from", &text(&Some(*from))), ("to", &text(to))],
                ))
                .await?;
            connection.print(&diff, |diff| diff.diff.clone());
            Ok(())
        }
        Command::Rollback { to, change } => {
            let path = query(
                "/v1/rollback",
                &change.parameters(&[("to", &text(&Some(*to)))]),
            );
            let applied = send(&client, Method::POST, &path, Bytes::new(), change).await?;
            finish(connection, &client, applied, change).await
        }
        Command::Delete {
            kind,
            name,
            namespace,
            change,
        } => {
            let path = query(
                &document_path(kind, namespace, name),
                &change.parameters(&[]),
            );
            let applied = send(&client, Method::DELETE, &path, Bytes::new(), change).await?;
            finish(connection, &client, applied, change).await
        }
    })
}

impl Change {
    fn parameters<'a>(
        &self,
        others: &[(&'a str, &Option<String>)],
    ) -> Vec<(&'a str, Option<String>)> {
        let mut parameters: Vec<(&'a str, Option<String>)> = others
            .iter()
            .map(|(name, value)| (*name, (*value).clone()))
            .collect();
        parameters.push(("dry_run", self.dry_run.then(|| "true".to_owned())));
        parameters.push(("revision", text(&self.unchanged_since)));
        parameters
    }

    fn author(&self) -> Option<HeaderValue> {
        let user = || {
            std::env::var("USER")
                .or_else(|_| std::env::var("LOGNAME"))
                .ok()
        };
        let author = self.author.clone().or_else(user)?;
        HeaderValue::from_str(author.trim())
            .ok()
            .filter(|author| !author.is_empty())
    }
}

async fn apply(
    connection: &Connection,
    client: &Client,
    paths: &[PathBuf],
    change: &Change,
) -> Result<(), Failure> {
    let batches = Batch::of(&batch::read(paths)?)?;
    let parts = batches.len();
    let mut whole: Option<Applied> = None;
    for (index, batch) in batches.into_iter().enumerate() {
        let path = query("/v1/documents", &change.parameters(&[]));
        let sent = send(
            client,
            Method::POST,
            &path,
            batch.text.clone().into(),
            change,
        )
        .await;
        let applied = sent.map_err(|failure| {
            if index > 0 && !change.dry_run {
                eprintln!(
                    "Parts 1 to {index} of {parts} are in effect; `pillion config history` lists their revisions, \
                     `pillion config rollback` undoes them."
                );
            }
            batch.relocate(failure)
        })?;
        if parts > 1 && connection.output == Output::Text {
            eprintln!(
                "part {} of {parts}: revision {}",
                index + 1,
                applied.revision
            );
        }
        match &mut whole {
            None => whole = Some(applied),
            Some(whole) => {
                whole.revision = applied.revision;
                whole.changes.extend(applied.changes);
                whole.warnings.extend(applied.warnings);
            }
        }
    }
    match whole {
        Some(applied) => finish(connection, client, applied, change).await,
        None => Err(Failure::Other(
            "there is no document in these files".to_owned(),
        )),
    }
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: Bytes,
    change: &Change,
) -> Result<Applied, Failure> {
    let mut request = client.request(method, path, body)?;
    request
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    if let Some(author) = change.author() {
        request.headers_mut().insert(AUTHOR_HEADER, author);
    }
    let (_, body) = client.exchange(request, Duration::from_secs(60)).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Failure::Other(format!("{}: {error}", client.url())))
}

/// What a change came to, with how far it has got when that was asked for.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    applied: Applied,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<Acknowledged>,
}

async fn finish(
    connection: &Connection,
    client: &Client,
    applied: Applied,
    change: &Change,
) -> Result<(), Failure> {
    let acknowledged = match change.wait {
        true => Some(
            client
                .acknowledged(
                    applied.revision,
                    None,
                    Duration::from_secs(change.wait_seconds),
                )
                .await?,
        ),
        false => None,
    };
    let complete = acknowledged
        .as_ref()
        .is_none_or(|acknowledged| acknowledged.complete);
    connection.print(
        &Outcome {
            applied,
            acknowledged,
        },
        describe,
    );
    match complete {
        true => Ok(()),
        false => Err(Failure::Said),
    }
}

fn describe(outcome: &Outcome) -> String {
    let Outcome {
        applied,
        acknowledged,
    } = outcome;
    let warnings: Vec<_> = applied.warnings.iter().map(problem_of).collect();
    let mut text = problem::render(&warnings, false);
    for change in &applied.changes {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:<9}  {}", change.action.as_str(), change.key);
    }
    let _ = match applied.dry_run {
        true => writeln!(
            text,
            "dry run: nothing was changed; revision {}",
            applied.revision
        ),
        false => writeln!(text, "revision {}", applied.revision),
    };
    let Some(acknowledged) = acknowledged else {
        return text;
    };
    let _ = writeln!(text, "in effect in {} sidecars", acknowledged.acknowledged);
    for sidecar in &acknowledged.missing {
        let _ = writeln!(text, "missing   {sidecar}");
    }
    for rejected in &acknowledged.rejected {
        let _ = writeln!(
            text,
            "rejected  {} (revision {})",
            rejected.sidecar, rejected.revision
        );
        for problem in &rejected.problems {
            let _ = writeln!(text, "  {problem}");
        }
    }
    text
}

async fn get(
    connection: &Connection,
    client: &Client,
    kind: &str,
    name: Option<&str>,
    namespace: &str,
    revision: Option<u64>,
) -> Result<(), Failure> {
    match name {
        Some(name) => {
            let path = query(
                &document_path(kind, namespace, name),
                &[("revision", &text(&revision))],
            );
            let document: Document = client.get(&path).await?;
            connection.print(&document, |document| document.text.clone());
        }
        None => {
            let parameters = [
                ("kind", Some(kind.to_owned())),
                ("namespace", Some(namespace.to_owned())),
                ("revision", text(&revision)),
            ];
            let documents: Documents = client.get(&query("/v1/documents", &parameters)).await?;
            connection.print(&documents, |documents| {
                let texts: Vec<&str> = documents
                    .documents
                    .iter()
                    .map(|document| document.text.as_str())
                    .collect();
                texts.join("---\n")
            });
        }
    }
    Ok(())
}

fn document_path(kind: &str, namespace: &str, name: &str) -> String {
    format!(
        "/v1/documents/{}/{}/{}",
        segment(kind),
        segment(namespace),
        segment(name)
    )
}

fn text(number: &Option<u64>) -> Option<String> {
    number.map(|number| number.to_string())
}

/// A path with those parameters that have a value.
fn query<V: std::borrow::Borrow<Option<String>>>(path: &str, parameters: &[(&str, V)]) -> String {
    let given = parameters
        .iter()
        .filter_map(|(name, value)| value.borrow().as_ref().map(|value| (name, value)));
    let pairs: Vec<String> = given
        .map(|(name, value)| format!("{name}={}", segment(value)))
        .collect();
    match pairs.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", pairs.join("&")),
    }
}

fn table_of_documents(found: &Documents) -> String {
    let head = ["KIND", "NAMESPACE", "NAME", "REVISION", "CHANGED", "AUTHOR"]
        .map(str::to_owned)
        .to_vec();
    let rows = found.documents.iter().map(|document| {
        let key = &document.key;
        let texts = [
            &key.kind,
            &key.namespace,
            &key.name,
            &document.revision.to_string(),
            &document.time,
            &document.author,
        ];
        texts.map(|text| text.to_owned()).to_vec()
    });
    table(head, rows.collect())
}

fn table_of_history(history: &History) -> String {
    let head = ["REVISION", "TIME", "AUTHOR", "CHANGES"]
        .map(str::to_owned)
        .to_vec();
    let rows = history.revisions.iter().map(|entry| {
        let changes: Vec<String> = entry
            .changes
            .iter()
            .map(|change| format!("{} {}", change.action.as_str(), change.key))
            .collect();
        let mut changes = match changes.len() {
            0..=3 => changes.join(", "),
            count => format!("{} and {} more", changes[..3].join(", "), count - 3),
        };
        if let Some(reason) = &entry.reason {
            changes = format!("{reason}: {changes}");
        }
        vec![
            entry.revision.to_string(),
            entry.time.clone(),
            entry.author.clone(),
            changes,
        ]
    });
    table(head, rows.collect())
}
