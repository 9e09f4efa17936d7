//! What one process is: `sidecar.yaml`, `registry.yaml` and the environment that overrides them.
//!
//! Every key `a.b` is also the variable `PILLION_A__B`; lists and mappings there are inline YAML. Relative paths start from the
//! folder of the file they are written in, or from the process's own where a variable gives them.

mod app;
mod environment;
mod log;
mod registry;
mod sidecar;

use std::fs;
use std::path::{Path, PathBuf};

use super::decode::{Fields, decode};
use super::problem::{Page, Problem};
use super::yaml::{self, Mark, Node, Value};
use environment::Environment;

pub use log::LogSettings;
pub use registry::{InstanceLimits, RegistryBootstrap, RegistryTls};
pub use sidecar::{
    Dns, Drain, Inbound, Limits, Load, Outbound, Passthrough, RegistryClient, SidecarBootstrap,
};

impl SidecarBootstrap {
    /// Reads a file, if there is one, and the environment over it; any that are not ours are passed over.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        read(file, environment, sidecar::read)
    }
}

impl RegistryBootstrap {
    /// Reads a file, if there is one, and the environment over it; any that are not ours are passed over.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        read(file, environment, registry::read)
    }
}

/// The kind of bootstrap file a text is, by its keys; None where it is neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootstrapKind {
    Sidecar,
    Registry,
}

impl BootstrapKind {
    /// The name of such a file.
    pub fn as_str(self) -> &'static str {
        match self {
            BootstrapKind::Sidecar => "sidecar.yaml",
            BootstrapKind::Registry => "registry.yaml",
        }
    }
}

/// Tells what a file is that is no mesh document: one without `kind`, whose keys are a bootstrap's.
pub fn recognise(text: &str) -> Option<BootstrapKind> {
    const REGISTRY: [&str; 7] = [
        "data",
        "history",
        "instances",
        "insecure",
        "address",
        "tls",
        "token_file",
    ];
    const SIDECAR: [&str; 22] = [
        "service",
        "instance",
        "apps",
        "outbound",
        "inbound",
        "admin",
        "workers",
        "zone",
        "weight",
        "registry",
        "mesh",
        "snapshot",
        "access_log",
        "drain",
        "exit_with",
        "advertise",
        "limits",
        "trusted_networks",
        "intercept",
        "dns",
        "handover",
        "labels",
    ];
    let (root, _) = yaml::parse(text);
    let root = root?;
    if ["kind", "apiVersion", "metadata", "spec"]
        .iter()
        .any(|key| root.get(key).is_some())
    {
        return None;
    }
    let count = |keys: &[&str]| keys.iter().filter(|key| root.get(key).is_some()).count();
    match (count(&SIDECAR), count(&REGISTRY)) {
        (0, 0) => None,
        (sidecar, registry) if sidecar >= registry => Some(BootstrapKind::Sidecar),
        _ => Some(BootstrapKind::Registry),
    }
}

/// Every problem of a bootstrap file by itself, without the environment.
pub fn validate(kind: BootstrapKind, file: &Path, text: &str) -> Vec<Problem> {
    let environment = Environment::default();
    let problems = match kind {
        BootstrapKind::Sidecar => decode_text(Some((file, text)), environment, sidecar::read).err(),
        BootstrapKind::Registry => {
            decode_text(Some((file, text)), environment, registry::read).err()
        }
    };
    problems.unwrap_or_default()
}

fn read<T>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    decoder: Decoder<T>,
) -> Result<T, Vec<Problem>> {
    let environment = Environment::of(environment);
    let Some(path) = file else {
        return decode_text(None, environment, decoder);
    };
    match fs::read_to_string(path) {
        Ok(text) => decode_text(Some((path, &text)), environment, decoder),
        Err(error) => {
            let message = format!("cannot be read: {error}");
            let problem = Problem::of_file(path.display().to_string(), message, "check the path");
            Err(vec![problem])
        }
    }
}

type Decoder<T> = fn(&mut Fields<'_, '_>, &Paths<'_>) -> Option<T>;

/// Where relative paths start from.
pub(super) struct Paths<'e> {
    folder: PathBuf,
    environment: &'e Environment,
}

impl Paths<'_> {
    /// A path as the process opens it; `key` is where it is written.
    fn resolve(&self, key: &str, path: PathBuf) -> PathBuf {
        match self.environment.variable_of(key) {
            Some(_) => path,
            None => self.folder.join(path),
        }
    }
}

fn decode_text<T>(
    file: Option<(&Path, &str)>,
    environment: Environment,
    decoder: Decoder<T>,
) -> Result<T, Vec<Problem>> {
    let (path, text) = file.unwrap_or((Path::new(""), ""));
    let documents = yaml::split(text);
    let (part_text, first_line) = match documents.first() {
        Some(document) => (document.text, document.first_line),
        None => ("", 1),
    };
    let (root, mut findings) = yaml::parse(part_text);
    let broken = root.is_none() && !findings.is_empty();
    let mut root = match root {
        Some(root) => root,
        None => empty(),
    };
    let mut problems = environment.override_in(&mut root);
    let paths = Paths {
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        environment: &environment,
    };
    let mut value = None;
    if !broken {
        value = decode(&root, &mut findings, |cursor| {
            cursor.fields(|fields| decoder(fields, &paths))
        });
    }
    let name = if file.is_some() {
        path.display().to_string()
    } else {
        "environment".to_owned()
    };
    let page = Page::new(name.as_str(), first_line, part_text);
    problems.extend(findings.iter().map(
        |finding| match environment.variable_of(&finding.spot.path) {
            Some(variable) => environment::problem(variable, finding),
            None => page.problem(finding),
        },
    ));
    if let Some(second) = documents.get(1) {
        let message = format!("a second document begins in line {}", second.first_line);
        let hint = "a bootstrap file is one document; mesh documents go into files of their own";
        problems.push(Problem::of_file(name, message, hint));
    }
    Problem::arrange(&mut problems);
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(problems),
    }
}

fn empty() -> Node<'static> {
    Node {
        value: Value::Mapping(Vec::new()),
        mark: Mark::default(),
        end: Mark::default(),
    }
}

#[cfg(test)]
mod tests;
