//! One thread of the data plane: its runtime, its pool, its connections. A request never leaves it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::entry::Entry;
use super::http::forward::Scratch;
use super::instance_load::InstanceLoad;
use super::listener;
use super::passthrough::Passthrough;
use super::settings::Settings;
use super::upstream::Pool;
use crate::telemetry::access_log;
use crate::telemetry::metrics::Registry;

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// While draining, a connection on which nothing comes for so long is closed. Sooner, and it would be closed under a request that
/// is on its way.
const QUIET: Duration = Duration::from_secs(1);
/// Heads kept for reuse.
const SCRATCH_MAX: usize = 256;

/// What the control thread tells a worker.
pub enum Command {
    /// Serve connections of this socket.
    Listen(std::net::TcpListener, Arc<Entry>),
    /// Stop taking connections of this address; those at hand, and those that wait to be taken, go on.
    Unlisten(SocketAddr),
    /// Every address this process listens on: a destination among them would be a loop.
    Own(Vec<SocketAddr>),
    /// Tell clients with each answer that their connection ends, and close those that are quiet.
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
    /// Boxed, since a head is handed to a task that keeps it for the length of a request.
    #[expect(clippy::vec_box)]
    scratch: RefCell<Vec<Box<Scratch>>>,
    connections: RefCell<Slab<Waker>>,
    exchanges: RefCell<Slab<Watched>>,
    draining_since: Cell<Option<Instant>>,
    /// Idle downstream connections that are to close because descriptors are short.
    shedding: Cell<usize>,
    /// Copies of requests that are under way.
    pub copies: Copies,
    shared: Arc<Shared>,
}

/// How many copies of requests are under way.
#[derive(Default)]
pub struct Copies(Cell<usize>);

impl Copies {
    /// One more, where there are fewer than `max`.
    pub fn begin(&self, max: usize) -> bool {
        let room = self.0.get() < max;
        self.0.set(self.0.get() + usize::from(room));
        room
    }

    pub fn end(&self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What the workers and the control thread share.
pub struct Shared {
    /// Downstream connections at hand.
    pub connections: AtomicUsize,
    /// Those among them that came after the drain had begun.
    pub late_connections: AtomicUsize,
    /// Listening sockets whose connections are taken.
    pub sockets: AtomicUsize,
    /// Of the instance beside this sidecar.
    pub load: Arc<InstanceLoad>,
    pub metrics: Arc<Registry>,
}

impl Shared {
    pub fn new(metrics: Arc<Registry>) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            late_connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            load: Arc::default(),
            metrics,
        }
    }
}

/// Runs one worker until its command channel closes.
pub fn run(
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    access_log: Option<access_log::Writer>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(31)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(settings, shared, access_log));
        tokio::task::spawn_local(sweep(worker.clone()));
        // An entry may be served by more than one socket; each is served until its sender is dropped.
        let mut listening: HashMap<SocketAddr, Vec<oneshot::Sender<()>>> = HashMap::new();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Listen(socket, entry) => {
                    let (sender, ended) = oneshot::channel();
                    listening.entry(entry.address).or_default().push(sender);
                    let accepting = listener::accept(worker.clone(), socket, entry, ended);
                    tokio::task::spawn_local(accepting);
                }
                Command::Unlisten(address) => drop(listening.remove(&address)),
                Command::Own(addresses) => *worker.own_addresses.borrow_mut() = addresses,
                Command::Drain => worker.drain(),
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
        worker.tick();
    }
}

impl Worker {
    fn new(
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        access_log: Option<access_log::Writer>,
    ) -> Self {
        Self {
            pool: Rc::new(Pool::new(settings.liveness)),
            settings,
            passthrough: Passthrough::default(),
            rng: RefCell::new(fastrand::Rng::new()),
            own_addresses: RefCell::default(),
            access_log: access_log.map(RefCell::new),
            scratch: RefCell::default(),
            connections: RefCell::default(),
            exchanges: RefCell::default(),
            draining_since: Cell::new(None),
            copies: Copies::default(),
            shedding: Cell::new(0),
            shared,
        }
    }

    /// New requests on a connection are not awaited any more.
    pub fn is_draining(&self) -> bool {
        self.draining_since.get().is_some()
    }

    /// When a connection is closed on which nothing has come since this moment; None while the worker does not drain.
    pub fn quiet_at(&self, since: Instant) -> Option<Instant> {
        let began = self.draining_since.get()?;
        Some(began.max(since) + QUIET)
    }

    fn drain(&self) {
        self.draining_since.set(Some(Instant::now()));
        self.wake_all();
    }

    fn wake_all(&self) {
        self.connections
            .borrow()
            .iter()
            .for_each(|(_, waker)| waker.wake_by_ref());
    }

