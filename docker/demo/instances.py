#!/usr/bin/env python3
"""Prints the compose file of so many instances of the backend, each with a sidecar: `instances.py 10 > instances.yaml`.

Compose's own --scale does not know that each sidecar belongs to one instance.
"""

import json
import sys


def instance(name):
    """Three services: the application, which owns the network; the rules in it; the sidecar beside it."""
    beside = {"network_mode": f"service:{name}"}
    return {
        name: {**common("backend"), "networks": {"default": {"aliases": ["backend"]}}},
        f"{name}-init": {**common("init"), **beside},
        f"{name}-sidecar": {
            **common("sidecar"),
            **beside,
            "environment": {"PILLION_APPS": "[{service: backend, port: 3000, protocol: http}]"},
            # It tells the mesh of its instance as soon as it is there, so the application is there first.
            "depends_on": {
                "registry": {"condition": "service_healthy"},
                f"{name}-init": {"condition": "service_completed_successfully"},
                name: {"condition": "service_healthy"},
            },
        },
    }


def common(service):
    return {"extends": {"file": "common.yaml", "service": service}}


def main():
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    services = {}
    for number in range(1, int(sys.argv[1]) + 1):
        services |= instance(f"backend-{number}")
    print(json.dumps({"version": "3.8", "services": services}, indent=2))  # JSON is YAML


if __name__ == "__main__":
    main()
