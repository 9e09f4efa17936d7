//! Services as they are, at once or when they change.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::api::{Instance, InstanceState, ServiceInstances, ServiceSummary, Services};
use crate::model::Name;
use crate::registry::view::InstanceSet;
use crate::registry::{Refusal, Registry};

/// A read that waits until the service has changed after `index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongPoll {
    pub index: u64,
    pub wait: Duration,
}

impl LongPoll {
    pub const WAIT: Duration = Duration::from_secs(300);
    pub const WAIT_MAX: Duration = Duration::from_secs(600);
}

impl Registry {
    pub fn services(&self, namespace: Option<&str>) -> Services {
        let view = self.view.state();
        let wanted = view
            .services
            .iter()
            .filter(|(name, _)| namespace.is_none_or(|namespace| *name.namespace == *namespace));
        let services = wanted.map(|(name, set)| summary(name, set)).collect();
        Services {
            revision: self.revision(),
            services,
        }
    }

    /// The instances of a service, with their last load.
    pub async fn service(
        &self,
        service: &Name,
        poll: Option<LongPoll>,
    ) -> Result<ServiceInstances, Refusal> {
        let Some(poll) = poll else {
            return self.instances_of(service).ok_or_else(|| {
                Refusal::not_found(format_args!("service {service}"))
                    .hint("GET /v1/services lists those there are")
            });
        };
        self.changed(service, poll).await;
        Ok(self
            .instances_of(service)
            .unwrap_or_else(|| self.nothing(service)))
    }

    /// Waits until the service has changed after the index, or the time is over.
    async fn changed(&self, service: &Name, poll: LongPoll) {
        let deadline = Instant::now() + poll.wait.min(LongPoll::WAIT_MAX);
        let mut newest = self.view.changes().subscribe();
        loop {
            newest.mark_unchanged();
            let changed = self
                .view
                .state()
                .services
                .get(service)
                .map_or(0, |set| set.changed);
            // An index of the future comes from other data; waiting for it would be in vain.
            if changed > poll.index || poll.index > self.revision() {
                return;
            }
            if timeout_at(deadline, newest.changed()).await.is_err() {
                return;
            }
        }
    }

    pub fn instance(&self, id: &str) -> Result<Instance, Refusal> {
        let view = self.view.state();
        let found = view
            .find(id)
            .and_then(|(known, entry)| entry.instance(Some(known)));
        found.ok_or_else(|| Refusal::not_found(format_args!("instance {id}")))
    }

    fn instances_of(&self, service: &Name) -> Option<ServiceInstances> {
        let view = self.view.state();
        let set = view.services.get(service)?;
        let instances = set
            .entries
            .iter()
            .filter_map(|(id, entry)| entry.instance(view.instances.get(id)));
        Some(ServiceInstances {
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            index: set.changed,
            instances: instances.collect(),
        })
    }

    fn nothing(&self, service: &Name) -> ServiceInstances {
        ServiceInstances {
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            index: self.revision(),
            instances: Vec::new(),
        }
    }
}

fn summary(name: &Name, set: &InstanceSet) -> ServiceSummary {
    let count = |state| {
        set.entries
            .values()
            .filter(|entry| entry.state == state)
            .count()
    };
    ServiceSummary {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        instances: set.entries.len(),
        passing: count(InstanceState::Passing),
        warning: count(InstanceState::Warning),
        critical: count(InstanceState::Critical),
        draining: count(InstanceState::Draining),
    }
}
