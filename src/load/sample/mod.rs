//! Measuring an instance by the kernel's files: its control group against the group's limits, and the machine where it has none.
//!
//! A sidecar's own group holds the sidecar alone, so by default the one above is measured: that of a Kubernetes pod, which holds the
//! application too. In a container that sees no groups but its own, and wherever a group has no limit, what counts is how much
//! of the machine is left, since nothing less holds the application back. An operator can name another group instead.
//!
//! A file that is not there, or says `max`, is no limit; one that says anything else that cannot be read is no sample. Network traffic
//! counts only on links whose speed is known.

mod files;
mod group;
mod machine;

use std::path::{Path, PathBuf};

use self::group::Group;
use self::machine::{Link, Times};
use super::Usage;

/// A time on the caller's clock, in nanoseconds.
pub type Nanos = u64;

/// Where to look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The folder in which `proc` and `sys` are; `/` but for tests, and for hosts that are mounted elsewhere.
    pub root: PathBuf,
    /// The control group of the application, from the top of the hierarchy; None is the one above our own.
    pub cgroup: Option<PathBuf>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            cgroup: None,
        }
    }
}

/// Measures one instance again and again; shares of time are those since the sample before.
#[derive(Debug)]
pub struct Sampler {
    root: PathBuf,
    group: Option<Group>,
    before: Option<Counters>,
}

/// What only grows.
#[derive(Debug)]
struct Counters {
    at: Nanos,
    /// Nanoseconds of CPU time that the group has had.
    group: Option<u64>,
    machine: Option<Times>,
    links: Vec<Link>,
}

impl Sampler {
    pub fn new(source: &Source) -> Self {
        let root = source.root.clone();
        Self {
            group: Group::find(&root, source.cgroup.as_deref()),
            root,
            before: None,
        }
    }

    /// The folder of the group that is measured, for the log; None where it is the machine.
    pub fn group(&self) -> Option<&Path> {
        self.group.as_ref().map(Group::path)
    }

    /// What is used at this moment. The first sample knows no times yet.
    pub fn sample(&mut self, now: Nanos) -> Usage {
        let group = self.group.as_ref();
        let counters = Counters {
            at: now,
            group: group.and_then(Group::cpu_time),
            machine: machine::times(&self.root),
            links: machine::links(&self.root),
        };
        let memory = group.and_then(Group::memory);
        let before = self.before.as_ref();
        let usage = Usage {
            cpu: before.and_then(|before| self.cpu(before, &counters)),
            memory: memory.or_else(|| machine::memory(&self.root)),
            memory_pressure: group.and_then(Group::memory_pressure),
            network: before.and_then(|before| before.network(&counters)),
            ..Usage::default()
        };
        self.before = Some(counters);
        usage
    }

    /// Of the group's limit, or the time its threads have waited for a CPU where that is more; without a limit, of the machine.
    fn cpu(&self, before: &Counters, after: &Counters) -> Option<f64> {
        let limited = self.group.as_ref().and_then(|group| {
            let cpus = group.cpu_limit()?;
            let used = after.group?.checked_sub(before.group?)?;
            let elapsed = after.at.checked_sub(before.at).filter(|nanos| *nanos > 0)?;
            let share = used as f64 / (elapsed as f64 * cpus);
            Some(share.max(group.cpu_pressure().unwrap_or(0.0)))
        });
        limited.or_else(|| before.machine?.busy_until(after.machine?))
    }
}

impl Counters {
    /// Of the busiest link, in its busier direction.
    fn network(&self, after: &Counters) -> Option<f64> {
        let seconds = after.at.checked_sub(self.at)? as f64 / 1e9;
        let share = |link: &Link| {
            let before = self.links.iter().find(|before| before.name == link.name)?;
            let share = before.share_until(link, seconds)?;
            share.is_finite().then_some(share)
        };
        after.links.iter().filter_map(share).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests;
