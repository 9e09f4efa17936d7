//! Recorded trees of either version, one that is written here and changes, and the machine that this runs on.

use std::fs;
use std::path::PathBuf;

use super::*;

const SECOND: Nanos = 1_000_000_000;

/// A tree that is written by hand.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Tree(tempfile::tempdir().expect("a folder"));
        tree.write(files);
        tree
    }

    fn write(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
            fs::write(path, text).expect("written");
        }
    }

    fn sampler(&self, cgroup: Option<&str>) -> Sampler {
        Sampler::new(&Source {
            root: self.0.path().to_owned(),
            cgroup: cgroup.map(PathBuf::from),
        })
    }
}

const POD_V2: [(&str, &str); 8] = [
    ("proc/self/cgroup", "0::/kubepods/pod1/sidecar\n"),
    ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
    (
        "sys/fs/cgroup/kubepods/pod1/cpu.stat",
        "usage_usec 1000000\nuser_usec 700000\nsystem_usec 300000\n",
    ),
    ("sys/fs/cgroup/kubepods/pod1/cpu.max", "50000 100000\n"),
    ("sys/fs/cgroup/kubepods/pod1/memory.current", "1000000000\n"),
    ("sys/fs/cgroup/kubepods/pod1/memory.max", "1000000000\n"),
    (
        "sys/fs/cgroup/kubepods/pod1/memory.stat",
        "anon 700000000\ninactive_file 200000000\nactive_file 5\n",
    ),
    (
        "sys/fs/cgroup/kubepods/pod1/memory.pressure",
        "some avg10=12.50 avg60=1.00 avg300=0.10 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    ),
];

#[test]
fn a_pod_is_measured_against_its_limits() {
    let tree = Tree::new(&POD_V2);
    let mut sampler = tree.sampler(None);
    let first = sampler.sample(0);
    assert_eq!(first.cpu, None, "one look knows no times");
    assert_eq!(first.memory, Some(0.8));
    assert_eq!(first.memory_pressure, Some(0.125));
    // 0.2 s of CPU time in 1 s, of half a CPU.
    let later = "usage_usec 1200000\n";
    tree.write(&[("sys/fs/cgroup/kubepods/pod1/cpu.stat", later)]);
    assert_eq!(sampler.sample(SECOND).cpu, Some(0.4));
    assert_eq!(sampler.sample(2 * SECOND).cpu, Some(0.0));
}

#[test]
fn waiting_for_a_cpu_counts_where_it_is_more_than_the_share_of_the_limit() {
    let tree = Tree::new(&POD_V2);
    let some = "some avg10=90.00 avg60=1.00 avg300=0.10 total=99\n";
    tree.write(&[("sys/fs/cgroup/kubepods/pod1/cpu.pressure", some)]);
    let mut sampler = tree.sampler(None);
    sampler.sample(0);
    assert_eq!(sampler.sample(SECOND).cpu, Some(0.9));
}

#[test]
fn a_group_of_version_1_is_measured_against_its_limits() {
    let tree = Tree::new(&[
        (
            "proc/self/cgroup",
            "4:memory:/elsewhere\n3:cpuset:/\n2:cpu,cpuacct:/elsewhere\n",
        ),
        ("sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "200000\n"),
        ("sys/fs/cgroup/cpu/app/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpuacct/app/cpuacct.usage", "1000000000\n"),
        ("sys/fs/cgroup/memory/app/memory.usage_in_bytes", "900\n"),
        ("sys/fs/cgroup/memory/app/memory.limit_in_bytes", "1000\n"),
    ]);
    let mut sampler = tree.sampler(Some("/app"));
    assert_eq!(sampler.sample(0).memory, Some(0.9));
    // 3 s of CPU time in 2 s, of two CPUs.
    let later = "4000000000\n";
    tree.write(&[("sys/fs/cgroup/cpuacct/app/cpuacct.usage", later)]);
    assert_eq!(sampler.sample(2 * SECOND).cpu, Some(0.75));
}

const MACHINE: [(&str, &str); 4] = [
    (
        "proc/stat",
        "cpu  100 0 100 700 100 0 0 0 9 9\ncpu0 1 2 3\n",
    ),
    (
        "proc/meminfo",
        "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:   250 kB\n",
    ),
    (
        "proc/net/dev",
        "Inter-| Receive | Transmit\n face |bytes\n  eth0: 1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n",
    ),
    ("sys/class/net/eth0/speed", "100\n"),
];

#[test]
fn without_limits_it_is_the_machine_that_counts() {
    let unlimited = [
        ("sys/fs/cgroup/kubepods/pod1/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/kubepods/pod1/memory.max", "max\n"),
    ];
    for of_group in [&POD_V2[..], &[]] {
        let tree = Tree::new(&[of_group, &unlimited, &MACHINE].concat());
        tree.write(&[("sys/class/net/lo/speed", "-1\n")]);
        let mut sampler = tree.sampler(None);
        assert_eq!(sampler.sample(0).memory, Some(0.75));
        tree.write(&[
            ("proc/stat", "cpu  160 0 120 710 110 0 0 0 9 9\n"),
            // 5 MB in 1 s are 40 Mbit/s.
            (
                "proc/net/dev",
                "  eth0: 1001 1 0 0 0 0 0 0 5002000 1 0 0 0 0 0 0\n",
            ),
        ]);
        let usage = sampler.sample(SECOND);
        assert_eq!(usage.cpu, Some(0.8));
        assert_eq!(usage.network, Some(0.4));
    }
}

#[test]
fn a_limit_of_version_1_that_is_none_is_none() {
    let files = [
        ("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpuacct/a/cpuacct.usage", "5\n"),
        ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "900\n"),
        (
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
    ];
    let mut sampler = Tree::new(&files).sampler(Some("/a"));
    sampler.sample(0);
    assert_eq!(sampler.sample(SECOND), Usage::default());
}

/// Each file of a good tree in turn says what it should not: there is no sample of it, and no end of the process.
#[test]
fn garbage_is_no_sample() {
    let good = [&POD_V2[..], &MACHINE].concat();
    for (path, _) in &good {
        for garbage in [
            "",
            "\n",
            "max",
            "-1",
            "x 1",
            "some avg10=x",
            "99999999999999999999",
            "NaN",
        ] {
            let tree = Tree::new(&good);
            tree.write(&[(path, garbage)]);
            let mut sampler = tree.sampler(None);
            sampler.sample(SECOND);
            for now in [SECOND, 2 * SECOND, 0] {
                let usage = sampler.sample(now);
                let shares = [
                    usage.cpu,
                    usage.memory,
                    usage.memory_pressure,
                    usage.network,
                ];
                let sane = |share: &f64| (0.0..=10.0).contains(share);
                assert!(
                    shares.iter().flatten().all(sane),
                    "{path} {garbage:?} {usage:?}"
                );
            }
        }
    }
    let nothing = Tree::new(&[]);
    let mut sampler = nothing.sampler(None);
    sampler.sample(0);
    assert_eq!(sampler.sample(SECOND), Usage::default());
}

/// Whatever this runs on has processors and memory, and both are in use.
#[test]
fn the_machine_at_hand_is_measured() {
    let mut sampler = Sampler::new(&Source::default());
    let first = sampler.sample(0);
    let memory = first.memory.expect("/proc/meminfo, or a limit");
    assert!(memory > 0.0 && memory < 1.5, "{memory}");
    let top = Source {
        cgroup: Some("/".into()),
        ..Source::default()
    };
    let group = Group::find(&top.root, top.cgroup.as_deref());
    if let Some(time) = group.as_ref().and_then(Group::cpu_time) {
        assert!(time > 0);
    }
    // Until the clock of /proc/stat has gone on, in ticks of 10 ms.
    let hang = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let cpu = (1..).find_map(|second| {
        let now = tokio::time::Instant::now();
        assert!(now < hang, "/proc/stat does not move");
        sampler.sample(second * SECOND).cpu
    });
    assert!(cpu.is_some_and(|cpu| cpu >= 0.0));
}
