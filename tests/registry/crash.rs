//! The process is killed under writes: what it acknowledged is there when it comes back.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pillion::api::{Client, ClientOptions, Services, SubmittedTask, Task, TaskState};
use serde_json::json;

use crate::{HANG, instance};

struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pillion"))
            .args(["registry", "--address", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .split([' ', ','])
            .find(|word| word.starts_with("http://"));
        let url = url
            .unwrap_or_else(|| panic!("no address in {line:?}"))
            .to_owned();
        Self { child, url }
    }

    fn client(&self) -> Client {
        Client::new(&ClientOptions::new(&self.url)).unwrap()
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Rounds of killing; PILLION_TEST_KILL_ROUNDS makes it more.
fn rounds() -> usize {
    std::env::var("PILLION_TEST_KILL_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(3)
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
    for round in 0..rounds() {
        let process = Process::start(folder.path());
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let (client, acknowledged) = (process.client(), acknowledged.clone());
                tokio::spawn(async move {
                    for n in 0.. {
                        let id = format!("i-{round}-{writer}-{n}");
                        if client
                            .register(&id, &instance(&format!("s{writer}"), "127.0.0.1:1"))
                            .await
                            .is_err()
                        {
                            return;
                        }
                        acknowledged.lock().unwrap().push(id);
                    }
                })
            })
            .collect();
        let enough = (round + 1) * 50;
        let busy = async {
            while acknowledged.lock().unwrap().len() < enough {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(HANG, busy)
            .await
            .expect("writes are acknowledged");
        process.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        let process = Process::start(folder.path());
        let client = process.client();
        let acknowledged = acknowledged.lock().unwrap().clone();
        for id in &acknowledged {
            let found: Result<serde_json::Value, _> =
                client.get(&format!("/v1/instances/{id}")).await;
            assert!(
                found.is_ok(),
                "{id} was acknowledged and is lost (round {round})"
            );
        }
        process.kill();
    }
}

#[tokio::test]
async fn tasks_that_were_acknowledged_are_done_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let worker = crate::tasks::Worker::start(&[200]).await;
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..rounds() {
        let process = Process::start(folder.path());
        let client = process.client();
        worker.registers(&client, "a", "a-1", 4).await;
        let submitters: Vec<_> = (0..8)
            .map(|submitter| {
                let client = process.client();
                tokio::spawn(async move {
                    let mut ids = Vec::new();
                    for n in 0.. {
                        let key = format!("{round}-{submitter}-{n}");
                        let task = json!({"service": "a", "body": key, "key": key});
                        match client.post::<SubmittedTask>("/v1/tasks", &task).await {
                            Ok(submitted) => ids.push(submitted.id),
                            Err(_) => break,
                        }
                    }
                    ids
                })
            })
            .collect();
        // In the middle of it, wherever that is.
        let given = worker.given().len();
        let busy = async {
            while worker.given().len() < given + 100 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(HANG, busy)
            .await
            .expect("tasks are handed out");
        process.kill();
        for submitter in submitters {
            acknowledged.extend(submitter.await.unwrap());
        }
    }
    let process = Process::start(folder.path());
    let client = process.client();
    for id in &acknowledged {
        let task: Task = client
            .get(&format!("/v1/tasks/{id}?wait=20s"))
            .await
            .unwrap();
        assert_eq!(task.state, TaskState::Done, "{task:?}");
    }
    // Each was handed out, and none too often: once, and again where its end was not written yet.
    let mut times: HashMap<String, usize> = HashMap::new();
    for given in worker.given() {
        *times
            .entry(given.headers["x-mesh-task-id"].clone())
            .or_default() += 1;
    }
    for id in &acknowledged {
        let times = times.get(id).copied().unwrap_or(0);
        assert!((1..=1 + rounds()).contains(&times), "{id}: {times} times");
    }
    process.kill();
}

#[tokio::test]
async fn sigterm_ends_watches_and_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path());
    let client = process.client();
    let _: Services = client.get("/v1/services").await.unwrap();
    let query = pillion::api::WatchQuery {
        sidecar: "a".into(),
        ..Default::default()
    };
    let mut watch = client.watch(&query).await.unwrap();
    crate::listing(&mut watch).await;
    // SAFETY: a plain signal to a child that has not been waited for.
    assert_eq!(
        unsafe { libc::kill(process.child.id() as libc::pid_t, libc::SIGTERM) },
        0
    );
    assert!(
        tokio::time::timeout(HANG, watch.next())
            .await
            .expect("an end")
            .is_err()
    );
    let exited = tokio::task::spawn_blocking(move || process.child.wait().unwrap())
        .await
        .unwrap();
    assert_eq!(exited.code(), Some(0));
}
