#!/usr/bin/env python3
"""Real clients and servers through real proxies; prints a line a check and exits 1 if one failed.

    tests/clients/run.py               everything, in under two minutes
    tests/clients/run.py websocket     the checks whose name contains the word

Uses $PILLION, else target/release/pillion, else target/debug/pillion. `tests/install` brings the clients.
"""

import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from mesh import Mesh

import grpc_clients
import http_clients
import websocket_clients

MODULES = (http_clients, grpc_clients, websocket_clients)


def main():
    if any(word.startswith("-") for word in sys.argv[1:]):
        sys.exit(__doc__)
    wanted = sys.argv[1:]
    passed, failed = 0, []
    with Mesh() as mesh, ThreadPoolExecutor(64) as pool:
        checks = [(f"{way.name}: {check.__doc__}", check, way)
                  for way in mesh.ways for module in MODULES for check in module.CHECKS]
        checks = [each for each in checks if all(word in each[0] for word in wanted)]
        # What only waits runs beside everything else.
        patient = [(name, pool.submit(outcome, check, mesh, way)) for name, check, way in checks if getattr(check, "patient", False)]
        for name, check, way in checks:
            if getattr(check, "patient", False):
                continue
            passed += report(name, outcome(check, mesh, way), failed)
        for name, future in patient:
            passed += report(name, future.result(), failed)
        if failed:
            print(mesh.logs(), flush=True)
    print(f"\nclient test result: {'FAILED' if failed else 'ok'}. {passed} passed, {len(failed)} failed")
    for name in failed:
        print(f"  failed: {name}")
    sys.exit(1 if failed else 0)


def outcome(check, mesh, way):
    """(seconds, None or the failure as text)."""
    begun = time.monotonic()
    try:
        check(mesh, way)
        return time.monotonic() - begun, None
    except Exception:
        return time.monotonic() - begun, traceback.format_exc()


def report(name, result, failed):
    seconds, failure = result
    print(f"{'FAILED' if failure else 'ok    '} {seconds:5.1f} s  {name}", flush=True)
    if failure:
        failed.append(name)
        print(failure, flush=True)
    return not failure


if __name__ == "__main__":
    main()
