//! One thread of the data plane: its runtime, its pool, its connections. A request never leaves it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::entry::Entry;
use super::http::forward::Scratch;
use super::listener;
use super::passthrough::Passthrough;
use super::settings::Settings;
use super::upstream::Pool;
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::metrics::Registry;

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Heads kept for reuse.
const SCRATCH_MAX: usize = 64;

/// What the control thread tells a worker.
pub enum Command {
    /// Serve connections of this socket.
    Listen(std::net::TcpListener, Arc<Entry>),
    /// Stop taking connections of this address; those at hand go on.
    Unlisten(SocketAddr),
    /// Every address this process listens on: a destination among them would be a loop.
    Own(Vec<SocketAddr>),
    /// Stop taking connections, and end those at hand as soon as nothing is on them.
    Drain,
}

pub struct Worker {
    pub settings: Arc<Settings>,
    pub pool: Rc<Pool>,
    pub passthrough: Passthrough,
    pub rng: RefCell<fastrand::Rng>,
    /// Every address this process listens on.
    pub own_addresses: RefCell<Vec<SocketAddr>>,
    /// None where no access log is kept.
    pub access_log: Option<RefCell<access_log::Writer>>,
    scratch: RefCell<Vec<Box<Scratch>>>,
    connections: RefCell<Connections>,
    draining: Cell<bool>,
    /// Idle downstream connections that are to close because descriptors are short.
    shedding: Cell<usize>,
    shared: Arc<Shared>,
}

/// What the workers and the control thread share.
pub struct Shared {
    /// Downstream connections at hand.
    pub connections: AtomicUsize,
    pub metrics: Arc<Registry>,
    pub access_log: Option<AccessLog>,
}

impl Shared {
    pub fn new(metrics: Arc<Registry>, access_log: Option<AccessLog>) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            metrics,
            access_log,
        }
    }

    /// Looks whether the access log's file was renamed.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }
}

#[derive(Default)]
struct Connections {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// Runs one worker until its command channel closes.
pub fn run(
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(31)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(settings, shared));
        tokio::task::spawn_local(sweep(worker.clone()));
        let mut listening = HashMap::new();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Listen(socket, entry) => {
                    let address = entry.address;
                    let accepting =
                        tokio::task::spawn_local(listener::accept(worker.clone(), socket, entry));
                    listening.insert(address, accepting.abort_handle());
                }
                Command::Unlisten(address) => {
                    listening
                        .remove(&address)
                        .inspect(|accepting| accepting.abort());
                }
                Command::Own(addresses) => *worker.own_addresses.borrow_mut() = addresses,
                Command::Drain => {
                    listening
                        .drain()
                        .for_each(|(_, accepting)| accepting.abort());
                    worker.drain();
                }
            }
        }
    });
    Ok(())
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.pool.sweep(Instant::now(), &worker.settings);
    }
}

impl Worker {
    fn new(settings: Arc<Settings>, shared: Arc<Shared>) -> Self {
        Self {
            settings,
            pool: Rc::default(),
            passthrough: Passthrough::default(),
            rng: RefCell::new(fastrand::Rng::new()),
            own_addresses: RefCell::default(),
            access_log: shared
                .access_log
                .as_ref()
                .map(|log| RefCell::new(log.writer())),
            scratch: RefCell::default(),
            connections: RefCell::default(),
            draining: Cell::new(false),
            shedding: Cell::new(0),
            shared,
        }
    }

    /// New requests on a connection are not awaited any more.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    fn drain(&self) {
        self.draining.set(true);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.connections
            .borrow()
            .wakers
            .iter()
            .flatten()
            .for_each(Waker::wake_by_ref);
    }

    /// Descriptors are short: idle connections on both sides give theirs back.
    pub fn shed(&self, downstream: usize) {
        self.pool.shed();
        self.shedding.set(downstream);
        self.wake_all();
    }

    /// Asked by an idle downstream connection: whether it is one of those to close.
    pub fn takes_shedding(&self) -> bool {
        let left = self.shedding.get();
        self.shedding.set(left.saturating_sub(1));
        left > 0
    }

    /// Counts a downstream connection, and wakes it when the worker drains.
    pub fn register(self: &Rc<Self>, waker: &Waker) -> Registered {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let mut connections = self.connections.borrow_mut();
        let place = connections.free.pop().unwrap_or_else(|| {
            connections.wakers.push(None);
            connections.wakers.len() - 1
        });
        connections.wakers[place] = Some(waker.clone());
        Registered {
            worker: self.clone(),
            place,
        }
    }

    /// Heads for one request.
    pub fn take_scratch(&self) -> Box<Scratch> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_scratch(&self, scratch: Box<Scratch>) {
        let mut free = self.scratch.borrow_mut();
        if free.len() < SCRATCH_MAX {
            free.push(scratch);
        }
    }
}

/// A downstream connection's place in its worker. Dropping it uncounts the connection.
pub struct Registered {
    worker: Rc<Worker>,
    place: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut connections = self.worker.connections.borrow_mut();
        connections.wakers[self.place] = None;
        connections.free.push(self.place);
        self.worker
            .shared
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    }
}
