//! Protocol Buffers: the methods of each `service`, which gRPC calls as `POST /package.Service/Method`. Imports are not read, as
//! services stand in the file itself.

use super::path::Template;
use super::{Operation, Wrong};

pub fn operations(name: &str, text: &str) -> Result<Vec<Operation>, Wrong> {
    let file = protox_parse::parse(name, text).map_err(|error| {
        let hint = "it is to be a Protocol Buffers file";
        (format!("cannot be understood: {error}"), hint)
    })?;
    let package = match file.package() {
        "" => String::new(),
        package => format!("{package}."),
    };
    let methods = file.service.iter().flat_map(|service| {
        let below = format!("/{package}{}", service.name());
        let methods = service.method.iter();
        methods.map(move |method| Operation {
            name: None,
            method: Some("POST".to_owned()),
            path: Template::new(format!("{below}/{}", method.name())),
        })
    });
    Ok(methods.collect())
}
