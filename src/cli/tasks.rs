//! `pillion tasks`: requests that the registry keeps until an instance has done them.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Connection, Failure};
use super::services::table;
use crate::api::client::segment;
use crate::api::{
    Client, SubmittedTask, Task, TaskLane, TaskLaneChange, TaskLanes, TaskState, Tasks,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  pillion tasks submit orders '{\"order\": 7}'           to a fit instance of default/orders
  pillion tasks submit shop/mail --at 2026-01-31T18:00:00Z --key mail-7 - < letter.txt
  pillion tasks submit orders --wait                    and wait until it is over
  pillion tasks list --state dead
  pillion tasks get 01a21d3de00c50ace1cb21d83a073cc8 --wait

Exit codes: 0 done, 1 it does not exist, was refused or ended otherwise than done (with --wait), or the registry does not answer.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Keep a request until it is done; prints its id
    Submit(Box<Submit>),
    /// Show a task
    Get {
        id: String,
        /// Wait until it is over
        #[arg(long)]
        wait: bool,
    },
    /// List tasks, the oldest first
    List {
        /// Only of this service, as name or namespace/name
        #[arg(long, short)]
        service: Option<String>,
        /// Only those that are scheduled, ready, running, done, dead, cancelled or expired
        #[arg(long)]
        state: Option<String>,
    },
    /// End a task; an attempt under way is broken off
    Cancel { id: String },
    /// Try a task again that was given up, cancelled or too late
    Retry { id: String },
    /// The services with tasks that are due: how many wait and run
    Lanes,
    /// Stop handing out the tasks of a service; what runs goes on
    Pause { service: String },
    /// Go on handing them out
    Resume { service: String },
}

#[derive(clap::Args)]
struct Submit {
    /// Whose instance is to do it: name, or namespace/name
    service: String,
    /// JSON, or another text; - reads standard input
    body: Option<String>,
    /// What is asked for
    #[arg(long, default_value = "/tasks")]
    path: String,
    /// How it is asked for
    #[arg(long, default_value = "POST")]
    method: String,
    /// A header of the request, such as "x-user: ann"; repeatable
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// critical, default, batch or best-effort
    #[arg(long, default_value = "default")]
    class: String,
    /// Whose it is; tenants of a class have their turns
    #[arg(long)]
    tenant: Option<String>,
    /// Of two tasks of a service with the same key, the first is the one
    #[arg(long)]
    key: Option<String>,
    /// The wait before the first attempt, such as 30s
    #[arg(long, conflicts_with = "at")]
    delay: Option<String>,
    /// When the first attempt may be made, such as 2026-01-31T18:00:00Z
    #[arg(long)]
    at: Option<String>,
    /// No attempt is begun after this time
    #[arg(long)]
    deadline: Option<String>,
    /// Of one attempt
    #[arg(long, default_value = "60s")]
    timeout: String,
    /// All attempts, the first included
    #[arg(long, default_value_t = 20)]
    attempts: u32,
    /// Wait until it is over, and show it
    #[arg(long)]
    wait: bool,
}

/// One question of `--wait`; it is asked again and again.
const WAIT: Duration = Duration::from_secs(20);

pub fn run(arguments: &Arguments) -> ExitCode {
    let connection = &arguments.connection;
    connection.run(async |client| match &arguments.command {
        Command::Submit(submit) => {
            let submitted: SubmittedTask = client.post("/v1/tasks", &submit.task()?).await?;
            if submit.wait {
                return ended(connection, &client, &submitted.id).await;
            }
            connection.print(&submitted, |submitted| format!("{}\n", submitted.id));
            Ok(())
        }
        Command::Get { id, wait: true } => ended(connection, &client, id).await,
        Command::Get { id, wait: false } => {
            let task: Task = client.get(&path(id, "")).await?;
            connection.print(&task, shown);
            Ok(())
        }
        Command::List { service, state } => {
            let found = list(&client, service.as_deref(), state.as_deref()).await?;
            connection.print(&found, listed);
            Ok(())
        }
        Command::Cancel { id } => changed(connection, &client, id, "/cancel").await,
        Command::Lanes => {
            let lanes: TaskLanes = client.get("/v1/lanes").await?;
            connection.print(&lanes, |found| lanes_listed(&found.lanes));
            Ok(())
        }
        Command::Pause { service } => pause(connection, &client, service, true).await,
        Command::Resume { service } => pause(connection, &client, service, false).await,
        Command::Retry { id } => changed(connection, &client, id, "/retry").await,
    })
}

async fn pause(
    connection: &Connection,
    client: &Client,
    service: &str,
    paused: bool,
) -> Result<(), Failure> {
    let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
    let path = format!("/v1/lanes/{}/{}", segment(namespace), segment(name));
    let lane: TaskLane = client.put(&path, &TaskLaneChange { paused }).await?;
    connection.print(&lane, |lane| lanes_listed(std::slice::from_ref(lane)));
    Ok(())
}

