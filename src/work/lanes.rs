//! The lanes of services: how much waits in each, and whether it is handed out at all.

use super::{Work, keys};
use crate::api::TaskLane;
use crate::model::Name;
use crate::store::{KeyRange, Operation, StoreError, Txn};
use crate::work::workers::Workers;

impl Work {
    pub(super) async fn read_paused(&self) -> Result<(), StoreError> {
        let mut range = KeyRange::prefix(keys::LANES);
        loop {
            let page = self.page(range.clone()).await?;
            let services = page.entries.iter();
            let services = services.filter_map(|found| keys::service_of_lane(&found.key));
            self.held().paused.extend(services);
            match page.entries.last().filter(|_| page.more) {
                Some(last) => range.start = [&last.key[..], &[0]].concat().into(),
                None => return Ok(()),
            }
        }
    }

    /// Stops handing out the tasks of a service, or goes on; what runs goes on. It holds over restarts.
    pub async fn pause(&self, service: &Name, paused: bool) -> Result<(), StoreError> {
        let operation = match paused {
            true => Operation::put(keys::lane(service), ""),
            false => Operation::Delete(keys::lane(service)),
        };
        self.store.txn(Txn::of(vec![operation])).await?;
        let mut held = self.held();
        match paused {
            true => held.paused.insert(service.clone()),
            false => held.paused.remove(service),
        };
        drop(held);
        self.changed.notify_one();
        Ok(())
    }

    /// Of one service, or of all that have tasks which are due, or are paused; by name.
    pub fn lanes(&self, of: Option<&Name>, workers: &dyn Workers) -> Vec<TaskLane> {
        let mut found: Vec<(Name, bool, u64, u64)> = {
            let held = self.held();
            let due = held.queue.lanes().map(|(service, ready, running)| {
                let service = Name::clone(service);
                let paused = held.paused.contains(&service);
                (service, paused, ready, running)
            });
            let mut found: Vec<_> = due.collect();
            let idle = |service: &&Name| !found.iter().any(|(known, ..)| known == *service);
            let paused: Vec<&Name> = held.paused.iter().filter(idle).collect();
            found.extend(
                paused
                    .into_iter()
                    .map(|service| (service.clone(), true, 0, 0)),
            );
            found
        };
        if let Some(of) = of {
            found.retain(|(service, ..)| service == of);
            if found.is_empty() {
                found.push((of.clone(), false, 0, 0));
            }
        }
        found.sort();
        let lane = |(service, paused, ready, running): (Name, bool, u64, u64)| TaskLane {
            namespace: service.namespace.to_string(),
            service: service.name.to_string(),
            paused,
            discipline: workers.discipline(&service).as_str().to_owned(),
            limit: workers.fit(&service).iter().map(|one| one.tasks_max).sum(),
            ready,
            running,
        };
        found.into_iter().map(lane).collect()
    }
}
