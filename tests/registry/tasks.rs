//! Tasks through the API: to real instances over sockets, that fail, refuse, vanish and come back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pillion::api::{
    Client, ClientError, InstanceState, SubmittedTask, Task, TaskLane, TaskLanes, TaskState, Tasks,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{HANG, Harness, instance, service};

/// A request that an instance was given.
#[derive(Clone, Debug)]
pub struct Given {
    pub headers: HashMap<String, String>,
    path: String,
    body: String,
}

/// An application that takes tasks: it answers with these statuses in turn, the last one again and again.
pub struct Worker {
    address: SocketAddr,
    given: Arc<Mutex<Vec<Given>>>,
    statuses: Arc<Mutex<Vec<u16>>>,
    /// Tasks for `/hold` wait until it is true.
    release: watch::Sender<bool>,
    /// Its connections end, and nobody listens any more, once it is true.
    dead: watch::Sender<bool>,
}

impl Worker {
    pub async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let worker = Self {
            address: listener.local_addr().unwrap(),
            given: Arc::default(),
            statuses: Arc::new(Mutex::new(statuses.to_vec())),
            release: watch::channel(false).0,
            dead: watch::channel(false).0,
        };
        let (given, statuses) = (worker.given.clone(), worker.statuses.clone());
        let (release, mut dead) = (worker.release.subscribe(), worker.dead.subscribe());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = dead.wait_for(|dead| *dead) => return,
                };
                let Ok((stream, _)) = accepted else { return };
                let (given, statuses, release) = (given.clone(), statuses.clone(), release.clone());
                let answer = service_fn(move |request| {
                    answer(request, given.clone(), statuses.clone(), release.clone())
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer);
                let mut dead = dead.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = serving => {}
                        _ = dead.wait_for(|dead| *dead) => {}
                    }
                });
            }
        });
        worker
    }

    /// As if its process were killed.
    pub fn dies(&self) {
        self.dead.send_replace(true);
    }

    pub fn releases(&self) {
        self.release.send_replace(true);
    }

    pub fn given(&self) -> Vec<Given> {
        self.given.lock().unwrap().clone()
    }

    pub async fn registers(&self, client: &Client, service: &str, id: &str, tasks_max: u32) {
        let mut registration = instance(service, &self.address.to_string());
        let label = ("pillion.dev/max-tasks".to_owned(), tasks_max.to_string());
        registration.labels.extend([label]);
        registration.critical_after_seconds = Some(3_600);
        registration.removed_after_seconds = Some(7_200);
        client.register(id, &registration).await.unwrap();
    }
}

async fn answer(
    request: Request<Incoming>,
    given: Arc<Mutex<Vec<Given>>>,
    statuses: Arc<Mutex<Vec<u16>>>,
    mut release: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let one = Given {
        headers: headers.collect(),
        path: head.uri.to_string(),
        body: String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned(),
    };
    let holds = one.path == "/hold";
    given.lock().unwrap().push(one);
    if holds {
        // It ends without a release when the scenario does.
        let _ = release.wait_for(|released| *released).await;
    }
    let status = {
        let mut statuses = statuses.lock().unwrap();
        match statuses.len() {
            1 => statuses[0],
            _ => statuses.remove(0),
        }
    };
    let mut response = Response::new(Full::from(format!("answer {status}")));
    *response.status_mut() = status.try_into().unwrap();
    Ok(response)
}

async fn submit(client: &Client, task: Value) -> SubmittedTask {
    client.post("/v1/tasks", &task).await.unwrap()
}

async fn ended(client: &Client, id: &str) -> Task {
    let task: Task = client
        .get(&format!("/v1/tasks/{id}?wait=8s"))
        .await
        .unwrap();
    assert!(task.state.is_final(), "{task:?}");
    task
}

async fn get(client: &Client, id: &str) -> Task {
    client.get(&format!("/v1/tasks/{id}")).await.unwrap()
}

pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANG, looking)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}

