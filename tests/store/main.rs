//! The store: one suite for every engine (`suite`), and what only the embedded one can do wrong (`file`).

#[macro_use]
mod suite;
mod file;

mod embedded {
    use std::sync::Arc;

    use pillion::store::Store;
    use pillion::store::embedded::{Embedded, Options};

    /// A fresh store; the folder goes when it is dropped.
    pub async fn open() -> (Arc<dyn Store>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&Options::new(folder.path().join("registry.redb"))).unwrap();
        (Arc::new(store), folder)
    }

    suite!(open);
}
