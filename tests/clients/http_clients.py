"""curl, httpx, h2load and wrk: every version of HTTP down- and upstream, plain and TLS."""

import hashlib
import json
import re
import subprocess
import time

import httpx

from mesh import PORT


def run(*command, stdin=None):
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, timeout=90)
    assert done.returncode == 0, f"{command} exited with {done.returncode}: {done.stderr.decode()[-600:]}"
    return done.stdout


def curl(mesh, way, service, path, *options, version="--http1.1", stdin=None):
    """HTTP/1.1 goes to the sidecar as to a proxy; HTTP/2 straight to its port, with the service as authority."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", 60, version]
    if way.tls:
        command += ["--cacert", mesh.ca]
    if way.proxied and version == "--http1.1":
        command += ["--proxy", way.proxy()]
    else:
        command += ["--connect-to", f"::127.0.0.1:{way.port}", "--noproxy", "*"]
    return run(*command, *options, f"{way.scheme}://{way.host(service)}{path}", stdin=stdin)


def http2_flag(way):
    return "--http2" if way.tls else "--http2-prior-knowledge"


def spoken_by(service):
    """The version that the server must have seen."""
    return "2" if service.startswith("h2") else "1.1"


def curl_reaches_every_server(mesh, way):
    """curl over HTTP/1.1 reaches HTTP/1.1 and HTTP/2 servers, plain and TLS"""
    for service in mesh.services_of(way):
        seen = json.loads(curl(mesh, way, service, "/a%2Fb/c?x=1&y=%20", "-H", "X-Mixed-Case: Kept"))
        assert (seen["path"], seen["query"]) == ("/a%2Fb/c", "x=1&y=%20"), seen
        assert seen["version"] == spoken_by(service), seen
        assert ["x-mixed-case", "Kept"] in seen["headers"], seen


def curl_over_http2_reaches_every_server(mesh, way):
    """curl over HTTP/2 reaches HTTP/1.1 and HTTP/2 servers, plain and TLS"""
    for service in mesh.services_of(way):
        seen = json.loads(curl(mesh, way, service, "/two", version=http2_flag(way)))
        assert seen["version"] == spoken_by(service), seen
    version = curl(mesh, way, "h1", "/two", "-o", "/dev/null", "-w", "%{http_version}", version=http2_flag(way))
    assert version == b"2", version


def big_bodies_arrive_whole(mesh, way):
    """8 MiB up and 64 MiB down arrive whole over both versions"""
    body = bytes(range(256)) * 4096 * 8
    file = mesh.folder / f"body-{way.port}"
    file.write_bytes(body)
    for service in mesh.services_of(way):
        for version in ("--http1.1", http2_flag(way)):
            seen = json.loads(curl(mesh, way, service, "/up", "--data-binary", f"@{file}", version=version))
            assert (seen["length"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest()), (service, version, seen)
            chunked = json.loads(curl(mesh, way, service, "/up", "-T", "-", version=version, stdin=body))
            assert chunked["length"] == len(body), (service, version, chunked)
            down = curl(mesh, way, service, f"/bytes/{64 << 20}", version=version)
            assert len(down) == 64 << 20, (service, version, len(down))


def statuses_and_head_pass_through(mesh, way):
    """Statuses, HEAD and empty answers pass through unchanged"""
    for service in mesh.services_of(way):
        for version in ("--http1.1", http2_flag(way)):
            for status in (204, 304, 404, 418, 500, 503):
                shown = curl_status(mesh, way, service, f"/status/{status}", version)
                assert shown == str(status), (service, version, status, shown)
            head = curl(mesh, way, service, "/bytes/65536", "--head", version=version).decode().lower()
            assert "content-length: 65536" in head, (service, version, head)


def curl_status(mesh, way, service, path, version):
    options = ["-o", "/dev/null", "-w", "%{http_code}", "--no-fail-with-body"]
    return curl(mesh, way, service, path, *options, version=version).decode()


def streams_are_flushed_at_once(mesh, way):
    """Each part of a streamed answer arrives when it is sent, not at the end"""
    for service in mesh.services_of(way):
        for http2 in (False, True):
            with client(mesh, way, http2) as http:
                arrived = []
                with http.stream("GET", url(way, service, "/ticks/4", http2), **about(way, service)) as answer:
                    for part in answer.iter_raw():
                        arrived.append((time.monotonic(), part))
                assert b"".join(part for _, part in arrived) == b"tick\n" * 4, arrived
                assert len(arrived) >= 4, f"{service}: the parts were gathered: {arrived}"


def httpx_keeps_connections(mesh, way):
    """httpx does 300 requests over few connections, with both versions"""
    for service in mesh.services_of(way):
        for http2 in (False, True):
            with client(mesh, way, http2) as http:
                for index in range(300 // 8):
                    answer = http.post(url(way, service, f"/n/{index}", http2), content=b"n" * index, **about(way, service))
                    assert answer.status_code == 200 and answer.json()["length"] == index, answer.text
                    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1"), answer.http_version


def client(mesh, way, http2):
    proxied = way.proxied and not http2
    verify = str(mesh.ca) if way.tls else False
    return httpx.Client(http1=not http2, http2=http2, verify=verify, trust_env=False, timeout=60,
                        proxy=way.proxy() if proxied else None)


def url(way, service, path, http2):
    if way.proxied and not http2:
        return f"http://{way.host(service)}:{PORT}{path}"
    return f"{way.scheme}://127.0.0.1:{way.port}{path}"


def about(way, service):
    """What httpx needs to be told when the URL names the proxy's address."""
    return {"headers": {"host": way.host(service)}, "extensions": {"sni_hostname": way.host(service)}}


def h2load_fails_nothing(mesh, way):
    """h2load: 2,000 requests over HTTP/1.1 and over HTTP/2, none failed"""
    for service in mesh.services_of(way):
        for options in (("--h1", "-c", 16), ("-c", 4, "-m", 16)):
            text = run("h2load", "-t", 1, "-n", 2000, *options, "--connect-to", f"127.0.0.1:{way.port}",
                       f"{way.scheme}://{way.host(service)}/status/200").decode()
            assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in text and "2000 2xx" in text, text


def wrk_fails_nothing(mesh, way):
    """wrk: two seconds over 16 connections, none failed"""
    text = run("wrk", "-t", 1, "-c", 16, "-d", "2s", "-H", f"Host: {way.host('h1')}", f"{way.scheme}://127.0.0.1:{way.port}/status/200").decode()
    requests = re.search(r"(\d+) requests in", text)
    assert requests and int(requests[1]) > 100, text
    assert "Non-2xx" not in text and "Socket errors" not in text, text


def tls_passes_through_a_tunnel(mesh, way):
    """curl's own TLS through CONNECT reaches the server's TLS, HTTP/1.1 and HTTP/2"""
    if not way.proxied:
        return
    for version, spoken in (("--http1.1", "1.1"), ("--http2", "2")):
        text = run("curl", "--silent", "--show-error", "--fail", "--max-time", 60, version, "--proxy", way.proxy(), "--cacert", mesh.ca,
                   f"https://sealed:{PORT}/through")
        assert json.loads(text)["version"] == spoken, text


CHECKS = (
    curl_reaches_every_server, curl_over_http2_reaches_every_server, big_bodies_arrive_whole, statuses_and_head_pass_through,
    streams_are_flushed_at_once, httpx_keeps_connections, h2load_fails_nothing, wrk_fails_nothing, tls_passes_through_a_tunnel,
)
