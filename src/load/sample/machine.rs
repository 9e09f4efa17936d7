//! The whole machine: how busy its CPUs are, how much memory is left, and what its links carry.

use std::fs;
use std::path::Path;

use super::files::{named, number, text};

/// More links of a machine are not looked at.
const LINKS_MAX: usize = 64;

/// What the CPUs have done since the machine began, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    busy: u64,
    idle: u64,
}

impl Times {
    /// The share of time that was busy.
    pub(super) fn busy_until(self, after: Times) -> Option<f64> {
        let busy = after.busy.checked_sub(self.busy)?;
        let idle = after.idle.saturating_sub(self.idle);
        let all = busy.checked_add(idle).filter(|ticks| *ticks > 0)?;
        Some(busy as f64 / all as f64)
    }
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in these.
pub(super) fn times(root: &Path) -> Option<Times> {
    let stat = text(&root.join("proc/stat"))?;
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks = line
        .split_ascii_whitespace()
        .take(8)
        .map(|word| word.parse().ok());
    let ticks: Vec<u64> = ticks.collect::<Option<_>>()?;
    let idle = ticks.get(3)?.checked_add(*ticks.get(4)?)?;
    let all = ticks
        .iter()
        .try_fold(0u64, |sum, ticks| sum.checked_add(*ticks))?;
    Some(Times {
        busy: all - idle,
        idle,
    })
}

/// The share of memory that cannot be had.
pub(super) fn memory(root: &Path) -> Option<f64> {
    let info = text(&root.join("proc/meminfo"))?;
    let total = named(&info, "MemTotal:").filter(|total| *total > 0)?;
    let available = named(&info, "MemAvailable:")?;
    Some(total.saturating_sub(available) as f64 / total as f64)
}

/// A link whose speed is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    received: u64,
    sent: u64,
    megabits_per_second: u64,
}

impl Link {
    /// What it has carried of what it could, in its busier direction.
    pub(super) fn share_until(&self, after: &Link, seconds: f64) -> Option<f64> {
        let received = after.received.checked_sub(self.received)?;
        let sent = after.sent.checked_sub(self.sent)?;
        let bits = received.max(sent) as f64 * 8.0;
        Some(bits / (after.megabits_per_second as f64 * 1e6 * seconds))
    }
}

/// The links of this network namespace, which a sidecar shares with its application.
pub(super) fn links(root: &Path) -> Vec<Link> {
    let Some(counted) = text(&root.join("proc/net/dev")) else {
        return Vec::new();
    };
    let Ok(known) = fs::read_dir(root.join("sys/class/net")) else {
        return Vec::new();
    };
    let links = known.flatten().take(LINKS_MAX).filter_map(|folder| {
        let name = folder.file_name().into_string().ok()?;
        // −1, or an error, where the speed is not known.
        let megabits_per_second: u64 = number(&folder.path().join("speed"))?;
        let (received, sent) = carried(&counted, &name)?;
        (megabits_per_second > 0).then_some(Link {
            name,
            received,
            sent,
            megabits_per_second,
        })
    });
    links.collect()
}

/// Of `/proc/net/dev`: `eth0: bytes packets errs drop fifo frame compressed multicast bytes …`.
fn carried(counted: &str, name: &str) -> Option<(u64, u64)> {
    let line = counted.lines().find_map(|line| {
        let (link, counts) = line.split_once(':')?;
        (link.trim() == name).then_some(counts)
    })?;
    let mut counts = line.split_ascii_whitespace();
    let received = counts.next()?.parse().ok()?;
    let sent = counts.nth(7)?.parse().ok()?;
    Some((received, sent))
}