fn refused(error: ClientError) -> (u16, String) {
    match error {
        ClientError::Refused { status, error } => (status.as_u16(), error.message),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_task_waits_until_a_healthy_instance_takes_it() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let task = json!({"service": "orders", "body": {"order": 7}, "headers": {"x-user": "ann"}, "class": "batch"});
    let id = submit(client, task).await.id;
    until("it waits", async || {
        (get(client, &id).await.state == TaskState::Ready).then_some(())
    })
    .await;
    let worker = Worker::start(&[200]).await;
    worker.registers(client, "orders", "orders-1", 4).await;
    let done = ended(client, &id).await;
    assert_eq!(
        (done.state, done.attempts, done.status),
        (TaskState::Done, 1, Some(200))
    );
    assert_eq!(done.answer.as_deref(), Some("answer 200"));
    assert_eq!(done.instance.as_deref(), Some("orders-1"));
    let given = worker.given();
    assert_eq!(given.len(), 1);
    assert_eq!(
        (&*given[0].path, &*given[0].body),
        ("/tasks", "{\"order\":7}")
    );
    for (name, value) in [
        ("x-mesh-task-id", &*id),
        ("idempotency-key", &*id),
        ("x-mesh-task-attempt", "1"),
        ("x-mesh-class", "batch"),
        ("content-type", "application/json"),
        ("x-user", "ann"),
        ("host", "orders.default"),
    ] {
        assert_eq!(
            given[0].headers.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_fails_is_tried_again_and_at_last_given_up() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let worker = Worker::start(&[500, 503, 502, 200]).await;
    worker.registers(client, "a", "a-1", 4).await;
    let retry = json!({"attempts": 3, "backoff": "1ms", "backoff_max": "5ms"});
    let task = json!({"service": "a", "body": "text", "retry": retry});
    let done = ended(client, &submit(client, task.clone()).await.id).await;
    // 503 is no attempt: the instance has not taken it.
    assert_eq!((done.state, done.attempts), (TaskState::Done, 3));
    let attempts = worker
        .given()
        .iter()
        .map(|one| one.headers["x-mesh-task-attempt"].clone())
        .collect::<Vec<_>>();
    assert_eq!(attempts, ["1", "2", "2", "3"]);

    *worker.statuses.lock().unwrap() = vec![500];
    let dead = ended(client, &submit(client, task).await.id).await;
    assert_eq!(
        (dead.state, dead.attempts, dead.status),
        (TaskState::Dead, 3, Some(500))
    );
    assert!(
        dead.error.as_deref().unwrap().contains("answered 500"),
        "{dead:?}"
    );
    // By hand it goes on as if it were new.
    *worker.statuses.lock().unwrap() = vec![204];
    let path = format!("/v1/tasks/{}/retry", dead.id);
    let _: Task = client.post(&path, &json!({})).await.unwrap();
    assert_eq!(ended(client, &dead.id).await.state, TaskState::Done);
    let again = client.post::<Task>(&path, &json!({})).await.unwrap_err();
    assert_eq!(refused(again), (409, format!("task {} is done", dead.id)));

    // What will not be otherwise next time is not tried again.
    *worker.statuses.lock().unwrap() = vec![404];
    let hopeless = ended(client, &submit(client, json!({"service": "a"})).await.id).await;
    assert_eq!((hopeless.state, hopeless.attempts), (TaskState::Dead, 1));
}

#[tokio::test]
async fn another_instance_takes_what_one_does_not() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    client
        .register("a-gone", &instance("a", &gone.to_string()))
        .await
        .unwrap();
    let full = Worker::start(&[429]).await;
    full.registers(client, "a", "a-full", 4).await;
    let free = Worker::start(&[200]).await;
    free.registers(client, "a", "b-free", 4).await;
    for _ in 0..5 {
        let done = ended(client, &submit(client, json!({"service": "a"})).await.id).await;
        assert_eq!((done.state, done.attempts), (TaskState::Done, 1));
        assert_eq!(done.instance.as_deref(), Some("b-free"));
    }
}

#[tokio::test]
async fn one_key_is_one_task() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let task = json!({"service": "a", "key": "order 7/8"});
    let first = submit(client, task.clone()).await;
    let second = submit(client, task).await;
    assert_eq!((first.existed, second.existed), (false, true));
    assert_eq!(first.id, second.id);
    let other = submit(client, json!({"service": "b", "key": "order 7/8"})).await;
    assert_ne!(other.id, first.id);
}

#[tokio::test]
async fn tasks_come_by_class_and_no_more_than_an_instance_takes() {
    let harness = Harness::start().await;
    let client = &harness.client;
    harness
        .apply(
            &(service("a")
                + "lane: {limit: 4, discipline: priority}\n---\n"
                + &service("b")
                + "lane: {limit: 4, discipline: fifo}\n"),
        )
        .await;
    for (name, expected) in [
        ("a", ["critical", "first", "second"]),
        ("b", ["first", "second", "critical"]),
    ] {
        let mut ids = Vec::new();
        for (path, class) in [
            ("first", "default"),
            ("second", "default"),
            ("critical", "critical"),
        ] {
            let task = json!({"service": name, "path": format!("/{path}"), "class": class});
            ids.push(submit(client, task).await.id);
        }
        until("all wait", async || {
            let ready: Tasks = client
                .get(&format!("/v1/tasks?service={name}&state=ready"))
                .await
                .unwrap();
            (ready.tasks.len() == 3).then_some(())
        })
        .await;
        let worker = Worker::start(&[200]).await;
        worker
            .registers(client, name, &format!("{name}-1"), 1)
            .await;
        for id in &ids {
            ended(client, id).await;
        }
        let order: Vec<String> = worker
            .given()
            .iter()
            .map(|one| one.path[1..].to_owned())
            .collect();
        assert_eq!(order, expected);
    }
}

#[tokio::test]
async fn a_task_is_cancelled_wherever_it_is() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let worker = Worker::start(&[200]).await;
    worker.registers(client, "a", "a-1", 1).await;
    let cancel = async |id: &str| -> Task {
        client
            .post(&format!("/v1/tasks/{id}/cancel"), &json!({}))
            .await
            .unwrap()
    };
    let running = submit(client, json!({"service": "a", "path": "/hold"}))
        .await
        .id;
    until("it runs", async || {
        (!worker.given().is_empty()).then_some(())
    })
    .await;
    assert_eq!(get(client, &running).await.state, TaskState::Running);
    assert_eq!(get(client, &running).await.instance.as_deref(), Some("a-1"));
    let ready = submit(client, json!({"service": "a", "path": "/ready"}))
        .await
        .id;
    let later = submit(
        client,
        json!({"service": "a", "path": "/later", "delay": "1h"}),
    )
    .await
    .id;
    assert_eq!(get(client, &later).await.state, TaskState::Scheduled);
    for id in [&later, &ready, &running] {
        assert_eq!(cancel(id).await.state, TaskState::Cancelled);
        let twice = client
            .post::<Task>(&format!("/v1/tasks/{id}/cancel"), &json!({}))
            .await;
        assert_eq!(refused(twice.unwrap_err()).0, 409);
    }
    // The slot is free again.
    let next = submit(client, json!({"service": "a", "path": "/next"}))
        .await
        .id;
    assert_eq!(ended(client, &next).await.state, TaskState::Done);
    let paths: Vec<String> = worker.given().iter().map(|one| one.path.clone()).collect();
    assert_eq!(paths, ["/hold", "/next"]);
}

