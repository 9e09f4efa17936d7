//! What the machine must have before a scenario starts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether scenarios are to run at all; a scenario that was asked for never passes by doing nothing.
pub fn scenarios_wanted() -> bool {
    ["PILLION_HOSTS", "PILLION_TESTS_ALL", "CI"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0"))
}

/// True when the scenario is to run; fails, saying what to do, when it is and the machine cannot.
#[must_use]
pub fn ready(programs: &[&str]) -> bool {
    if !scenarios_wanted() {
        return false;
    }
    // SAFETY: geteuid has no preconditions and cannot fail.
    assert_eq!(
        unsafe { libc::geteuid() },
        0,
        "this scenario needs root: run tests/hosts/run as root"
    );
    for program in programs {
        assert!(
            find(program).is_some(),
            "this scenario needs the program `{program}`: tests/install installs it"
        );
    }
    true
}

/// [`ready`], for a scenario whose programs are in Python and import this module.
#[must_use]
pub fn ready_with_python(module: &str) -> bool {
    if !scenarios_wanted() {
        return false;
    }
    let mut import = Command::new(python());
    let imported = import.args(["-c", &format!("import {module}")]).output();
    assert!(
        imported.is_ok_and(|output| output.status.success()),
        "this scenario needs the Python module `{module}` in target/venv: tests/install installs it"
    );
    true
}

/// The Python that has the packages of tests/install.
pub fn python() -> PathBuf {
    top().join("target/venv/bin/python")
}

/// The top of the repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a program is; the directories for administrators are searched too, and those that Debian keeps PostgreSQL's server in.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let postgres = versions.flatten().map(|version| version.path().join("bin"));
    let directories = env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .chain(postgres);
    directories
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// The binary under test.
pub fn pillion() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pillion"))
}
