use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::JoinSet;

use super::{Answer, Client, Journal, Target, eventually};

/// Clients that ask again and again, each over its own connection, until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    journal: Mutex<Journal>,
    stopping: AtomicBool,
}

impl Load {
    pub fn start(target: &Target, path: &'static str, clients: usize) -> Self {
        let mut load = Self {
            shared: Arc::default(),
            clients: JoinSet::new(),
        };
        for _ in 0..clients {
            let client = Client::new(target.clone());
            load.clients
                .spawn(ask_until_stopped(client, path, Arc::clone(&load.shared)));
        }
        load
    }

    /// Waits until this many more requests were answered or failed; the loop goes on.
    pub async fn asks(&self, more: usize) {
        let done = || {
            let journal = self.shared.journal();
            journal.total() + journal.failures.len()
        };
        let goal = done() + more;
        eventually("the load gets its answers", async || {
            (done() >= goal).then_some(())
        })
        .await;
    }

    /// Good answers of one service so far.
    pub fn answers_of(&self, name: &str) -> usize {
        self.shared.journal().of(name)
    }

    /// Each client finishes the request it is at.
    pub async fn stop(mut self) -> Journal {
        self.shared.stopping.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        self.shared.journal().clone()
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("nothing panics while it writes")
    }
}

async fn ask_until_stopped(mut client: Client, path: &'static str, shared: Arc<Shared>) {
    while !shared.stopping.load(Ordering::Relaxed) {
        let outcome = client.get(path).await;
        note(&mut shared.journal(), outcome);
    }
}

fn note(journal: &mut Journal, outcome: Result<Answer, String>) {
    match outcome {
        Ok(answer) if answer.status == 200 => {
            *journal.answered.entry(answer.body).or_default() += 1
        }
        Ok(answer) => journal
            .failures
            .push(format!("{} {}", answer.status, answer.body.trim())),
        Err(error) => journal.failures.push(error),
    }
}