    /// Descriptors are short: connections that are idle now give theirs back, on both sides.
    pub fn shed(self: &Rc<Self>, downstream: usize) {
        self.pool.shed();
        self.shedding.set(downstream);
        self.wake_all();
        // Tasks run in the order in which they were woken, so this one runs when all of those have been asked.
        let worker = self.clone();
        tokio::task::spawn_local(async move { worker.shedding.set(0) });
    }

    /// Asked by an idle downstream connection: whether it is one of those to close.
    pub fn takes_shedding(&self) -> bool {
        let left = self.shedding.get();
        self.shedding.set(left.saturating_sub(1));
        left > 0
    }

    /// Counts a downstream connection of this worker. `None` where all workers together have as many as they may.
    pub fn admit(self: &Rc<Self>) -> Option<Admitted> {
        let connections_max = self.settings.downstream_connections_max;
        let count = |count| (count < connections_max).then_some(count + 1);
        let connections = &self.shared.connections;
        connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .ok()?;
        let is_late = self.is_draining();
        if is_late {
            let late = &self.shared.late_connections;
            late.fetch_add(1, Ordering::Relaxed);
        }
        let place = self.connections.borrow_mut().insert(Waker::noop().clone());
        Some(Admitted {
            worker: self.clone(),
            place,
            is_late,
        })
    }

    /// Of the instance beside this sidecar.
    pub fn load(&self) -> &InstanceLoad {
        &self.shared.load
    }

    /// Counts a listening socket, until what this returns is dropped.
    pub fn listens(&self) -> Accepting {
        self.shared.sockets.fetch_add(1, Ordering::Relaxed);
        Accepting(self.shared.clone())
    }

    /// Wakes an exchange's task when nothing has moved on it for `limit`, to the second.
    pub fn watch(self: &Rc<Self>, waker: &Waker, limit: Duration) -> IdleWatch {
        let watched = Watched {
            waker: waker.clone(),
            ticks_left: ticks(limit),
            expired: false,
        };
        let place = self.exchanges.borrow_mut().insert(watched);
        IdleWatch {
            worker: self.clone(),
            place,
            limit,
            seen: 0,
        }
    }

    /// A second has passed for every exchange that is watched.
    fn tick(&self) {
        for (_, watched) in self.exchanges.borrow_mut().iter_mut() {
            watched.ticks_left = watched.ticks_left.saturating_sub(1);
            if watched.ticks_left == 0 {
                watched.expired = true;
                watched.waker.wake_by_ref();
            }
        }
    }

    /// Heads for one request.
    pub fn take_scratch(&self) -> Box<Scratch> {
        let free = self.scratch.borrow_mut().pop();
        free.unwrap_or_else(|| Box::new(Scratch::new(self.settings.head_limits)))
    }

    pub fn give_scratch(&self, scratch: Box<Scratch>) {
        let mut free = self.scratch.borrow_mut();
        if free.len() < SCRATCH_MAX {
            free.push(scratch);
        }
    }
}

/// A downstream connection's place in its worker. Dropping it uncounts the connection.
pub struct Admitted {
    worker: Rc<Worker>,
    place: usize,
    is_late: bool,
}

impl Admitted {
    /// From now on the task that awaits this is woken when the worker drains or sheds.
    pub async fn wakes_this_task(&self) {
        poll_fn(|cx| {
            self.worker.connections.borrow_mut()[self.place] = cx.waker().clone();
            Poll::Ready(())
        })
        .await;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(self.place);
        let shared = &self.worker.shared;
        shared.connections.fetch_sub(1, Ordering::Relaxed);
        if self.is_late {
            shared.late_connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A listening socket that counts. Dropping it uncounts it, after all connections that were taken from it.
pub struct Accepting(Arc<Shared>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::Release);
    }
}

/// An exchange that is looked at each second: far cheaper than a timer for each, since hardly any is ever idle for long.
struct Watched {
    waker: Waker,
    ticks_left: u32,
    expired: bool,
}

fn ticks(limit: Duration) -> u32 {
    u32::try_from(limit.as_secs().max(1)).unwrap_or(u32::MAX)
}

/// Ends an exchange in which nothing moves. Dropping it ends the watch.
pub struct IdleWatch {
    worker: Rc<Worker>,
    place: usize,
    limit: Duration,
    seen: u64,
}

impl IdleWatch {
    /// The limit, once nothing has moved for so long; `moved` counts all bytes so far.
    pub fn expired(&mut self, moved: u64) -> Option<Duration> {
        let mut exchanges = self.worker.exchanges.borrow_mut();
        let watched = &mut exchanges[self.place];
        if !watched.expired {
            return None;
        }
        if moved == self.seen {
            return Some(self.limit);
        }
        self.seen = moved;
        watched.expired = false;
        watched.ticks_left = ticks(self.limit);
        None
    }
}

impl Drop for IdleWatch {
    fn drop(&mut self) {
        self.worker.exchanges.borrow_mut().remove(self.place);
    }
}
