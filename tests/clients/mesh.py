"""The mesh under test: servers, a gateway, and two sidecars in explicit mode, all real processes on ports of their own.

    gateway:   client ─ Gateway listener ─ server
    sidecars:  client ─ outbound sidecar ─ inbound sidecar ─ server
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HANG_GUARD_SECONDS = 60


def pillion_program():
    for candidate in (os.environ.get("PILLION"), ROOT / "target/release/pillion", ROOT / "target/debug/pillion"):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    sys.exit("no pillion: cargo build --release makes it, or set $PILLION")


def free_ports(count):
    """Ports that nothing listens on, below those that the kernel gives to outgoing connections."""
    found = []
    while len(found) < count:
        port = next(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found


PORTS = iter(range(27000 + os.getpid() % 40 * 100, 32000))


class Process:
    def __init__(self, name, command, folder):
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as output:
            self.child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def wait_for(self, *ports):
        until = time.monotonic() + HANG_GUARD_SECONDS
        for port in ports:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if self.child.poll() is not None:
                    raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")
                if time.monotonic() > until:
                    raise RuntimeError(f"{self.name} does not listen on {port}:\n{self.tail()}")
                time.sleep(0.05)
        return self

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def tail(self, lines=30):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(frozen=True)
class Way:
    """One way to a server: where the client connects, and what it calls the service."""

    name: str
    port: int
    # Ends the name of each service: `.test` behind the gateway, nothing in the mesh.
    suffix: str
    tls: bool = False
    # The sidecar's address is also an HTTP proxy.
    proxied: bool = False

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    def host(self, service):
        return service + self.suffix

    def proxy(self):
        return f"http://127.0.0.1:{self.port}" if self.proxied else None


# Services by what their endpoints speak: (server, protocol of the port, TLS towards the endpoint).
SERVICES = {
    "h1": ("http", "http", False),
    "h2": ("http", "http2", False),
    "h1-tls": ("https", "http", True),
    "h2-tls": ("https", "http2", True),
    "grpc": ("grpc", "grpc", False),
    "checked": ("grpc", "grpc", False),
    "ws": ("websocket", "http", False),
    "sealed": ("https", "tcp", False),
}
# One whose server comes and goes, and one that nobody knows.
SPARE_SERVICES = ("spare", "nobody")
HTTP_SERVICES = ("h1", "h2", "h1-tls", "h2-tls")
PORT = 80


class Mesh:
    """Everything of one run; `with Mesh() as mesh` ends what it started."""

    def __enter__(self):
        self.folder_guard = tempfile.TemporaryDirectory(prefix="pillion-clients-")
        self.folder = Path(self.folder_guard.name)
        self.processes = []
        self.ca = self.make_certificates()
        self.start_servers()
        self.start_gateway()
        self.start_sidecars()
        self.ways = [
            Way("gateway", self.gateway_port, ".test"),
            Way("gateway TLS", self.gateway_tls_port, ".test", tls=True),
            Way("sidecars", self.outbound_port, "", proxied=True),
        ]
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop()
        self.folder_guard.cleanup()

    def start(self, name, *command):
        process = Process(name, command, self.folder)
        self.processes.append(process)
        return process

    def make_certificates(self):
        """A CA that clients and the gateway trust, and one certificate of it for all names."""
        names = [f"DNS:{service}{suffix}" for service in [*SERVICES, *SPARE_SERVICES] for suffix in ("", ".test")]
        self.openssl("req", "-x509", "-subj", "/CN=clients test CA", "-keyout", "ca.key", "-out", "ca.pem")
        self.openssl("req", "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=clients.test",
                     "-addext", f"subjectAltName={','.join(names)}", "-addext", "basicConstraints=CA:FALSE",
                     "-keyout", "key.pem", "-out", "chain.pem")
        return self.folder / "ca.pem"

    def openssl(self, *arguments):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        done = subprocess.run(["openssl", arguments[0], *key, *arguments[1:]], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"openssl: {done.stderr}")

    def start_server(self, kind, port, *arguments):
        return self.start(kind, sys.executable, HERE / "servers.py", kind, port, *arguments)

    def start_servers(self):
        http, https, grpc, websocket, self.spare_grpc_port = free_ports(5)
        self.server_ports = {"http": http, "https": https, "grpc": grpc, "websocket": websocket}
        self.start_server("http", http, https, self.folder / "chain.pem", self.folder / "key.pem").wait_for(http, https)
        self.start_server("grpc", grpc).wait_for(grpc)
        self.start_server("websocket", websocket).wait_for(websocket)

    def service(self, name, address, protocol, tls):
        lines = ["kind: Service", f"name: {name}", f"ports: [{{port: {PORT}, protocol: {protocol}}}]",
                 f'endpoints: [{{address: "{address}"}}]']
        lines += ["health: {grpc: {service: test.Echo}, interval: 50ms}"] if name == "checked" else []
        lines += [f'tls: {{ca: "{self.ca}", sni: {name}.test}}'] if tls else []
        return "\n".join(lines)

    def server_address(self, name):
        return f"127.0.0.1:{self.server_ports[SERVICES[name][0]]}"

    def start_gateway(self):
        self.gateway_port, self.gateway_tls_port, admin = free_ports(3)
        documents = [f"""kind: Gateway
