//! Any text is configuration or a list of problems with places; and a bad document after a good one loses nothing.

use pillion::config::bootstrap::{self, BootstrapKind};
use pillion::config::{Loader, Source, document_identities, validate};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut loader = Loader::new();
    let source = [Source::text("mesh.yaml", text)];
    let first = loader.load(&source).is_ok();
    assert_eq!(
        loader.load(&source).is_ok(),
        first,
        "loading again changes nothing"
    );
    for problem in validate(&source) {
        let _ = problem.to_string();
    }
    if let Ok(documents) = document_identities("mesh.yaml", text) {
        for document in documents {
            let alone = document_identities("mesh.yaml", &document.text);
            assert!(
                alone.is_ok_and(|alone| alone.len() == 1),
                "a document stands alone"
            );
        }
    }
    for kind in [BootstrapKind::Sidecar, BootstrapKind::Registry] {
        let _ = bootstrap::validate(kind, "sidecar.yaml".as_ref(), text);
    }
}