fn path(id: &str, rest: &str) -> String {
    format!("/v1/tasks/{}{rest}", segment(id))
}

async fn changed(
    connection: &Connection,
    client: &Client,
    id: &str,
    what: &str,
) -> Result<(), Failure> {
    let task: Task = client.post(&path(id, what), &json!({})).await?;
    connection.print(&task, shown);
    Ok(())
}

/// Shows a task once it is over; it fails where it was not done.
async fn ended(connection: &Connection, client: &Client, id: &str) -> Result<(), Failure> {
    let waiting = path(id, &format!("?wait={}s", WAIT.as_secs()));
    loop {
        let task: Task = client.get(&waiting).await?;
        if !task.state.is_final() {
            continue;
        }
        connection.print(&task, shown);
        return match task.state {
            TaskState::Done => Ok(()),
            _ => Err(Failure::Said),
        };
    }
}

async fn list(
    client: &Client,
    service: Option<&str>,
    state: Option<&str>,
) -> Result<Tasks, Failure> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let parameters = [
            ("service", service),
            ("state", state),
            ("after", after.as_deref()),
        ];
        let given = parameters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", segment(value?))));
        let query = given.collect::<Vec<_>>().join("&");
        let page: Tasks = client.get(&format!("/v1/tasks?{query}")).await?;
        all.extend(page.tasks);
        after = page.next;
        if after.is_none() {
            return Ok(Tasks {
                tasks: all,
                next: None,
            });
        }
    }
}

impl Submit {
    fn task(&self) -> Result<Value, Failure> {
        let (namespace, service) = self
            .service
            .split_once('/')
            .unwrap_or(("default", &self.service));
        let mut headers = serde_json::Map::new();
        for header in &self.headers {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                Failure::Other(format!("{header:?} is no header, such as \"x-user: ann\""))
            })?;
            headers.insert(name.trim().to_owned(), value.trim().into());
        }
        Ok(json!({
            "namespace": namespace, "service": service, "path": self.path, "method": self.method,
            "headers": headers, "body": self.body()?, "class": self.class,
            "tenant": self.tenant.as_deref().unwrap_or_default(), "key": self.key,
            "delay": self.delay, "at": self.at, "deadline": self.deadline, "timeout": self.timeout,
            "retry": {"attempts": self.attempts, "backoff": "1s", "backoff_max": "10m"},
        }))
    }

    /// What is JSON goes as JSON.
    fn body(&self) -> Result<Value, Failure> {
        let text = match self.body.as_deref() {
            None => return Ok(Value::Null),
            Some("-") => {
                let mut text = String::new();
                let read = std::io::stdin().read_to_string(&mut text);
                read.map_err(|error| Failure::Other(format!("standard input: {error}")))?;
                text
            }
            Some(text) => text.to_owned(),
        };
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

fn shown(task: &Task) -> String {
    let service = format!("{}/{}", task.task.namespace, task.task.service);
    let rows = [
        ("id", Some(task.id.clone())),
        ("service", Some(service)),
        ("state", Some(task.state.as_str().to_owned())),
        (
            "attempts",
            Some(format!("{} of {}", task.attempts, task.task.retry.attempts)),
        ),
        ("class", Some(task.task.class.clone())),
        ("created", Some(task.created.clone())),
        (
            "due",
            Some(task.due.clone()).filter(|_| !task.state.is_final()),
        ),
        ("finished", task.finished.clone()),
        ("instance", task.instance.clone()),
        ("status", task.status.map(|status| status.to_string())),
        ("error", task.error.clone()),
        (
            "answer",
            task.answer.clone().filter(|answer| !answer.is_empty()),
        ),
    ];
    let rows = rows
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<9} {}\n", value?)));
    rows.collect()
}

fn lanes_listed(lanes: &[TaskLane]) -> String {
    let head = ["SERVICE", "READY", "RUNNING", "LIMIT", "DISCIPLINE", ""];
    let rows = lanes.iter().map(|lane| {
        vec![
            format!("{}/{}", lane.namespace, lane.service),
            lane.ready.to_string(),
            lane.running.to_string(),
            lane.limit.to_string(),
            lane.discipline.clone(),
            if lane.paused { "paused" } else { "" }.to_owned(),
        ]
    });
    table(head.map(str::to_owned).to_vec(), rows.collect())
}

fn listed(found: &Tasks) -> String {
    let head = [
        "ID", "SERVICE", "STATE", "ATTEMPTS", "DUE", "INSTANCE", "ERROR",
    ];
    let rows = found.tasks.iter().map(|task| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let error = or_dash(&task.error);
        vec![
            task.id.clone(),
            format!("{}/{}", task.task.namespace, task.task.service),
            task.state.as_str().to_owned(),
            task.attempts.to_string(),
            task.due.clone(),
            or_dash(&task.instance),
            error
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(60)
                .collect(),
        ]
    });
    table(head.map(str::to_owned).to_vec(), rows.collect())
}
