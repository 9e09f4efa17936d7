"""The demo's processes on one machine: the registry, instances of the backend behind sidecars, an edge, and the scheduler."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 20
POLL_SECONDS = 0.05

# Below the ports that the kernel gives to outgoing connections.
PORTS = iter(range(20000 + os.getpid() % 100 * 100, 32768))

# Asks the demo's own processes, whatever proxy this terminal uses.
direct = build_opener(ProxyHandler({}))


def free_port():
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    sys.exit("no free port is left")


def address(port=None):
    return f"127.0.0.1:{port or free_port()}"


def program(name, *places, hint):
    """The first of these files that can be run, else the program of that name."""
    for place in [place for place in places if place] + [shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]:
        if place and os.access(place, os.X_OK):
            return str(place)
    sys.exit(f"there is no {name}: {hint}")


def until(what, is_so):
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {START_TIMEOUT_SECONDS} s for {what}")
        time.sleep(POLL_SECONDS)


@dataclass
class Sidecar:
    process: subprocess.Popen
    admin: str
    # What an application is given as its HTTP proxy, where no rules redirect its traffic; a gateway has none.
    outbound: str | None

    def knows(self, endpoint):
        try:
            return endpoint in direct.open(f"http://{self.admin}/clusters", timeout=2).read().decode()
        except OSError:
            return False


@dataclass
class App:
    name: str
    port: int
    process: subprocess.Popen | None = None


@dataclass
class Instance:
    app: App
    sidecar: Sidecar
    # Where the rest of the mesh reaches it: at its sidecar.
    endpoint: str

    @property
    def name(self):
        return self.app.name


class Fleet:
    """`with Fleet(port) as fleet`: everything it starts ends with the block, and its folder is removed."""

    def __init__(self, edge_port):
        self.edge_port = edge_port
        self.pillion = program("pillion", os.environ.get("PILLION"), ROOT / "target/release/pillion", ROOT / "target/debug/pillion",
                               hint="cargo build --release makes it, or set $PILLION")
        self.node = program("node", hint="install Node.js 18 or later")
        if not (HERE / "app/node_modules/express").is_dir():
            sys.exit("Express is not installed: npm ci --prefix docker/demo/app")
        if listens(edge_port):
            sys.exit(f"port {edge_port} is in use; --port names another")
        self.instances = []
        self.started = 0
        self.processes = []

    def __enter__(self):
        self.guard = tempfile.TemporaryDirectory(prefix="pillion-demo-")
        self.folder = Path(self.guard.name)
        self.registry = address()
        self.spawn("registry", self.pillion, "registry", "--address", self.registry, "--data", self.folder / "store")
        self.wait_until_ready("registry", self.registry)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            kill(process)
        self.guard.cleanup()

    def add_instances(self, count):
        """Starts them at once, and waits until all take traffic."""
        apps = [self.start_app() for _ in range(count)]
        # A sidecar tells the mesh of its instance as soon as it is there, so the application is there first.
        for app in apps:
            until(f"{app.name} to listen", lambda: listens(app.port))
        added = [self.start_instance(app) for app in apps]
        for instance in added:
            self.wait_until_ready(f"{instance.name}-sidecar", instance.sidecar.admin)
        self.instances += added
        return added

    def start_app(self):
        self.started += 1
        app = App(f"backend-{self.started}", free_port())
        self.run_app(app)
        return app

    def run_app(self, app):
        app.process = self.spawn(app.name, self.node, HERE / "app/server.js", PORT=str(app.port))

    def start_instance(self, app):
        endpoint = address()
        apps = [{"port": 3000, "app": address(app.port), "listen": endpoint, "protocol": "http"}]
        return Instance(app, self.start_sidecar(app.name, service="backend", apps=apps), endpoint)

    def kill(self, instance):
        """As a machine that loses its power: the application and its sidecar, without a word to anybody."""
        kill(instance.sidecar.process)
        kill(instance.app.process)
        self.instances.remove(instance)

    def crash(self, instance):
        """As an application with a bug: it is gone, and its sidecar is still there."""
        kill(instance.app.process)

    def start_again(self, instance):
        """As whoever supervises the application does."""
        self.run_app(instance.app)
        until(f"{instance.name} to listen", lambda: listens(instance.app.port))

    def stop(self, instance):
        """As a deployment does: the sidecar leaves the mesh and finishes its requests, then the application ends."""
        instance.sidecar.process.terminate()
        instance.sidecar.process.wait(STOP_TIMEOUT_SECONDS)
        instance.app.process.terminate()
        self.instances.remove(instance)

    def start_gateway(self):
        """The proxy in the place of Nginx."""
        documents = (HERE / "gateway.yaml").read_text().replace("port: 8080", f"port: {self.edge_port}")
        (self.folder / "gateway-mesh.yaml").write_text(documents)
        self.edge_sidecar = self.start_proxy("gateway", mesh="gateway-mesh.yaml")
        self.wait_until_edge_serves()

    def start_nginx(self):
        """Nginx as it is, with a sidecar that is its way to the backend."""
        nginx = program("nginx", hint="install it, or leave out --edge nginx")
        self.edge_sidecar = self.start_sidecar("nginx")
        self.wait_until_ready("nginx-sidecar", self.edge_sidecar.admin)
        site = (HERE / "nginx/nginx.conf").read_text()
        site = site.replace("server backend:3000;", f"server {self.edge_sidecar.outbound};").replace("listen 8080;", f"listen {self.edge_port};")
        (self.folder / "site.conf").write_text(site)
        (self.folder / "nginx.conf").write_text(NGINX_MAIN)
        self.spawn("nginx", nginx, "-e", "stderr", "-p", self.folder, "-c", "nginx.conf")
        self.wait_until_edge_serves()

    def wait_until_edge_serves(self):
        until("the edge to listen", lambda: listens(self.edge_port))
        for instance in self.instances:
            until(f"the edge to know {instance.name}", lambda: self.edge_sidecar.knows(instance.endpoint))

    def start_scheduler(self):
        """The plain program; its environment says which proxy to use, as that of many a machine does."""
        sidecar = self.start_sidecar("scheduler", access_log={"path": "scheduler-access.log"})
        self.wait_until_ready("scheduler-sidecar", sidecar.admin)
        until("the scheduler's sidecar to know an instance", lambda: sidecar.knows(self.instances[0].endpoint))
        self.spawn("scheduler", sys.executable, HERE / "scheduler/scheduler.py", http_proxy=f"http://{sidecar.outbound}", no_proxy="")

    def start_sidecar(self, name, **settings):
        return self.start_proxy(f"{name}-sidecar", outbound={"address": address()}, inbound={"address": address()}, **settings)

    def start_proxy(self, name, **settings):
        admin = address()
        bootstrap = {"instance": name, "admin": {"address": admin}, "workers": 1, "log": {"level": "warn"},
                     "registry": {"addresses": [f"http://{self.registry}"]}, **settings}
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(bootstrap))  # JSON is YAML
        process = self.spawn(name, self.pillion, "proxy", "--config", file)
        return Sidecar(process, admin, outbound=settings.get("outbound", {}).get("address"))

    def wait_until_ready(self, name, admin):
        command = [self.pillion, "health", "--admin", admin, "--wait", str(START_TIMEOUT_SECONDS)]
        if subprocess.run(command, capture_output=True, env=environment()).returncode != 0:
            raise RuntimeError(f"{name} is not ready:\n{self.log(name)}")

    def spawn(self, name, *command, **variables):
        with open(self.folder / f"{name}.log", "wb") as log:
            # A group of its own: Ctrl-C is for the demo alone, and what a process starts ends with it.
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True, env=environment(**variables))
        self.processes.append(process)
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")


def environment(**variables):
    """This one's, less what would be read as keys of a bootstrap file."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PILLION")} | variables


def kill(process):
    """The process and whatever it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Around the site's own file, so that it runs as anybody and leaves nothing behind.
NGINX_MAIN = """
daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""
