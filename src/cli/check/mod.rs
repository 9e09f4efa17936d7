//! `pillion check`: every problem of configuration files, before anything runs on them.

mod diff;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use crate::config::{self, Loader, Problem, Source, bootstrap, problem, source, status};
use crate::model::Status;

/// Checks files and folders: mesh documents together, as one mesh, and each sidecar.yaml or registry.yaml by itself.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pillion check sidecar.yaml mesh/\n  pillion check --status mesh/\n  \
    pillion check --diff mesh/ changed/ --requests access.log\n\n\
    Exits 0 when nothing stands against applying the files (warnings do not), else 1. With --diff, 0 when every request fares\n\
    as before, else 1."
)]
pub struct Arguments {
    /// Files, or folders of *.yaml and *.yml
    #[arg(required_unless_present = "diff", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Two files or folders: which recorded requests would fare otherwise with the second
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], requires = "requests", conflicts_with = "files")]
    diff: Vec<PathBuf>,
    /// With --diff: lines of an access log, as JSON
    #[arg(long, value_name = "FILE", requires = "diff")]
    requests: Option<PathBuf>,
    /// With --diff: the namespace of the applications whose requests a sidecar's log has
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    from: String,
    /// How to print what is found
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Also show the status of each Gateway, listener and route: the conditions of the Gateway API and their reasons
    #[arg(long)]
    status: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    if let ([old, new], Some(requests)) = (&arguments.diff[..], &arguments.requests) {
        return run_diff(old, new, requests, &arguments.from);
    }
    let report = Report::of(&arguments.files);
    // A reader that went away, such as `head`, is no failure of the check.
    let _ = match arguments.output {
        Output::Text => report.print_text(arguments.status),
        Output::Json => report.print_json(),
    };
    if report.problems.iter().any(Problem::is_error) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn run_diff(old: &Path, new: &Path, requests: &Path, namespace: &str) -> ExitCode {
    match diff::compare(old, new, requests, namespace) {
        Ok(differences) => {
            // A reader that went away, such as `head`, is no failure of the check.
            let _ = differences.print(&mut io::stdout().lock());
            match differences.any() {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            eprintln!("pillion check: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was found in all files.
struct Report {
    problems: Vec<Problem>,
    statuses: Vec<Status>,
    /// How many documents of each kind there are.
    kinds: BTreeMap<&'static str, usize>,
}

impl Report {
    fn of(files: &[PathBuf]) -> Self {
        let mut problems = Vec::new();
        let mut kinds = BTreeMap::new();
        let mut mesh = Vec::new();
        let mut seen = HashSet::new();
        for file in files {
            match source::read(file) {
                // The same file may be named twice, as itself and by its folder.
                Ok(sources) => mesh.extend(sources.into_iter().filter(|s| seen.insert(real(s)))),
                Err(unreadable) => problems.extend(unreadable),
            }
        }
        mesh.retain(|source| {
            let Some(kind) = bootstrap::recognise(&source.text) else {
                return true;
            };
            let path = PathBuf::from(source.origin.to_string());
            problems.extend(bootstrap::validate(kind, &path, &source.text));
            *kinds.entry(kind.as_str()).or_default() += 1;
            false
        });
        let (snapshot, found) = Loader::new().judge_by_interfaces(&mesh);
        problems.extend(found);
        count_kinds(&mesh, &mut kinds);
        Problem::arrange(&mut problems);
        Self {
            problems,
            statuses: snapshot.statuses,
            kinds,
        }
    }

    fn print_text(&self, status: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        write!(out, "{}", problem::render(&self.problems, colour))?;
        if status {
            write!(out, "{}", status::to_text(&self.statuses))?;
        }
        let errors = self
            .problems
            .iter()
            .filter(|problem| problem.is_error())
            .count();
        match errors {
            0 => writeln!(out, "ok: {}", self.summary()),
            1 => writeln!(out, "1 error"),
            _ => writeln!(out, "{errors} errors"),
        }
    }

    /// `2 Gateway, 5 HTTPRoute, 3 Service`
    fn summary(&self) -> String {
        if self.kinds.is_empty() {
            return "no documents".to_owned();
        }
        let counts = self
            .kinds
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    fn print_json(&self) -> io::Result<()> {
        let ok = !self.problems.iter().any(Problem::is_error);
        let report = serde_json::json!({
            "ok": ok, "documents": self.kinds, "problems": self.problems,
            "statuses": status::to_json(&self.statuses),
        });
        writeln!(io::stdout().lock(), "{report:#}")
    }
}

fn real(source: &Source) -> PathBuf {
    let path = PathBuf::from(source.origin.to_string());
    path.canonicalize().unwrap_or(path)
}

fn count_kinds(mesh: &[Source], kinds: &mut BTreeMap<&'static str, usize>) {
    for source in mesh {
        let name = source.origin.to_string();
        for document in config::document_identities(&name, &source.text).unwrap_or_default() {
            *kinds.entry(document.kind).or_default() += 1;
        }
    }
}
