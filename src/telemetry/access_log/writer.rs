//! The buffers of the workers and the thread that empties them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::output::Sink;
use super::record::Clock;
use super::{AccessLogError, Field, Record, Settings};
use crate::telemetry::metrics::{Counter, Registry};

/// A buffer this long is fetched at once.
const BATCH_BYTES: usize = 64 * 1024;
/// A buffer this long takes no more lines: the disk does not keep up.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// The longest time a line waits, and how often a renamed file is looked for.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// The running log. Dropping it writes what has been buffered so far and ends the thread.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// One worker's side of the log.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    buffer: Arc<Buffer>,
    clock: Clock,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Shared {
    fields: Vec<Field>,
    sampling: f64,
    buffers: Mutex<Vec<Arc<Buffer>>>,
    wanted: Mutex<Wanted>,
    wake: Condvar,
    dropped: Counter,
}

/// What the thread is woken for.
#[derive(Debug, Default)]
struct Wanted {
    flush: bool,
    stop: bool,
}

/// Lines of one worker. Its lock is contended only for the moment in which the thread swaps the buffer for an empty one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Buffer {
    lines: Mutex<Vec<u8>>,
}

pub fn start(settings: Settings, metrics: &Registry) -> Result<AccessLog, AccessLogError> {
    let sink = Sink::open(settings.output)?;
    let shared = Arc::new(Shared {
        fields: settings.fields,
        sampling: settings.sampling,
        buffers: Mutex::default(),
        wanted: Mutex::default(),
        wake: Condvar::new(),
        dropped: metrics.counter(
            "pillion_access_log_dropped_total",
            "Access log lines lost because the output was too slow or failed.",
        ),
    });
    let run = {
        let shared = shared.clone();
        move || run(&shared, sink)
    };
    let builder = std::thread::Builder::new().name("access-log".into());
    let thread = builder.spawn(run).map_err(AccessLogError::Thread)?;
    Ok(AccessLog {
        shared,
        thread: Some(thread),
    })
}

impl AccessLog {
    /// For one worker.
    pub fn writer(&self) -> Writer {
        let buffer = Arc::new(Buffer::default());
        lock(&self.shared.buffers).push(buffer.clone());
        Writer {
            shared: self.shared.clone(),
            buffer,
            clock: Clock::default(),
            rng: fastrand::Rng::new(),
        }
    }

