//! Brings changes to the snapshot file, a moment later and off the control thread.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{info, warn};

use super::saved::Unsaved;
use super::snapshot::SnapshotFile;

/// Changes of this span are written together.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// After a failed write, before the next try.
const RETRY: Duration = Duration::from_secs(5);

type Written = Result<(), String>;

/// Collects changes for the file. What is not written yet is merged, so it never grows beyond the state itself.
pub struct Keeper {
    shared: Arc<Shared>,
    flushes: mpsc::Sender<oneshot::Sender<Written>>,
    problem: watch::Receiver<Option<String>>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Unsaved>,
    changed: Notify,
}

impl Keeper {
    /// Spawns the writing task on the current runtime. Dropping the keeper lets it write what is left and end.
    pub fn start(path: PathBuf) -> Self {
        let shared = Arc::new(Shared::default());
        let (flushes, requests) = mpsc::channel(1);
        let (problem_sender, problem) = watch::channel(None);
        let writer = Writer {
            shared: shared.clone(),
            requests,
            file: Some(SnapshotFile::new(path.clone())),
            path,
            problem: problem_sender,
        };
        tokio::spawn(writer.run());
        Self {
            shared,
            flushes,
            problem,
        }
    }

    pub fn save(&self, unsaved: Unsaved) {
        self.shared.lock().merge(unsaved);
        self.shared.changed.notify_one();
    }

    /// Writes at once what is saved by now; returns when it is on disk, or why it cannot be.
    pub async fn flush(&self) -> Written {
        let (reply, written) = oneshot::channel();
        let ended = || "the writing task has ended".to_owned();
        self.flushes.send(reply).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }

    /// Why the last write failed; None when it did not.
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Unsaved> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<oneshot::Sender<Written>>,
    path: PathBuf,
    /// Away while the blocking thread writes.
    file: Option<SnapshotFile>,
    problem: watch::Sender<Option<String>>,
}

/// Why a wait ended.
enum Wake {
    Changed,
    Flush(oneshot::Sender<Written>),
    KeeperDropped,
}

impl Writer {
    async fn run(mut self) {
        let mut pause = DEBOUNCE;
        loop {
            let wake = self.next_wake(pause).await;
            let written = self.write().await;
            pause = if written.is_ok() { DEBOUNCE } else { RETRY };
            if written.is_err() {
                self.shared.changed.notify_one();
            }
            self.report(&written);
            match wake {
                Wake::Changed => {}
                // Whoever asked may have stopped waiting.
                Wake::Flush(reply) => drop(reply.send(written)),
                Wake::KeeperDropped => return,
            }
        }
    }

    /// A change waits for more of them; a flush does not wait.
    async fn next_wake(&mut self, pause: Duration) -> Wake {
        let changed_then_pause = async {
            self.shared.changed.notified().await;
            tokio::time::sleep(pause).await;
        };
        tokio::select! {
            () = changed_then_pause => Wake::Changed,
            request = self.requests.recv() => request.map_or(Wake::KeeperDropped, Wake::Flush),
        }
    }

    async fn write(&mut self) -> Written {
        let unsaved = std::mem::take(&mut *self.shared.lock());
        if unsaved.is_empty() {
            return Ok(());
        }
        let mut file = self
            .file
            .take()
            .unwrap_or_else(|| SnapshotFile::new(self.path.clone()));
        let write = tokio::task::spawn_blocking(move || {
            let appended = file.append(&unsaved.to_batch());
            (file, unsaved, appended)
        });
        let (file, mut unsaved, appended) = write.await.map_err(|error| error.to_string())?;
        self.file = Some(file);
        appended.map_err(|error| {
            let mut pending = self.shared.lock();
            unsaved.merge(std::mem::take(&mut *pending));
            *pending = unsaved;
            error.to_string()
        })
    }

    fn report(&self, written: &Written) {
        let problem = written.as_ref().err().cloned();
        if *self.problem.borrow() == problem {
            return;
        }
        match &problem {
            Some(error) => {
                warn!(path = %self.path.display(), error, "Cannot write the snapshot file")
            }
            None => info!(path = %self.path.display(), "The snapshot file is written again"),
        }
        self.problem.send_replace(problem);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::mirror::Position;
    use super::super::snapshot::load;
    use super::*;
    use crate::api::DocumentKey;

    fn deleted(revision: u64, name: &str) -> Unsaved {
        let key = DocumentKey {
            kind: "Service".into(),
            namespace: "default".into(),
            name: name.into(),
        };
        Unsaved {
            documents: HashMap::from([(key, None)]),
            position: Position {
                store: Some("a".into()),
                revision,
            },
            ..Unsaved::default()
        }
    }

    #[tokio::test]
    async fn what_was_saved_is_on_disk_after_a_flush() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("snapshot");
        let keeper = Keeper::start(path.clone());
        keeper.save(deleted(1, "a"));
        keeper.save(deleted(2, "b"));
        keeper.flush().await.expect("a writable folder");
        assert_eq!(load(&path).saved.revision, 2);
    }

    #[tokio::test]
    async fn a_write_that_failed_is_said_and_made_up_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("not-a-folder/snapshot");
        let blocker = folder.path().join("not-a-folder");
        std::fs::write(&blocker, b"").expect("a writable folder");
        let keeper = Keeper::start(path.clone());
        keeper.save(deleted(1, "a"));
        keeper.flush().await.expect_err("a file is in the way");
        assert!(keeper.problem().is_some());
        std::fs::remove_file(&blocker).expect("a writable folder");
        keeper.flush().await.expect("nothing is in the way");
        assert_eq!((load(&path).saved.revision, keeper.problem()), (1, None));
    }
}
