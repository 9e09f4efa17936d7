"""The load: h2load and wrk on the load core, and what they counted."""

import re
import subprocess
from dataclasses import dataclass, field

from . import machine
from .peers import HOST, require


@dataclass
class Count:
    """What one run of a load generator saw."""

    done: int
    failed: int
    seconds: float
    latencies_us: list = field(default_factory=list)


def h2load(port, path, clients, streams=1, http1=False, tls=False, seconds=None, requests=None,
           rate_per_client=None, log=None, realtime=False):
    """Keep-alive load for `seconds`, or of exactly `requests` requests."""
    command = [require("h2load"), "-t", "1", "-c", clients, "-m", streams, "--connect-to", f"127.0.0.1:{port}"]
    command += ["-D", f"{round(seconds * 1000)}ms"] if seconds else ["-n", requests]
    if http1:
        command += ["--h1"]
    if rate_per_client:
        command += ["--rps", rate_per_client]
    if log:
        log.unlink(missing_ok=True)
        command += ["--log-file", log]
    command += [f"{'https' if tls else 'http'}://{HOST}{path}"]
    text = output_of(command, realtime)
    finished = re.search(r"finished in ([\d.]+)(us|ms|s|m)", text)
    counts = re.search(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    good = re.search(r"status codes: (\d+) 2xx", text)
    if not (finished and counts and good):
        raise RuntimeError(f"h2load printed something else:\n{text}")
    done, good = int(counts[1]), int(good[1])
    count = Count(done, max(done - good, 0) + int(counts[4]), float(finished[1]) * UNIT_SECONDS[finished[2]])
    if log:
        rows = (line.split("\t") for line in log.read_text().splitlines())
        count.latencies_us = sorted(int(row[2]) for row in rows if row[1] == "200")
    return count


UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def wrk_new_connections(port, path, clients, seconds, tls=False, realtime=False):
    """A new connection for each request."""
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}"
    command = [require("wrk"), "-t", "1", "-c", clients, "-d", f"{max(1, round(seconds))}s",
               "-H", f"Host: {HOST}", "-H", "Connection: close", url]
    text = output_of(command, realtime)
    counts = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", text)
    if not counts:
        raise RuntimeError(f"wrk printed something else:\n{text}")
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    # wrk counts the server's close after each answer as a read error, so those say nothing here.
    failed = int(statuses[1]) if statuses else 0
    failed += int(errors[1]) + int(errors[3]) + int(errors[4]) if errors else 0
    return Count(int(counts[1]), failed, float(counts[2]) * UNIT_SECONDS[counts[3]])


def output_of(command, realtime):
    done = subprocess.run(machine.pinned(machine.LOAD_CORE, command, realtime), capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