#[tokio::test]
async fn time_is_kept() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let begun = jiff::Timestamp::now();
    let delayed = submit(client, json!({"service": "a", "delay": "300ms"}))
        .await
        .id;
    // Nobody takes it before its deadline.
    let deadline = (begun + Duration::from_millis(400)).to_string();
    let late = submit(client, json!({"service": "nobody", "deadline": deadline}))
        .await
        .id;
    let worker = Worker::start(&[200]).await;
    worker.registers(client, "a", "a-1", 4).await;
    let done = ended(client, &delayed).await;
    let finished: jiff::Timestamp = done.finished.unwrap().parse().unwrap();
    assert!(finished.duration_since(begun) >= jiff::SignedDuration::from_millis(300));
    // Also without an instance.
    let expired = ended(client, &late).await;
    assert_eq!((expired.state, expired.attempts), (TaskState::Expired, 0));
    let slow =
        json!({"service": "a", "path": "/hold", "timeout": "50ms", "retry": {"attempts": 1}});
    let slow = ended(client, &submit(client, slow).await.id).await;
    assert_eq!(slow.state, TaskState::Dead);
    assert_eq!(slow.error.as_deref(), Some("no answer within 50ms"));
}

#[tokio::test]
async fn a_restart_loses_nothing_and_goes_on() {
    let harness = Harness::start().await;
    let done = {
        let worker = Worker::start(&[200]).await;
        worker.registers(&harness.client, "a", "a-1", 4).await;
        let id = submit(&harness.client, json!({"service": "a"})).await.id;
        ended(&harness.client, &id).await
    };
    let mut open = Vec::new();
    for delay in ["0s", "1ms", "1h"] {
        let task = json!({"service": "b", "delay": delay, "key": delay});
        open.push(submit(&harness.client, task).await.id);
    }
    let harness = Harness::start_in(harness.stop().await, "").await;
    let client = &harness.client;
    assert_eq!(get(client, &done.id).await, done);
    let again = submit(client, json!({"service": "b", "key": "1h"})).await;
    assert_eq!((again.existed, &again.id), (true, &open[2]));
    let worker = Worker::start(&[200]).await;
    worker.registers(client, "b", "b-1", 4).await;
    for id in &open[..2] {
        assert_eq!(ended(client, id).await.state, TaskState::Done);
    }
    assert_eq!(get(client, &open[2]).await.state, TaskState::Scheduled);
    assert_eq!(worker.given().len(), 2);
}