    /// Writes all lines soon and looks whether the file was renamed; for SIGHUP.
    pub fn reopen(&self) {
        self.shared.wake(|wanted| wanted.flush = true);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.wake(|wanted| wanted.stop = true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to write.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Formats the record, if it is among those that are written. Waits for nothing.
    pub fn write(&mut self, record: &Record) {
        let sampling = self.shared.sampling;
        if sampling < 1.0 && !record.is_failure() && self.rng.f64() >= sampling {
            return;
        }
        let mut lines = lock(&self.buffer.lines);
        let before = lines.len();
        if before >= BUFFER_BYTES_MAX {
            self.shared.dropped.increment();
            return;
        }
        record.format(&self.shared.fields, &mut self.clock, &mut lines);
        let is_batch = before < BATCH_BYTES && lines.len() >= BATCH_BYTES;
        drop(lines);
        if is_batch {
            self.shared.wake(|wanted| wanted.flush = true);
        }
    }
}

impl Shared {
    fn wake(&self, want: impl FnOnce(&mut Wanted)) {
        want(&mut lock(&self.wanted));
        self.wake.notify_one();
    }

    /// Waits for a batch, the interval's end or the log's; true for the last.
    fn wait(&self) -> bool {
        let wanted = lock(&self.wanted);
        let nothing = |wanted: &mut Wanted| !wanted.flush && !wanted.stop;
        let waited = self
            .wake
            .wait_timeout_while(wanted, FLUSH_INTERVAL, nothing);
        let (mut wanted, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wanted.flush = false;
        wanted.stop
    }
}

/// The thread: fetches each buffer for an empty one and writes it out.
fn run(shared: &Shared, mut sink: Sink) {
    let mut spare = Vec::new();
    let mut failing = false;
    loop {
        let stop = shared.wait();
        let reopened = sink.follow_rename();
        let buffers = lock(&shared.buffers).clone();
        let mut written = Ok(());
        for buffer in &buffers {
            std::mem::swap(&mut *lock(&buffer.lines), &mut spare);
            if let Err(error) = sink.write_all(&spare) {
                let lines = memchr::memchr_iter(b'\n', &spare).count();
                shared.dropped.add(lines as u64);
                written = Err(error);
            }
            spare.clear();
        }
        drop(buffers);
        forget_closed(shared);
        report(&mut failing, reopened.and(written));
        if stop {
            return;
        }
    }
}

/// Forgets the buffers of workers that have ended, once they are empty.
fn forget_closed(shared: &Shared) {
    lock(&shared.buffers)
        .retain(|buffer| Arc::strong_count(buffer) > 1 || !lock(&buffer.lines).is_empty());
}

/// Once when it begins to fail, and once when it works again.
fn report(failing: &mut bool, result: std::io::Result<()>) {
    match &result {
        Err(error) if !*failing => tracing::error!(%error, "Access log cannot be written"),
        Ok(()) if *failing => tracing::info!("Access log is written again"),
        Err(_) | Ok(()) => {}
    }
    *failing = result.is_err();
}

/// Nothing under these locks leaves a half-done state behind when it panics: at worst a half-formatted line.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Output;
    use super::*;

    fn log_to(path: &Path, sampling: f64) -> AccessLog {
        let settings = Settings {
            output: Output::File(path.to_owned()),
            fields: vec![Field::Status],
            sampling,
        };
        start(settings, &Registry::default()).expect("a writable folder")
    }

    fn status(status: u16) -> Record<'static> {
        Record {
            status,
            ..Record::default()
        }
    }

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .count()
    }

    fn eventually(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not within ten seconds: {what}");
    }

    #[test]
    fn every_line_of_every_worker_arrives_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log = log_to(&path, 1.0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mut writer = log.writer();
                scope.spawn(move || (0..10_000).for_each(|_| writer.write(&status(200))));
            }
        });
        drop(log);
        let text = std::fs::read_to_string(&path).expect("written");
        assert_eq!(text.lines().count(), 30_000);
        assert!(text.lines().all(|line| line == r#"{"status":200}"#));
    }

    #[test]
    fn an_idle_worker_is_flushed_and_a_renamed_file_is_opened_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log = log_to(&path, 1.0);
        let mut writer = log.writer();
        writer.write(&status(200));
        eventually("the interval flushes", || lines(&path) == 1);
        let rotated = folder.path().join("access.log.1");
        std::fs::rename(&path, &rotated).expect("renamed");
        log.reopen();
        eventually("the file is there again", || path.exists());
        writer.write(&status(201));
        drop(log);
        assert_eq!((lines(&rotated), lines(&path)), (1, 1));
    }

    #[test]
    fn sampling_leaves_out_what_is_well_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log = log_to(&path, 0.0);
        let mut writer = log.writer();
        writer.write(&status(200));
        writer.write(&status(503));
        drop(log);
        assert_eq!(
            std::fs::read_to_string(&path).expect("written"),
            "{\"status\":503}\n"
        );
    }

    #[test]
    fn a_full_buffer_drops_and_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log_to(&folder.path().join("access.log"), 1.0);
        let mut writer = log.writer();
        lock(&writer.buffer.lines).resize(BUFFER_BYTES_MAX, b'\n');
        // The thread may fetch the buffer first; then there is room, and the line is written.
        writer.write(&status(200));
        let dropped = writer.shared.dropped.get();
        let buffered = lock(&writer.buffer.lines).len();
        assert!(dropped == 1 || buffered <= BATCH_BYTES);
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_at_start() {
        let settings = Settings {
            output: Output::File("/nonexistent/access.log".into()),
            ..Settings::default()
        };
        let error = start(settings, &Registry::default()).expect_err("no such folder");
        assert!(
            error.to_string().contains("/nonexistent/access.log"),
            "{error}"
        );
    }
}
