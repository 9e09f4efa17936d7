use serde_json::Value;

use super::{ClusterView, LaneView};
use crate::api::Events;
use crate::explain::{Asked, Explained};

type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;
type Explain = Box<dyn Fn(&Asked) -> Result<Explained, String> + Send + Sync>;
type TryChange = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the admin pages show and steer. Each closure is called off the control thread and may take its time.
pub struct State {
    /// Whether this process can do its work; otherwise every reason why not.
    pub ready: Ask<Result<(), Vec<String>>>,
    /// Whether it can carry traffic, whatever the application beside it says; otherwise every reason why not.
    pub started: Ask<Result<(), Vec<String>>>,
    /// The effective snapshot, secrets already redacted.
    pub config: Ask<Value>,
    /// What is wrong with the documents as they are now; an empty list when nothing is.
    pub problems: Ask<Value>,
    pub clusters: Ask<Vec<ClusterView>>,
    /// What has been detected and done, after the event of this id.
    pub events: Box<dyn Fn(u64) -> Events + Send + Sync>,
    /// Why a request goes where it goes, or what is wrong with the question.
    pub explain: Explain,
    /// The lanes in front of the application beside this proxy.
    pub lanes: Ask<Vec<LaneView>>,
    /// The metrics as text: OpenMetrics when true, else the Prometheus format.
    pub metrics: Box<dyn Fn(bool) -> String + Send + Sync>,
    /// Has peers stop sending to the application beside this process, and serves on; more than once does no harm.
    pub leave: Ask<()>,
    /// Begins to drain; more than once does no harm.
    pub drain: Ask<()>,
    /// The log filter in force, such as `info,pillion::proxy=debug`.
    pub log_level: Ask<String>,
    /// Replaces the log filter, or says what is wrong with the new one.
    pub set_log_level: TryChange,
}

impl State {
    /// A process that is ready, has nothing to show and nothing to steer: the start for a process that has no data
    /// plane, and for tests. Fill in what there is with struct update syntax.
    pub fn empty() -> Self {
        Self {
            ready: Box::new(|| Ok(())),
            started: Box::new(|| Ok(())),
            config: Box::new(|| Value::Null),
            problems: Box::new(|| Value::Array(Vec::new())),
            clusters: Box::new(Vec::new),
            events: Box::new(|_| Events::default()),
            explain: Box::new(|_| Err("this process serves no traffic".into())),
            lanes: Box::new(Vec::new),
            metrics: Box::new(|_| String::new()),
            leave: Box::new(|| ()),
            drain: Box::new(|| ()),
            log_level: Box::new(String::new),
            set_log_level: Box::new(|_| Err("this process has no log filter to change".into())),
        }
    }
}