name: clients
address: 127.0.0.1
listeners:
  - {{name: plain, port: {self.gateway_port}, protocol: HTTP}}
  - {{name: tls, port: {self.gateway_tls_port}, protocol: HTTPS, tls: {{certificates: [{{cert: "{self.folder}/chain.pem", key: "{self.folder}/key.pem"}}]}}}}"""]
        for name, (_, protocol, tls) in SERVICES.items():
            if protocol != "tcp":
                documents += [self.service(name, self.server_address(name), protocol, tls), route(name)]
        documents += [self.service("spare", f"127.0.0.1:{self.spare_grpc_port}", "grpc", False), route("spare")]
        self.write("gateway-mesh.yaml", "\n---\n".join(documents))
        self.write("gateway.yaml", f'admin: {{address: "127.0.0.1:{admin}"}}\nmesh: gateway-mesh.yaml\n')
        gateway = self.start("gateway", pillion_program(), "proxy", "--config", self.folder / "gateway.yaml")
        gateway.wait_for(self.gateway_port, self.gateway_tls_port)

    def start_sidecars(self):
        """The inbound sidecar has a listener for each application port; the outbound one knows only those."""
        self.outbound_port, unused_outbound, admin, other_admin, inbound, unused_inbound, *listens = free_ports(6 + len(SERVICES) + 1)
        apps, documents = [], []
        ports = {**{name: (self.server_address(name), SERVICES[name]) for name in SERVICES},
                 "spare": (f"127.0.0.1:{self.spare_grpc_port}", ("grpc", "grpc", False))}
        for listen, (name, (server, (_, protocol, tls))) in zip(listens, ports.items()):
            if tls:
                continue  # between sidecars the application's own TLS travels as bytes: the service `sealed`
            apps.append(f'  - {{service: {name}, port: {PORT}, app: "{server}", protocol: {protocol}, listen: "127.0.0.1:{listen}"}}')
            documents.append(self.service(name, f"127.0.0.1:{listen}", protocol, False))
        self.write("sidecar-mesh.yaml", "\n---\n".join(documents))
        self.write("inbound.yaml", "\n".join([
            f'admin: {{address: "127.0.0.1:{admin}"}}', f'outbound: {{address: "127.0.0.1:{unused_outbound}"}}',
            f'inbound: {{address: "127.0.0.1:{inbound}"}}', "mesh: sidecar-mesh.yaml", "apps:", *apps]))
        self.write("outbound.yaml", "\n".join([
            f'admin: {{address: "127.0.0.1:{other_admin}"}}', f'outbound: {{address: "127.0.0.1:{self.outbound_port}"}}',
            f'inbound: {{address: "127.0.0.1:{unused_inbound}"}}', "mesh: sidecar-mesh.yaml"]))
        listening = [listen for listen, (_, (_, (_, _, tls))) in zip(listens, ports.items()) if not tls]
        self.start("inbound", pillion_program(), "proxy", "--config", self.folder / "inbound.yaml").wait_for(*listening)
        self.start("outbound", pillion_program(), "proxy", "--config", self.folder / "outbound.yaml").wait_for(self.outbound_port)

    def write(self, name, text):
        (self.folder / name).write_text(text + "\n")

    def services_of(self, way):
        """The HTTP services that one way leads to."""
        return [name for name in HTTP_SERVICES if not (way.proxied and SERVICES[name][2])]

    def logs(self):
        return "\n".join(f"---- {process.name}\n{process.tail()}" for process in self.processes)


def route(service):
    return f"""kind: HTTPRoute
name: {service}
hostnames: [{service}.test]
rules: [{{matches: [{{path: {{type: PathPrefix, value: /}}}}], backendRefs: [{{name: {service}, port: {PORT}}}]}}]"""
