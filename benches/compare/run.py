#!/usr/bin/env python3
"""CPU per request, latency and memory of Pillion and its peers, on one machine.

Every proxy has one worker, pinned to core 0; the load generator and the backends (four endpoints) have core 1. Rounds
interleave (A B C D A B C D), and ratios are taken within a round, so that a slow minute of the machine hits all alike.
CPU is the proxy's whole process tree, user and kernel, over the requests that were answered.

    benches/compare/run.py                          everything, 7 rounds of 1.5 s: about 10 minutes
    benches/compare/run.py --quick                  3 rounds of 0.7 s
    benches/compare/run.py --cases h1-small,tls-new --rounds 15
    benches/compare/run.py --peers pillion,haproxy    only these
    benches/compare/run.py --output figures.json    the raw rounds too
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compare import memory, report  # noqa: E402
from compare.cases import CASES, MEMORY  # noqa: E402
from compare.machine import LOAD_CORE, PROXY_CORE  # noqa: E402
from compare.peers import PEERS, Backends, make_certificate  # noqa: E402


def main():
    options = arguments()
    chosen = runnable_peers(options.peers)
    with tempfile.TemporaryDirectory(prefix="pillion-compare-") as folder:
        run = Path(folder)
        run.chmod(0o755)  # nginx's worker is another user
        make_certificate(run)
        backends = Backends(run, options.port_base, options.realtime)
        started = []
        try:
            for index, peer in enumerate(chosen):
                started.append(peer(run, options.port_base + 100 * (index + 1), backends, options.log).start(options.realtime))
            results = measure_all(options, backends, started, run)
        finally:
            for peer in started:
                peer.stop()
            backends.stop()
    if options.output:
        Path(options.output).write_text(json.dumps({"machine": platform.platform(), "cores": os.cpu_count(),
                                                    "options": vars(options), "results": results}, indent=1))
        print(f"raw rounds: {options.output}", file=sys.stderr)
    failed = sum(record["failed"] for name, rounds in results.items() if name != MEMORY
                 for records in rounds.values() for record in records)
    sys.exit(1 if failed else 0)


def arguments():
    names = [*CASES, MEMORY]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.7 s, 2,000 idle connections")
    parser.add_argument("--cases", default=",".join(names), help=f"comma-separated, of: {' '.join(names)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"comma-separated, of: {' '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, help="default 7")
    parser.add_argument("--seconds", type=float, help="of load a round and proxy; default 1.5")
    parser.add_argument("--connections", type=int, help="idle ones in the memory case; default 10,000")
    parser.add_argument("--settle", type=float, default=12, help="seconds before memory is read; default 12")
    parser.add_argument("--log", action="store_true", help="with access logs, one line a request, in all of them")
    parser.add_argument("--realtime", action="store_true",
                        help="run proxies, backends and load above everything else on the machine (root; for a busy machine)")
    parser.add_argument("--port-base", type=int, default=21000)
    parser.add_argument("--output", help="a JSON file for the raw rounds")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.seconds = options.seconds or (0.7 if options.quick else 1.5)
    options.connections = options.connections or (2000 if options.quick else 10000)
    options.cases = options.cases.split(",")
    options.peers = options.peers.split(",")
    for name in options.cases:
        if name not in names:
            parser.error(f"no case {name}; there are: {' '.join(names)}")
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"no peer {name}; there are: {' '.join(PEERS)}")
    if os.cpu_count() <= max(PROXY_CORE, LOAD_CORE):
        parser.error("two cores are needed: one for the proxy, one for the load")
    return options


def runnable_peers(names):
    chosen = []
    for name in names:
        reason = PEERS[name].missing()
        if reason:
            print(f"without {name}: {reason}", file=sys.stderr)
        else:
            chosen.append(PEERS[name])
    if not chosen:
        sys.exit("no proxy to measure")
    return chosen


def measure_all(options, backends, peers, run):
    results = {}
    for name in options.cases:
        if name == MEMORY:
            results[name] = {peer.name: memory.measure(peer, options.connections, options.settle) for peer in peers}
            print(report.memory_table(results[name], options.connections), flush=True)
        else:
            results[name] = measure_case(options, CASES[name], backends, peers, run)
            print(report.case_table(name, results[name]), flush=True)
    return results


def measure_case(options, case, backends, peers, run):
    rounds = {"direct": []} | {peer.name: [] for peer in peers}
    for peer in peers:
        case.load(peer.listener(case.listener), 0.3, options.realtime, None)  # connections, caches, page faults
    for index in range(options.rounds):
        if not case.tls:
            rounds["direct"].append(one_round(options, case, backends, None, run))
        # Each round begins with another proxy, so that none always runs after the same neighbour.
        turn = index % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            rounds[peer.name].append(one_round(options, case, peer, peer.process, run))
    return {name: records for name, records in rounds.items() if records}


def one_round(options, case, target, process, run):
    before = process.cpu_seconds() if process else 0
    count = case.load(target.listener(case.listener), options.seconds, options.realtime, run / "latency.tsv" if case.rate else None)
    cpu = process.cpu_seconds() - before if process else None
    record = {"done": count.done, "failed": count.failed, "seconds": count.seconds,
              "cpu_us": cpu * 1e6 / count.done if process and count.done else None,
              "core": cpu / count.seconds if process else None}
    if case.rate:
        record |= {f"{key}_us": report.percentile(count.latencies_us, share)
                   for key, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}
    return record


if __name__ == "__main__":
    main()