#[tokio::test]
async fn an_instance_that_is_ill_or_leaves_gets_nothing() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let worker = Worker::start(&[200]).await;
    worker.registers(client, "a", "a-1", 4).await;
    for state in [InstanceState::Critical, InstanceState::Draining] {
        harness.registry.set_state("a-1", state).await.unwrap();
        let id = submit(client, json!({"service": "a"})).await.id;
        until("it waits", async || {
            (get(client, &id).await.state == TaskState::Ready).then_some(())
        })
        .await;
        assert!(worker.given().is_empty());
        harness
            .registry
            .set_state("a-1", InstanceState::Passing)
            .await
            .unwrap();
        assert_eq!(ended(client, &id).await.state, TaskState::Done);
        worker.given.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn what_is_no_task_is_refused_with_its_field() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let long = "x".repeat(60_000);
    for (task, field) in [
        (json!({"service": ""}), "service"),
        (json!({"service": "a/b"}), "service"),
        (json!({"service": "a", "namespace": "n s"}), "namespace"),
        (json!({"service": "a", "path": "tasks"}), "path"),
        (json!({"service": "a", "path": "/a b"}), "path"),
        (json!({"service": "a", "method": "P T"}), "method"),
        (json!({"service": "a", "headers": {"a b": "c"}}), "headers"),
        (json!({"service": "a", "headers": {"Host": "c"}}), "headers"),
        (
            json!({"service": "a", "headers": {"x-mesh-task-id": "c"}}),
            "headers",
        ),
        (
            json!({"service": "a", "headers": {"x-a": "b\nc"}}),
            "headers",
        ),
        (json!({"service": "a", "class": "vital"}), "class"),
        (json!({"service": "a", "key": ""}), "key"),
        (json!({"service": "a", "delay": "soon"}), "delay"),
        (json!({"service": "a", "delay": "400000h"}), "delay"),
        (
            json!({"service": "a", "delay": "1s", "at": "2030-01-01T00:00:00Z"}),
            "at",
        ),
        (json!({"service": "a", "at": "tomorrow"}), "at"),
        (
            json!({"service": "a", "deadline": "2020-01-01T00:00:00Z"}),
            "deadline",
        ),
        (json!({"service": "a", "timeout": "0s"}), "timeout"),
        (
            json!({"service": "a", "retry": {"attempts": 0}}),
            "retry.attempts",
        ),
        (
            json!({"service": "a", "retry": {"backoff": "x"}}),
            "retry.backoff",
        ),
        (json!({"service": "a", "body_b64": "???"}), "body_b64"),
        (
            json!({"service": "a", "body": 1, "body_b64": "AA=="}),
            "body_b64",
        ),
        (json!({"service": "a", "body": long}), "body"),
    ] {
        let error = client
            .post::<SubmittedTask>("/v1/tasks", &task)
            .await
            .expect_err(&task.to_string());
        let (status, message) = refused(error);
        assert_eq!(status, 422, "{task}");
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{task}: {message}"
        );
    }
    for (path, status) in [("/v1/tasks/nothing", 404), ("/v1/tasks?state=odd", 400)] {
        assert_eq!(
            refused(client.get::<Value>(path).await.unwrap_err()).0,
            status
        );
    }
    let listed: Tasks = client.get("/v1/tasks").await.unwrap();
    assert_eq!(listed.tasks, []);
}

