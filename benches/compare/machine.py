"""Processes on this machine: start them pinned to a core, and read what they cost.

CPU time is the kernel's own per-process clock (nanoseconds, all threads), summed over the process and its children.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROXY_CORE = 0
LOAD_CORE = 1

# Debian keeps servers where an ordinary user's PATH does not look.
os.environ["PATH"] += ":/usr/sbin:/sbin"


def find_program(name, *candidates):
    """The path of a program, or None; `candidates` are tried before PATH."""
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    return shutil.which(name)


def pinned(core, command, realtime=False):
    """The command line that runs `command` on one core, above everything else there when `realtime`."""
    prefix = ["taskset", "-c", str(core)]
    if realtime:
        prefix += ["chrt", "--rr", "1"]
    return prefix + [str(part) for part in command]


class Process:
    """A child process with its output in a file; leaving the `with` block ends it."""

    def __init__(self, command, log, env=None):
        self.command = command
        self.log = Path(log)
        with open(self.log, "wb") as output:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                          env={**os.environ, **(env or {})})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def tree(self):
        """Process ids of the child and all its descendants."""
        found, todo = [], [self.child.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    todo += [int(child) for child in task.read_text().split()]
                except OSError:
                    pass
        return found

    def cpu_seconds(self):
        """CPU time of the whole tree since it began, user and kernel."""
        return sum(process_cpu_seconds(pid) for pid in self.tree())

    def pss_bytes(self):
        """Proportional set size of the whole tree."""
        return sum(process_pss_bytes(pid) for pid in self.tree())

    def running(self):
        return self.child.poll() is None

    def stop(self, seconds=5):
        if not self.running():
            return
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def tail(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def process_cpu_seconds(pid):
    # The kernel's number for "CPU clock of that process": see clock_getcpuclockid(3).
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def process_pss_bytes(pid):
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def wait_for_port(port, process, seconds=30):
    """Returns once something accepts on the port; raises with the process's last words when it ended instead."""
    until = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if not process.running():
            raise RuntimeError(f"{process.command} ended with {process.child.returncode}:\n{process.tail()}")
        if time.monotonic() > until:
            raise RuntimeError(f"{process.command} does not listen on {port} after {seconds} s:\n{process.tail()}")
        time.sleep(0.05)


def render(template, values):
    """Fills `@name@` in a template; every placeholder must have a value."""
    text = Path(template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
