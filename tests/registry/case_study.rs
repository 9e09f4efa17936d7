//! The case study that the task plane began with: ten instances with different loads, tasks of three priorities, and an instance that
//! fails while it has some.

use std::collections::HashMap;

use pillion::api::{InstanceState, Load, Registered, SubmittedTask, Task, TaskState};
use serde_json::json;

use crate::tasks::Worker;
use crate::{Harness, service};

#[tokio::test]
async fn ten_instances_share_by_load_and_the_tasks_of_one_that_fails_move() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let document = service("orders") + "lane: {limit: 20, discipline: priority}\n";
    harness.apply(&document).await;
    let mut workers = Vec::new();
    for number in 1..=10 {
        let worker = Worker::start(&[200]).await;
        let id = format!("orders-{number}");
        worker.registers(client, "orders", &id, 2).await;
        // The first is the idlest, the tenth the busiest.
        let load = Load {
            factor: Some(f64::from(number) / 20.0),
            ..Load::default()
        };
        let path = format!("/v1/instances/{id}/heartbeat");
        let _: Registered = client.post(&path, &load).await.unwrap();
        workers.push(worker);
    }
    let submit = async |class: &str, path: &str| -> String {
        let task = json!({"service": "orders", "class": class, "path": path});
        let submitted: SubmittedTask = client.post("/v1/tasks", &task).await.unwrap();
        submitted.id
    };

    // While there is room, the instance with the lowest load takes each, with what it has from here counted in.
    let mut held = Vec::new();
    for (number, expected) in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].into_iter().enumerate() {
        let id = submit("default", "/hold").await;
        let instance = crate::tasks::until("it runs", async || {
            let task: Task = client.get(&format!("/v1/tasks/{id}")).await.unwrap();
            task.instance
        })
        .await;
        assert_eq!(instance, format!("orders-{expected}"), "task {number}");
        held.push(id);
    }

    // The first fails with what it has: its task, and those that come, go to others.
    workers[0].dies();
    harness
        .registry
        .set_state("orders-1", InstanceState::Critical)
        .await
        .unwrap();
    let mut others = Vec::new();
    for class in ["critical", "default", "batch"] {
        for _ in 0..10 {
            others.push(submit(class, "/tasks").await);
        }
    }
    for worker in &workers[1..] {
        worker.releases();
    }
    let mut by_instance: HashMap<String, usize> = HashMap::new();
    for id in held.iter().chain(&others) {
        let path = format!("/v1/tasks/{id}?wait=20s");
        let task: Task = client.get(&path).await.unwrap();
        assert_eq!(task.state, TaskState::Done, "{task:?}");
        *by_instance.entry(task.instance.unwrap()).or_default() += 1;
    }
    assert_eq!(by_instance.values().sum::<usize>(), 40);
    assert!(!by_instance.contains_key("orders-1"), "{by_instance:?}");
    let moved: Task = client.get(&format!("/v1/tasks/{}", held[0])).await.unwrap();
    assert_eq!(
        moved.attempts, 2,
        "one was lost with the instance: {moved:?}"
    );
}
