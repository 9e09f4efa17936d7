//! The embedded engine's file: locked, versioned, checked, and never made anew over an old one.

use std::fs;
use std::path::Path;

use pillion::store::embedded::{Embedded, OpenError, Options};
use pillion::store::{KeyRange, Operation, Range, Store, StoreError, Txn};
use redb::{Database, TableDefinition};

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(&Options::new(path))
}

fn refusal(path: &Path) -> OpenError {
    open(path).err().expect("the file is refused")
}

async fn fill(path: &Path) -> String {
    let store = open(path).unwrap();
    for n in 0..200 {
        let put = Operation::put(format!("key{n}"), vec![b'x'; 1_000]);
        store.txn(Txn::of(vec![put])).await.unwrap();
    }
    store.id().to_owned()
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    let id = fill(&path).await;
    let store = open(&path).unwrap();
    assert_eq!(store.id(), id);
    assert_eq!(store.revision().await.unwrap(), 200);
    let page = store.range(Range::of(KeyRange::all())).await.unwrap();
    assert_eq!(page.entries.len(), 200);
    // Watches reach back to the start of this process only.
    let compacted = store.watch(KeyRange::all(), 199).await.err();
    assert_eq!(compacted, Some(StoreError::Compacted { oldest: 200 }));
    assert!(store.watch(KeyRange::all(), 200).await.is_ok());
}

#[tokio::test]
async fn a_second_process_is_told_that_the_file_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    let _store = open(&path).unwrap();
    assert!(matches!(refusal(&path), OpenError::InUse { .. }));
}

#[tokio::test]
async fn a_newer_format_is_refused_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    fill(&path).await;
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let meta: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
    write
        .open_table(meta)
        .unwrap()
        .insert("format", &99u64.to_be_bytes()[..])
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let refused = refusal(&path);
    assert!(
        matches!(refused, OpenError::Newer { found: 99, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.redb");
    fill(&path).await;
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let mut noise = whole.clone();
    for byte in &mut flipped[whole.len() / 4..whole.len() / 2] {
        *byte ^= 0x55;
    }
    noise.fill(0xA5);
    let cut_short = |length: usize| whole[..length].to_vec();
    let cases = [
        ("empty", Vec::new()),
        ("a few bytes", cut_short(10)),
        ("the head only", cut_short(4096)),
        ("half", cut_short(whole.len() / 2)),
        ("flipped bytes", flipped),
        ("noise", noise),
        ("another kind of file", b"kind: Service\nname: a\n".to_vec()),
    ];
    for (name, bytes) in cases {
        fs::write(&path, &bytes).unwrap();
        let refused = refusal(&path);
        assert!(
            matches!(refused, OpenError::Damaged { .. }),
            "{name}: {refused:?}"
        );
        assert!(
            refused.to_string().contains("restore a backup"),
            "{name}: {refused}"
        );
        assert!(
            fs::read(&path).unwrap() == bytes,
            "{name}: the file was changed"
        );
    }
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_named() {
    let refused = refusal(Path::new("/nowhere/at/all/registry.redb"));
    assert!(matches!(refused, OpenError::Io { .. }), "{refused:?}");
    assert!(refused.to_string().contains("/nowhere/at/all"));
}
