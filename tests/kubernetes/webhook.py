"""The admission webhook over TLS, with AdmissionReviews as an API server sends them."""

import base64
import copy
import json
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import jsonpatch

from manifests import named_object
from product import certificates, named, pillion, pillion_program, pod_of, scratch, validate

HOST = "pillion-webhook.pillion.svc"
REVIEW = json.loads((Path(__file__).parent / "review.json").read_text())
HANG_GUARD_SECONDS = 30


class Webhook:
    """A running webhook, and how an API server reaches it: HTTP/2 over TLS that is verified by the CA and the Service's name."""

    def __init__(self, process, port, folder):
        self.process, self.port, self.folder = process, port, folder

    def client(self, ca=None):
        trust = ssl.create_default_context(cafile=ca or self.folder / "pillion-registry-client/ca.crt")
        return httpx.Client(http2=True, verify=trust, base_url=f"https://127.0.0.1:{self.port}", timeout=HANG_GUARD_SECONDS)

    def request(self, method, path, ca=None, **more):
        with self.client(ca) as client:
            return client.request(method, path, extensions={"sni_hostname": HOST}, **more)

    def answer(self, review):
        response = self.request("POST", "/mutate?timeout=5s", json=review)
        assert response.status_code == 200 and response.http_version == "HTTP/2", (response.status_code, response.text)
        assert response.headers["content-type"] == "application/json"
        answer = response.json()
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        assert answer["response"]["uid"] == review["request"]["uid"]
        return answer["response"]


