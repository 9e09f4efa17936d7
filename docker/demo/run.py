#!/usr/bin/env python3
"""The demo in one process tree: instances of an Express application are killed, stopped and added under load, and nothing fails.

    docker/demo/run.py                   ten instances, with the proxy in the place of Nginx: http://localhost:8080
    docker/demo/run.py --edge nginx      a real Nginx stays in front
    docker/demo/run.py --once            end after the story instead of at Ctrl-C; exit code 1 if anything failed
"""

import argparse
import re
import signal
import sys
import time

from fleet import Fleet
from load import Load

ROUND_SECONDS = 2
NEWCOMER_SECONDS = 45


def main():
    arguments = parse_arguments()
    # Ends like Ctrl-C, with everything that it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Fleet(arguments.port) as fleet:
        say(f"Starting a registry, {arguments.instances} instances behind sidecars, {arguments.edge} in front, a scheduler")
        fleet.add_instances(arguments.instances)
        fleet.start_nginx() if arguments.edge == "nginx" else fleet.start_gateway()
        fleet.start_scheduler()
        say(f"Open http://localhost:{arguments.port}")
        with Load(arguments.port) as load:
            story = Story(fleet, load)
            try:
                story.tell(arguments.rounds if arguments.once else None)
            except KeyboardInterrupt:
                print()
        sys.exit(0 if story.summary() else 1)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="end after the story; exit code 1 if anything failed")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of that story (default 3)")
    parser.add_argument("--instances", type=int, default=10, metavar="N", help="instances of the backend (default 10)")
    parser.add_argument("--edge", choices=("gateway", "nginx"), default="gateway", help="what stands in front")
    parser.add_argument("--port", type=int, default=8080, help="of the edge (default 8080)")
    return parser.parse_args()


def say(text):
    print(text, flush=True)


class Story:
    def __init__(self, fleet, load):
        self.fleet = fleet
        self.load = load

    def tell(self, rounds):
        """So many rounds; without a number, until it is interrupted."""
        self.watch("all is well", self.fleet.instances)
        told = 0
        while told != rounds:
            told += 1
            self.lose_an_instance()
            self.lose_an_application()
            self.deploy_an_instance()

    def lose_an_instance(self):
        instance = self.fleet.instances[0]
        self.fleet.kill(instance)
        self.watch(f"killed {instance.name} and its sidecar with SIGKILL")
        self.add()

    def lose_an_application(self):
        instance = self.fleet.instances[0]
        self.fleet.crash(instance)
        self.watch(f"killed {instance.name} alone, its sidecar lives")
        self.fleet.start_again(instance)
        self.watch(f"started {instance.name} again")

    def deploy_an_instance(self):
        instance = self.fleet.instances[0]
        self.fleet.stop(instance)
        self.watch(f"stopped {instance.name} as a deployment does")
        self.add()

    def add(self):
        added, = self.fleet.add_instances(1)
        self.watch(f"added {added.name}", [added])

    def watch(self, what, newcomers=()):
        """Lets the traffic go on for a while, and until newcomers have taken tasks, and says how it went."""
        time.sleep(ROUND_SECONDS)
        # An instance whose first answer was slow gets less than the others for a while.
        deadline = time.monotonic() + NEWCOMER_SECONDS
        while not all(map(self.has_taken_a_task, newcomers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        accepted, failed = self.tasks()
        say(f"{what:<55} {len(self.fleet.instances):>3} instances {self.load.pages:>6} pages {len(accepted):>5} tasks"
            f" {len(self.load.failures) + len(failed):>3} failed")

    def has_taken_a_task(self, instance):
        accepted, _ = self.tasks()
        return any(by.endswith(f":{instance.app.port}") for by in accepted)

    def tasks(self):
        """What the scheduler says became of its tasks: who accepted each, and the lines about failures."""
        log = self.fleet.log("scheduler")
        return re.findall(r"^task \d+: accepted by (\S+)$", log, re.M), re.findall(r"^task \d+: failed.*$", log, re.M)

    def summary(self):
        """True if there was traffic of every kind, and nothing failed."""
        accepted, failed = self.tasks()
        failures = self.load.failures + failed
        for failure in failures[:10]:
            say(f"failed: {failure}")
        say(f"{self.load.pages} pages and {len(accepted)} tasks, taken by {len(set(accepted))} instances; {len(failures)} failed")
        return bool(self.load.pages and accepted) and not failures


if __name__ == "__main__":
    main()
