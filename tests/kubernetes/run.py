#!/usr/bin/env python3
"""Manifests, charts, injection and webhook against the published Kubernetes schemas and the official Helm; no cluster is needed.

    tests/kubernetes/run.py              every check, a line each; exits 1 if one failed
    tests/kubernetes/run.py webhook      the checks whose name contains the word
    tests/kubernetes/run.py --write      first makes the files of docker/kubernetes that are made from others

Uses $PILLION, else target/release/pillion, else target/debug/pillion. `tests/install` brings the schemas and Helm.
"""

import sys
import time
import traceback

import charts
import injection
import manifests
import processes
import webhook

MODULES = (manifests, injection, charts, webhook, processes)


def main():
    words = sys.argv[1:]
    if words[:1] == ["--write"]:
        words = words[1:]
        manifests.write()
    if any(word.startswith("-") for word in words):
        sys.exit(__doc__)
    checks = [(f"{module.__name__}: {check.__doc__}", check) for module in MODULES for check in module.CHECKS]
    failed = [name for name, check in checks if all(word in name for word in words) and not passes(name, check)]
    print(f"\nkubernetes test result: {'FAILED' if failed else 'ok'}. {len(failed)} failed")
    sys.exit(1 if failed else 0)


def passes(name, check):
    begun = time.monotonic()
    try:
        check()
        failure = None
    except Exception:
        failure = traceback.format_exc()
    print(f"{'FAILED' if failure else 'ok    '} {time.monotonic() - begun:5.1f} s  {name}", flush=True)
    if failure:
        print(failure, flush=True)
    return not failure


if __name__ == "__main__":
    main()
