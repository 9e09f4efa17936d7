//! A control group of either version: its CPU time and memory, and the limits of both.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>, <https://docs.kernel.org/admin-guide/cgroup-v1/index.html>

use std::path::{Component, Path, PathBuf};

use super::files::{named, number, text};

/// Of a group's CPU limit, where version 2 does not write it: 100 ms.
const PERIOD_MICROS: u64 = 100_000;

#[derive(Debug)]
pub(super) enum Group {
    V1 {
        cpu: PathBuf,
        cpuacct: PathBuf,
        memory: PathBuf,
    },
    V2(PathBuf),
}

impl Group {
    /// The one that is named, or else the one above our own; None where that cannot be seen.
    pub(super) fn find(root: &Path, named: Option<&Path>) -> Option<Group> {
        let hierarchy = root.join("sys/fs/cgroup");
        let own = text(&root.join("proc/self/cgroup"));
        let folder = |controllers: &[&str], mounts: &[&str]| {
            let path = match named {
                Some(path) => path.strip_prefix("/").unwrap_or(path).to_owned(),
                None => above(own.as_deref()?, controllers)?,
            };
            let mut mounts = mounts.iter().map(|mount| hierarchy.join(mount).join(&path));
            mounts.find(|folder| folder.is_dir())
        };
        if hierarchy.join("cgroup.controllers").exists() {
            return folder(&[""], &[""]).map(Group::V2);
        }
        Some(Group::V1 {
            cpu: folder(&["cpu"], &["cpu", "cpu,cpuacct"])?,
            cpuacct: folder(&["cpuacct"], &["cpuacct", "cpu,cpuacct"])?,
            memory: folder(&["memory"], &["memory"])?,
        })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Group::V1 { memory, .. } => memory,
            Group::V2(folder) => folder,
        }
    }

    /// Nanoseconds that its threads have had.
    pub(super) fn cpu_time(&self) -> Option<u64> {
        match self {
            Group::V1 { cpuacct, .. } => number(&cpuacct.join("cpuacct.usage")),
            Group::V2(folder) => {
                let micros = named(&text(&folder.join("cpu.stat"))?, "usage_usec")?;
                micros.checked_mul(1_000)
            }
        }
    }

    /// How many CPUs it may use at once; None is all there are.
    pub(super) fn cpu_limit(&self) -> Option<f64> {
        let (quota, period): (u64, u64) = match self {
            // −1 is no limit.
            Group::V1 { cpu, .. } => (
                number(&cpu.join("cpu.cfs_quota_us"))?,
                number(&cpu.join("cpu.cfs_period_us"))?,
            ),
            Group::V2(folder) => {
                let limit = text(&folder.join("cpu.max"))?;
                let mut words = limit.split_ascii_whitespace();
                let quota = words.next()?.parse().ok()?;
                let period = words.next().map(str::parse).transpose().ok()?;
                (quota, period.unwrap_or(PERIOD_MICROS))
            }
        };
        (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
    }

    /// The share of its limit that is in use; what the kernel could drop at once (files that nobody reads) is not.
    pub(super) fn memory(&self) -> Option<f64> {
        let (folder, used, limit, idle) = match self {
            Group::V1 { memory, .. } => (
                memory,
                "memory.usage_in_bytes",
                "memory.limit_in_bytes",
                "total_inactive_file",
            ),
            Group::V2(folder) => (folder, "memory.current", "memory.max", "inactive_file"),
        };
        let limit: u64 = number(&folder.join(limit)).filter(|limit| is_limit(*limit))?;
        let used: u64 = number(&folder.join(used))?;
        let stat = text(&folder.join("memory.stat"));
        let idle = stat.and_then(|stat| named(&stat, idle)).unwrap_or(0);
        Some(used.saturating_sub(idle) as f64 / limit as f64)
    }

    pub(super) fn cpu_pressure(&self) -> Option<f64> {
        self.pressure("cpu.pressure")
    }

    pub(super) fn memory_pressure(&self) -> Option<f64> {
        self.pressure("memory.pressure")
    }

    /// The share of the last ten seconds in which some thread has waited; version 1 does not say.
    fn pressure(&self, file: &str) -> Option<f64> {
        let Group::V2(folder) = self else {
            return None;
        };
        let pressure = text(&folder.join(file))?;
        let some = pressure
            .lines()
            .find_map(|line| line.strip_prefix("some "))?;
        let percent: f64 = some
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("avg10="))?
            .parse()
            .ok()?;
        (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
    }
}

/// Version 1 writes a number near 2⁶³ for no limit.
fn is_limit(bytes: u64) -> bool {
    bytes > 0 && bytes < 1 << 60
}

/// The group above our own, where that is not at the top: there is nothing above, or nothing that we may see.
fn above(own: &str, controllers: &[&str]) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (names, path) = line.split_once(':')?;
        let is_ours = names.split(',').any(|name| controllers.contains(&name));
        is_ours.then_some(path)
    })?;
    let path = Path::new(path).strip_prefix("/").ok()?;
    let is_seen = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let above = path.parent().filter(|_| is_seen)?;
    (above != Path::new("")).then(|| above.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_above_is_found_for_each_controller() {
        let own = "4:memory:/pods/a/sidecar\n2:cpu,cpuacct:/pods/b/sidecar\n0::/pods/c/sidecar\n";
        let above = |controller| above(own, &[controller]);
        assert_eq!(above("memory"), Some("pods/a".into()));
        assert_eq!(above("cpuacct"), Some("pods/b".into()));
        assert_eq!(above(""), Some("pods/c".into()));
        assert_eq!(above("pids"), None);
    }

    #[test]
    fn at_the_top_and_behind_a_namespace_there_is_none_above() {
        for own in [
            "0::/",
            "0::/alone",
            "0::/../pods/other",
            "0::",
            "nonsense",
            "",
        ] {
            assert_eq!(above(own, &[""]), None, "{own}");
        }
    }
}