@contextmanager
def running():
    """With the arguments of the manifest, but for the address and the files."""
    manifest = named_object("webhook.yaml", "Deployment", "pillion-webhook")
    arguments = named(pod_of(manifest)["spec"]["containers"], "webhook")["args"]
    with scratch() as folder:
        folder = Path(folder)
        pair = certificates(folder)["pillion-webhook"]
        arguments = [word.replace("/run/secrets/pillion", str(pair)).replace("0.0.0.0:8443", "127.0.0.1:0") for word in arguments]
        process = subprocess.Popen([pillion_program(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            greeting = process.stdout.readline()
            yield Webhook(process, int(greeting.rsplit(":", 1)[1]), folder)
        finally:
            process.kill()
            process.communicate()


def review(change=lambda pod: None, **request):
    made = copy.deepcopy(REVIEW)
    made["request"].update(request)
    change(made["request"]["object"])
    return made


def patched(response, review):
    assert response["patchType"] == "JSONPatch"
    patch = json.loads(base64.b64decode(response["patch"]))
    return jsonpatch.apply_patch(review["request"]["object"], patch), patch


def a_pod_that_asks_gets_its_sidecar():
    """a pod that asks gets the sidecar that pillion inject gives to its template, and stays valid"""
    with running() as webhook:
        pod, patch = patched(webhook.answer(REVIEW), REVIEW)
    validate({**pod, "metadata": {**pod["metadata"], "name": "shop-1"}})
    in_file = pod_of(named_object("app-injected.yaml", "Deployment", "shop"))["spec"]
    assert pod["spec"]["initContainers"] == in_file["initContainers"]
    before = REVIEW["request"]["object"]["spec"]
    assert pod["spec"]["volumes"] == before["volumes"] + in_file["volumes"]
    assert pod["spec"]["containers"] == before["containers"]
    assert {step["path"] for step in patch} == {"/spec/initContainers", "/spec/volumes"}, patch


def an_injected_pod_is_left_alone():
    """the pod that came of it is left alone when it is asked about again"""
    with running() as webhook:
        pod, _ = patched(webhook.answer(REVIEW), REVIEW)
        again = webhook.answer(review(lambda old: old.update(pod)))
    assert again == {"uid": REVIEW["request"]["uid"], "allowed": True}


def label(value):
    def change(pod):
        labels = pod["metadata"]["labels"]
        labels.pop("pillion.dev/inject") if value is None else labels.update({"pillion.dev/inject": value})
    return change


def pods_that_do_not_ask_are_allowed_unchanged():
    """pods without the label or with disabled, updates, and other kinds are allowed unchanged"""
    others = (
        review(label(None)), review(label("disabled")), review(operation="UPDATE"), review(operation="DELETE", object=None, change=lambda _: None),
        review(lambda pod: pod["metadata"].pop("labels")), review(kind={"group": "apps", "version": "v1", "kind": "Deployment"}),
    )
    with running() as webhook:
        for other in others:
            assert webhook.answer(other) == {"uid": REVIEW["request"]["uid"], "allowed": True}


def pods_that_cannot_have_one_are_told():
    """a pod on the host's network is allowed with a warning, and one with a wrong annotation is denied with the reason"""
    with running() as webhook:
        host = webhook.answer(review(lambda pod: pod["spec"].update(hostNetwork=True)))
        assert host["allowed"] and "patch" not in host and "host's network" in host["warnings"][0], host
        wrong = webhook.answer(review(lambda pod: pod["metadata"]["annotations"].update({"pillion.dev/ports": "http"})))
        assert not wrong["allowed"] and wrong["status"]["code"] == 400 and "pillion.dev/ports" in wrong["status"]["message"], wrong


def bad_requests_are_refused_clearly():
    """what is no AdmissionReview is refused with 400, 404, 405 or 415 and a sentence, and the webhook goes on"""
    ours = {"content-type": "application/json; charset=utf-8"}
    old = json.dumps({**REVIEW, "apiVersion": "admission.k8s.io/v1beta1"})
    cases = (
        ("POST", "/mutate", ours, "{", 400, "no AdmissionReview"), ("POST", "/mutate", ours, "[1]", 400, "no AdmissionReview"),
        ("POST", "/mutate", ours, "{}", 400, "AdmissionReview"), ("POST", "/mutate", ours, old, 400, "v1beta1"),
        ("POST", "/mutate", ours, '{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', 400, "no request"),
        ("POST", "/mutate", ours, "[" * 100_000, 400, "no AdmissionReview"), ("POST", "/mutate", ours, b"\xff\xfe", 400, "no AdmissionReview"),
        ("POST", "/mutate", {"content-type": "text/plain"}, "{}", 415, "application/json"),
        ("GET", "/mutate", {}, None, 405, "POST"), ("POST", "/validate", ours, "{}", 404, "/mutate"), ("GET", "/healthz", {}, None, 200, "ok"),
    )
    with running() as webhook:
        for method, path, headers, body, status, word in cases:
            response = webhook.request(method, path, headers=headers, content=body)
            assert response.status_code == status and word in response.text, (method, path, str(body)[:40], response.status_code, response.text)
        assert webhook.answer(REVIEW)["allowed"]


def long_bodies_are_refused_before_they_are_read():
    """a body that is too long is refused with 413 over HTTP/1.1, and with that or a reset stream over HTTP/2"""
    with running() as webhook:
        long = webhook.folder / "long.json"
        long.write_bytes(b" " * (5 << 20))
        # httpx would wait for its turn to send the rest, instead of reading the answer.
        for version in ("--http1.1", "--http2"):
            answer = subprocess.run(
                ["curl", "-sS", version, "--max-time", "20", "--cacert", webhook.folder / "pillion-registry-client/ca.crt", "--resolve",
                 f"{HOST}:{webhook.port}:127.0.0.1", "-H", "content-type: application/json", "-H", "expect:", "--data-binary", f"@{long}",
                 "-w", "%{http_code}", f"https://{HOST}:{webhook.port}/mutate"], capture_output=True, text=True)
            told = answer.stdout.endswith("413") and "at most" in answer.stdout
            # Over HTTP/2 the reset that ends the upload may come before curl has read the answer.
            assert told or (version == "--http2" and answer.returncode == 92), (version, answer)
        assert webhook.answer(REVIEW)["allowed"]


def tls_is_verified_and_required():
    """the certificate is for the Service's name, and nothing is served without TLS"""
    with running() as webhook, scratch() as other:
        certificates(Path(other))
        try:
            webhook.request("GET", "/healthz", ca=Path(other) / "pillion-registry-client/ca.crt")
            raise AssertionError("another CA was accepted")
        except httpx.ConnectError:
            pass
        with socket.create_connection(("127.0.0.1", webhook.port), timeout=HANG_GUARD_SECONDS) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200" not in plain.recv(1000)


def renewed_certificates_are_used():
    """renewed certificates are used within seconds, without a restart"""
    with running() as webhook, scratch() as other:
        renewed = certificates(Path(other))
        for name in ("tls.crt", "tls.key"):
            shutil.copy(renewed["pillion-webhook"] / name, webhook.folder / "pillion-webhook" / name)
        until = time.monotonic() + HANG_GUARD_SECONDS
        while True:
            try:
                assert webhook.request("GET", "/healthz", ca=renewed["pillion-registry-client"] / "ca.crt").status_code == 200
                return
            except httpx.ConnectError:
                assert time.monotonic() < until, "the new certificate is not in use"
                time.sleep(0.1)


def it_stops_when_told_and_says_why_it_cannot_start():
    """SIGTERM ends it with 0, and a missing certificate or a taken port is a message and exit code 1"""
    with running() as webhook:
        pair = webhook.folder / "pillion-webhook"
        taken = pillion("inject", "serve", "--listen", f"127.0.0.1:{webhook.port}", "--cert", pair / "tls.crt", "--key", pair / "tls.key")
        assert taken[0] == 1 and "cannot listen" in taken[2], taken
        missing = pillion("inject", "serve", "--cert", "no.crt", "--key", "no.key")
        assert missing[0] == 1 and "no.crt" in missing[2], missing
        webhook.process.terminate()
        assert webhook.process.wait(HANG_GUARD_SECONDS) == 0


CHECKS = (a_pod_that_asks_gets_its_sidecar, an_injected_pod_is_left_alone, pods_that_do_not_ask_are_allowed_unchanged,
          pods_that_cannot_have_one_are_told, bad_requests_are_refused_clearly, long_bodies_are_refused_before_they_are_read, tls_is_verified_and_required, renewed_certificates_are_used,
          it_stops_when_told_and_says_why_it_cannot_start)
