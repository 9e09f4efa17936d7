//! What the kernel knows of this process, under the names that every Prometheus client uses.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Registry, Scrape};

/// Adds the process's metrics and the build's, with the start time of now.
pub fn register(registry: &Registry) {
    let start = SystemTime::now().duration_since(UNIX_EPOCH);
    let start = start.unwrap_or_default().as_secs_f64();
    registry.collect(move |scrape| {
        collect(scrape);
        scrape.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            &[],
            start,
        );
        scrape.gauge(
            "pillion_build_info",
            "1, with the version as label.",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1.0,
        );
    });
}

fn collect(scrape: &mut Scrape) {
    scrape.seconds(
        "process_cpu_seconds_total",
        "User and system time.",
        &[],
        cpu_seconds(),
    );
    if let Some((virtual_pages, resident_pages)) = memory_pages() {
        let page = page_bytes();
        scrape.gauge(
            "process_virtual_memory_bytes",
            "Virtual memory.",
            &[],
            virtual_pages * page,
        );
        scrape.gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            &[],
            resident_pages * page,
        );
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the one that reads the folder.
        let open = open.count().saturating_sub(1);
        scrape.gauge(
            "process_open_fds",
            "Open file descriptors.",
            &[],
            open as f64,
        );
    }
    if let Some(limit) = fds_max() {
        scrape.gauge("process_max_fds", "File descriptors at most.", &[], limit);
    }
}

fn cpu_seconds() -> f64 {
    // SAFETY: `usage` is a plain C struct that getrusage fills; zero is valid for each of its fields.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn memory_pages() -> Option<(f64, f64)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_ascii_whitespace().map(str::parse::<f64>);
    Some((pages.next()?.ok()?, pages.next()?.ok()?))
}

fn page_bytes() -> f64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as f64 }
}

fn fds_max() -> Option<f64> {
    // SAFETY: `limit` is a plain C struct that getrlimit fills.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        let read = libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        (read == 0).then_some(limit.rlim_cur as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn a_process_has_memory_time_and_descriptors() {
        let registry = Registry::default();
        register(&registry);
        let text = registry.encode(Format::Prometheus);
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")));
            let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0), "{name}");
        }
        assert!(text.contains("pillion_build_info{version=\""));
    }
}