#[tokio::test]
async fn tasks_are_listed_a_page_at_a_time() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let mut ids = Vec::new();
    for number in 0..250 {
        let service = if number % 2 == 0 { "even" } else { "odd" };
        ids.push(
            submit(client, json!({"service": service, "delay": "1h"}))
                .await
                .id,
        );
    }
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page: Tasks = client
            .get(&format!("/v1/tasks?service=default/odd{after}"))
            .await
            .unwrap();
        assert!(page.tasks.len() <= 100);
        listed.extend(page.tasks.into_iter().map(|task| task.id));
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let odd: Vec<String> = ids.into_iter().skip(1).step_by(2).collect();
    listed.sort();
    let mut expected = odd;
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn many_tasks_come_in_one_request() {
    let harness = Harness::start().await;
    let client = &harness.client;
    let worker = Worker::start(&[200]).await;
    worker.registers(client, "a", "a-1", 64).await;
    let mut lines: Vec<String> = (0..2_000)
        .map(|number| json!({"service": "a", "body": number}).to_string())
        .collect();
    lines[7] = json!({"service": "a", "class": "vital"}).to_string();
    lines[9] = "{".to_owned();
    lines[11] = json!({"service": "a", "sevice": 1}).to_string();
    let body = lines.join("\n") + "\n\n";
    let request = client
        .request(hyper::Method::POST, "/v1/tasks:batch", body.into())
        .unwrap();
    let (headers, answer) = client.exchange(request, HANG).await.unwrap();
    assert_eq!(headers["content-type"], "application/x-ndjson");
    let answers: Vec<Value> = answer
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 2_000);
    for (place, code) in [(7, "invalid_task"), (9, "invalid_request")] {
        assert_eq!(answers[place]["error"]["code"], code, "{}", answers[place]);
    }
    let ids: Vec<&str> = answers
        .iter()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert!(ids.len() >= 1_997, "{}", ids.len());
    until("all are done", async || {
        (worker.given().len() == ids.len()).then_some(())
    })
    .await;
    for (place, id) in ids.iter().enumerate().step_by(100) {
        assert_eq!(ended(client, id).await.state, TaskState::Done, "{place}");
    }
}

#[tokio::test]
async fn the_tasks_of_a_service_are_paused_and_go_on_also_over_a_restart() {
    let harness = Harness::start().await;
    let worker = Worker::start(&[200]).await;
    let pause = async |client: &Client, paused: bool| -> TaskLane {
        let change = json!({"paused": paused});
        client.put("/v1/lanes/default/a", &change).await.unwrap()
    };
    worker.registers(&harness.client, "a", "a-1", 3).await;
    assert!(pause(&harness.client, true).await.paused);
    let id = submit(&harness.client, json!({"service": "a"})).await.id;
    let harness = Harness::start_in(harness.stop().await, "").await;
    let client = &harness.client;
    let lane = until("it waits", async || {
        let found: TaskLanes = client.get("/v1/lanes").await.unwrap();
        found.lanes.into_iter().find(|lane| lane.ready == 1)
    })
    .await;
    let told = (lane.service.as_str(), lane.paused, lane.limit, lane.running);
    assert_eq!(told, ("a", true, 3, 0));
    assert_eq!(lane.discipline, "priority");
    // Others go on.
    worker.registers(client, "b", "b-1", 3).await;
    let other = submit(client, json!({"service": "b"})).await.id;
    assert_eq!(ended(client, &other).await.state, TaskState::Done);
    assert_eq!(get(client, &id).await.state, TaskState::Ready);
    assert!(!pause(client, false).await.paused);
    assert_eq!(ended(client, &id).await.state, TaskState::Done);
    let idle: TaskLane = client.get("/v1/lanes/default/nobody").await.unwrap();
    assert_eq!((idle.ready, idle.limit, idle.paused), (0, 0, false));
}
