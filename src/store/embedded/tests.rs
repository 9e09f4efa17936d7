//! A disk that fails: one operation at a time, until none does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::store::Operation;

/// The n-th sync from now fails, and every one after it.
#[derive(Debug)]
struct FailingDisk {
    inner: InMemoryBackend,
    syncs_left: Arc<AtomicUsize>,
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let left = self
            .syncs_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        match left {
            Ok(_) => self.inner.sync_data(),
            Err(_) => Err(io::Error::other("the disk is gone")),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}

fn store_on(syncs_left: Arc<AtomicUsize>) -> Embedded {
    let disk = FailingDisk {
        inner: InMemoryBackend::new(),
        syncs_left,
    };
    let database = Database::builder().create_with_backend(disk).unwrap();
    file::initialize(&database).unwrap();
    let Ok(opened) = file::read_meta(database) else {
        panic!("a fresh database is readable")
    };
    Embedded::start(opened, &Options::new("unused"))
}

#[tokio::test]
async fn a_failed_fsync_ends_the_store_and_is_never_answered_as_done() {
    for failing in 0..8 {
        let syncs_left = Arc::new(AtomicUsize::new(usize::MAX));
        let store = store_on(syncs_left.clone());
        syncs_left.store(failing, Ordering::SeqCst);
        let mut answered = 0;
        let failure = loop {
            let put = Operation::put(format!("key{answered}"), "value");
            match store.txn(Txn::of(vec![put])).await {
                Ok(outcome) => answered = outcome.revision,
                Err(error) => break error,
            }
        };
        assert!(matches!(failure, StoreError::Failed(_)), "{failure}");
        assert!(store.failed().await.contains("disk is gone"), "{failure}");
        assert_eq!(
            store.window.revision(),
            answered,
            "what was not answered is not shown either"
        );
        let after = store.txn(Txn::of(vec![Operation::put("later", "x")])).await;
        assert!(
            matches!(after, Err(StoreError::Failed(_))),
            "nothing is tried again"
        );
    }
}
