//! OpenAPI 3 and Swagger 2.0: paths and methods, below the paths of `servers` (3.x) or the `basePath` (2.0). Parameters, bodies and
//! answers are not looked at.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::path::Template;
use super::{Operation, Wrong};

#[derive(Deserialize)]
struct Description {
    openapi: Option<String>,
    swagger: Option<String>,
    servers: Option<Vec<Server>>,
    #[serde(rename = "basePath")]
    base_path: Option<String>,
    #[serde(default)]
    paths: BTreeMap<String, PathItem>,
    #[serde(default)]
    components: Components,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Components {
    #[serde(rename = "pathItems")]
    path_items: BTreeMap<String, PathItem>,
}

#[derive(Deserialize, Clone)]
struct Server {
    url: String,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
}

#[derive(Deserialize, Clone)]
struct Variable {
    default: String,
}

#[derive(Deserialize)]
struct PathItem {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    servers: Option<Vec<Server>>,
    get: Option<Declared>,
    put: Option<Declared>,
    post: Option<Declared>,
    delete: Option<Declared>,
    options: Option<Declared>,
    head: Option<Declared>,
    patch: Option<Declared>,
    trace: Option<Declared>,
    query: Option<Declared>,
    /// Other methods, by name (3.2).
    #[serde(default, rename = "additionalOperations")]
    additional: BTreeMap<String, Declared>,
    #[serde(flatten)]
    _others: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct Declared {
    #[serde(rename = "operationId")]
    id: Option<String>,
    servers: Option<Vec<Server>>,
}

pub fn operations(text: &str) -> Result<Vec<Operation>, Wrong> {
    let description: Description = serde_yaml::from_str(text).map_err(|error| {
        let hint = "it is to be OpenAPI 3 or Swagger 2.0, in YAML or JSON";
        (format!("cannot be understood: {error}"), hint)
    })?;
    if description.openapi.is_none() && description.swagger.is_none() {
        let message = "says neither `openapi:` nor `swagger:`".to_owned();
        return Err((message, "it is to be OpenAPI 3 or Swagger 2.0"));
    }
    let mut operations = Vec::new();
    for (path, item) in &description.paths {
        // `x-…` are extensions.
        if path.starts_with("x-") {
            continue;
        }
        if !path.starts_with('/') {
            let message = format!("the path `{path}` does not begin with `/`");
            return Err((message, "write it with one"));
        }
        description.add(path, item, &mut operations);
    }
    Ok(operations)
}

impl Description {
    fn add(&self, path: &str, item: &PathItem, operations: &mut Vec<Operation>) {
        let Some(item) = self.resolved(item) else {
            // Of another file, which may have every method.
            operations.extend(self.below(None, None).map(|base| Operation {
                name: None,
                method: None,
                path: Template::new(base + path),
            }));
            return;
        };
        for (method, declared) in item.operations() {
            let servers = (declared.servers.as_ref(), item.servers.as_ref());
            operations.extend(self.below(servers.0, servers.1).map(|base| Operation {
                name: declared.id.clone(),
                method: Some(method.to_ascii_uppercase()),
                path: Template::new(base + path),
            }));
        }
    }

    /// Where `$ref` leads; None where that is not here. One step: a reference to a reference is not allowed to be followed for ever.
    fn resolved<'d>(&'d self, item: &'d PathItem) -> Option<&'d PathItem> {
        let Some(reference) = &item.reference else {
            return Some(item);
        };
        let found = match reference.strip_prefix("#/paths/") {
            Some(path) => self.paths.get(&path.replace("~1", "/").replace("~0", "~")),
            None => {
                let name = reference.strip_prefix("#/components/pathItems/")?;
                self.components.path_items.get(name)
            }
        };
        found.filter(|found| found.reference.is_none())
    }

    /// The paths that an operation's stands below: those of the nearest servers, without a `/` behind.
    fn below(
        &self,
        of_operation: Option<&Vec<Server>>,
        of_item: Option<&Vec<Server>>,
    ) -> impl Iterator<Item = String> + use<> {
        let servers = of_operation.or(of_item).or(self.servers.as_ref());
        let mut bases: Vec<String> = match (&self.base_path, servers) {
            (Some(base), _) if self.swagger.is_some() => vec![path_of(base)],
            (_, Some(servers)) if !servers.is_empty() => {
                servers.iter().map(Server::base_path).collect()
            }
            _ => vec![String::new()],
        };
        bases.sort_unstable();
        bases.dedup();
        bases.into_iter()
    }
}

impl PathItem {
    fn operations(&self) -> impl Iterator<Item = (&str, &Declared)> {
        let known = [
            ("get", &self.get),
            ("put", &self.put),
            ("post", &self.post),
            ("delete", &self.delete),
            ("options", &self.options),
            ("head", &self.head),
            ("patch", &self.patch),
            ("trace", &self.trace),
            ("query", &self.query),
        ];
        let known = known
            .into_iter()
            .filter_map(|(method, declared)| Some((method, declared.as_ref()?)));
        let additional = self.additional.iter();
        known.chain(additional.map(|(method, declared)| (&**method, declared)))
    }
}

impl Server {
    fn base_path(&self) -> String {
        let mut url = self.url.clone();
        for (name, variable) in &self.variables {
            url = url.replace(&format!("{{{name}}}"), &variable.default);
        }
        path_of(match url.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
            None => &url,
        })
    }
}

/// With a `/` before it, and none behind it.
fn path_of(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    match text[..end].trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}
