"""The containers of the manifests as processes on this machine: their arguments and variables make a mesh that works.

Kubernetes' part is played here: fields of the pod are filled in, and folders and addresses are this machine's.
"""

import http.server
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

from manifests import named_object
from product import certificates, named, pillion, pillion_program, pod_of, scratch

HANG_GUARD_SECONDS = 60
FIELDS = {"metadata.name": "shop-1", "metadata.namespace": "default", "status.podIP": "127.0.0.1",
          "metadata.labels['topology.kubernetes.io/zone']": ""}
# What Kubernetes tells the pods of a namespace about the Service pillion-registry.
SERVICE_LINKS = {
    "PILLION_REGISTRY_SERVICE_HOST": "10.96.7.7", "PILLION_REGISTRY_SERVICE_PORT": "15010", "PILLION_REGISTRY_SERVICE_PORT_REGISTRY": "15010",
    "PILLION_REGISTRY_PORT": "tcp://10.96.7.7:15010", "PILLION_REGISTRY_PORT_15010_TCP": "tcp://10.96.7.7:15010",
    "PILLION_REGISTRY_PORT_15010_TCP_PROTO": "tcp", "PILLION_REGISTRY_PORT_15010_TCP_PORT": "15010",
    "PILLION_REGISTRY_PORT_15010_TCP_ADDR": "10.96.7.7",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(container, replace, **variables):
    """A container as a process; `replace` rewrites what only exists in a pod, and `variables` win."""
    env = {**SERVICE_LINKS}
    for variable in container["env"]:
        value = variable.get("value") if "value" in variable else FIELDS[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for old, new in replace.items():
            value = value.replace(str(old), str(new))
        env[variable["name"]] = value
    process = subprocess.Popen([pillion_program(), *container["args"]], env={"PATH": os.environ["PATH"], **env, **variables},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=HANG_GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def eventually(what, ask):
    until = time.monotonic() + HANG_GUARD_SECONDS
    while True:
        try:
            return ask()
        except (OSError, AssertionError) as error:
            if time.monotonic() > until:
                raise AssertionError(f"{what}: {error}") from error
            time.sleep(0.1)


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return response.read().decode()


def application():
    """Says hello on a port of its own."""
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def registry_sidecar_and_gateway_find_each_other():
    """registry, sidecar and gateway of the manifests find each other over TLS with the token, and the gateway reaches the application"""
    registry_port, admin, gateway_admin, gateway_port = (free_port() for _ in range(4))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(scratch()))
        secrets = certificates(folder)
        app = application()
        stack.callback(app.shutdown)

        registry = container("registry.yaml", "StatefulSet", "pillion-registry", "registry")
        stack.enter_context(running(registry, {
            "/run/secrets/pillion": secrets["pillion-registry"], "/var/lib/pillion": folder, "0.0.0.0:15010": f"127.0.0.1:{registry_port}"}))
        url = f"https://localhost:{registry_port}"
        client = secrets["pillion-registry-client"]
        here = {"/run/secrets/pillion": client, "https://pillion-registry.pillion:15010": url}

        sidecar = container("app-injected.yaml", "Deployment", "shop", "pillion-sidecar")
        stack.enter_context(running(sidecar, {
            **here, "/var/lib/pillion": folder, "0.0.0.0:15000": f"127.0.0.1:{admin}", "8080": app.server_port},
            PILLION_OUTBOUND__ADDRESS=f"127.0.0.1:{free_port()}", PILLION_INBOUND__ADDRESS=f"127.0.0.1:{free_port()}"))
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = sidecar[probe]["httpGet"]["path"]
            eventually(f"the sidecar's {probe}", lambda: get(admin, path))

        options = ("--registry", url, "--ca", client / "ca.crt", "--token-file", client / "token")
        code, out, err = pillion("services", "default/shop", *options)
        assert code == 0 and f"80=127.0.0.1:{app.server_port}" in out and "version=v1" in out and "shop-1" in out, out + err
        code, out, err = pillion("services", "--registry", url, "--ca", client / "ca.crt")
        assert code == 1 and "token" in err, out + err

        mesh = folder / "mesh"
        mesh.mkdir()
        documents = named_object("gateway.yaml", "ConfigMap", "pillion-gateway")["data"]["gateway.yaml"]
        (mesh / "gateway.yaml").write_text(documents.replace("8080", str(gateway_port)))
        gateway = container("gateway.yaml", "Deployment", "pillion-gateway", "gateway")
        stack.enter_context(running(gateway, {
            **here, "/var/lib/pillion/snapshot": folder / "gateway-snapshot", "/etc/pillion/mesh": mesh, "0.0.0.0:15000": f"127.0.0.1:{gateway_admin}"}))
        eventually("the gateway to be ready", lambda: get(gateway_admin, "/ready"))
        answer = eventually("the gateway to reach the application", lambda: get(gateway_port, "/"))
        assert answer == "hello", answer


def redirect_rules_can_be_printed():
    """the init container's arguments are understood, and leave the probes' port alone"""
    intercept = container("app-injected.yaml", "Deployment", "shop", "pillion-intercept")
    action, *options = intercept["args"]
    code, out, err = pillion("intercept", "print", *options)
    assert action == "apply" and code == 0, err
    assert "tcp dport { 15000, 15006 } return" in out, out


def container(file, kind, workload, name):
    spec = pod_of(named_object(file, kind, workload))["spec"]
    return named(spec["containers"] + spec.get("initContainers", []), name)


CHECKS = (redirect_rules_can_be_printed, registry_sidecar_and_gateway_find_each_other)
