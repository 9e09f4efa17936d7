#!/usr/bin/env python3
"""docker/demo as one process tree: the story with either edge, and its page in a real browser; exits 1 if one failed.

Uses $PILLION, else what docker/demo/run.py finds. `tests/install` brings Node, Express, nginx and Chromium.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HANG_GUARD_SECONDS = 180


def main():
    failed = [check.__doc__ for check in CHECKS if not passes(check)]
    print(f"\ndemo test result: {'FAILED' if failed else 'ok'}. {len(CHECKS) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def passes(check):
    begun = time.monotonic()
    try:
        check()
        failure = ""
    except (AssertionError, OSError, subprocess.SubprocessError) as problem:
        failure = f"\n{problem}"
    print(f"{'FAILED' if failure else 'ok    '} {time.monotonic() - begun:5.1f} s  {check.__doc__}{failure}", flush=True)
    return not failure


def behind_the_gateway_nothing_fails():
    """Instances are killed, stopped and added behind pillion's own gateway, and no page and no task fails"""
    tell_the_story("gateway")


def behind_nginx_nothing_fails():
    """Instances are killed, stopped and added behind a real Nginx, and no page and no task fails"""
    tell_the_story("nginx")


def tell_the_story(edge):
    told = subprocess.run(command("--once", "--rounds", 1, "--edge", edge), capture_output=True, text=True, timeout=HANG_GUARD_SECONDS)
    assert told.returncode == 0, told.stdout + told.stderr
    summary = told.stdout.splitlines()[-1]
    # Four in the beginning, and two that came later.
    assert "taken by 6 instances; 0 failed" in summary, told.stdout


def a_browser_shows_the_page():
    """Chromium shows the application's page at http://localhost"""
    port = free_port()
    chromium = shutil.which("chromium")
    assert chromium, "no chromium: tests/install installs it"
    with subprocess.Popen(command(port=port), stdout=subprocess.PIPE, text=True) as demo, tempfile.TemporaryDirectory() as profile:
        try:
            wait_for_line(demo, f"Open http://localhost:{port}")
            shown = subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom",
                                    f"http://localhost:{port}"], capture_output=True, text=True, timeout=HANG_GUARD_SECONDS)
        finally:
            demo.send_signal(signal.SIGTERM)
            said, _ = demo.communicate(timeout=HANG_GUARD_SECONDS)
    assert "Hello World!" in shown.stdout, shown.stdout + shown.stderr
    assert demo.returncode == 0, said


def wait_for_line(process, wanted):
    for line in process.stdout:
        if wanted in line:
            return
    raise AssertionError(f"the demo ended without saying {wanted!r}")


CHECKS = (behind_the_gateway_nothing_fails, behind_nginx_nothing_fails, a_browser_shows_the_page)


def command(*options, port=None):
    words = [sys.executable, ROOT / "docker/demo/run.py", "--instances", 4, "--port", port or free_port(), *options]
    return [str(word) for word in words]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
