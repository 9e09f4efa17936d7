//! Who may take a task, and who of them does.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Discipline, Name};

/// An instance that is fit to take tasks.
#[derive(Clone, PartialEq, Debug)]
pub struct Worker {
    pub id: Arc<str>,
    /// `host:port`
    pub address: Arc<str>,
    /// Its load factor, 0 to 1; None where it tells none.
    pub load: Option<f64>,
    /// Tasks that it may have at once.
    pub tasks_max: u32,
}

/// What the registry knows.
pub trait Workers: Send + Sync + 'static {
    /// The fit instances of a service.
    fn fit(&self, service: &Name) -> Vec<Worker>;

    /// In which order tasks of a service come.
    fn discipline(&self, service: &Name) -> Discipline;
}

/// How many tasks each instance has from here.
#[derive(Default, Debug)]
pub struct Dispatched(HashMap<Arc<str>, u32>);

impl Dispatched {
    /// The one with the lowest load, by what it tells and by what it has from here; none of `tried`, and none that has enough.
    pub fn choose(&self, workers: Vec<Worker>, tried: &[Arc<str>]) -> Option<Worker> {
        let score = |worker: &Worker| {
            let own = f64::from(self.of(&worker.id)) / f64::from(worker.tasks_max.max(1));
            worker.load.unwrap_or(0.0) + own
        };
        let fit = workers
            .into_iter()
            .filter(|worker| self.of(&worker.id) < worker.tasks_max && !tried.contains(&worker.id));
        fit.min_by(|a, b| score(a).total_cmp(&score(b)).then_with(|| a.id.cmp(&b.id)))
    }

    pub fn of(&self, instance: &str) -> u32 {
        self.0.get(instance).copied().unwrap_or(0)
    }

    pub fn begin(&mut self, instance: &Arc<str>) {
        *self.0.entry(Arc::clone(instance)).or_default() += 1;
    }

    pub fn end(&mut self, instance: &str) {
        if let Some(count) = self.0.get_mut(instance) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(instance);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, load: Option<f64>, tasks_max: u32) -> Worker {
        Worker {
            id: id.into(),
            address: format!("{id}:80").into(),
            load,
            tasks_max,
        }
    }

    #[test]
    fn the_lowest_load_takes_it_with_what_it_has_from_here() {
        let workers = || {
            vec![
                worker("a", Some(0.5), 4),
                worker("b", Some(0.2), 4),
                worker("c", None, 0),
            ]
        };
        let mut dispatched = Dispatched::default();
        let mut taken = String::new();
        while let Some(worker) = dispatched.choose(workers(), &[]) {
            dispatched.begin(&worker.id);
            taken += &worker.id;
        }
        // By 0.2 and 0.5, to which each adds a quarter; of equals the first.
        assert_eq!(taken, "bbababaa");
        assert_eq!((dispatched.of("a"), dispatched.of("b")), (4, 4));
        dispatched.end("a");
        let tried = ["a".into()];
        assert_eq!(dispatched.choose(workers(), &tried), None);
        assert_eq!(&*dispatched.choose(workers(), &[]).expect("a").id, "a");
    }
}
