"""The charts of docker/helm, by the official Helm, and that they make what docker/kubernetes has."""

import base64
import copy
import subprocess
import tempfile
from pathlib import Path

import helm_python
from helm_python import Chart

from manifests import read
from product import CHARTS, documents, inject, named, pod_of, validate

PILLION, BACKEND = CHARTS / "pillion", CHARTS / "demo-backend"
# Labels that only Helm writes.
HELM_LABELS = ("app.kubernetes.io/managed-by", "helm.sh/chart")


def render(chart, values=None, name="pillion", namespace="pillion"):
    rendered = Chart.load(chart).render(values or {}, name=name, namespace=namespace)
    return [each for file, text in sorted(rendered.items()) if file.endswith(".yaml") for each in documents(text)]


def of_kind(objects, kind):
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def charts_lint_strictly():
    """both charts lint without a message, strictly"""
    for chart in (PILLION, BACKEND):
        report = helm_python.lint(chart, {}, strict=True)
        assert report["total_charts_linted"] == 1 and not report["messages"] and not report["errors"], report


# Every branch of the templates.
VALUES = (
    {},
    {"image": {"repository": "example.com:5000/pillion", "initRepository": "example.com:5000/pillion-init", "tag": "1", "pullPolicy": "Always"},
     "imagePullSecrets": ["pull"]},
    {"gateway": {"enabled": False}, "webhook": {"enabled": False}},
    {"registry": {"enabled": False, "url": "https://registry.example.com:15010"}},
    {"certificates": {"create": False}, "webhook": {"annotations": {"cert-manager.io/inject-ca-from": "pillion/pillion-webhook"}}},
    {"certificates": {"create": False}, "webhook": {"caBundle": "Cg=="}},
    {"certificates": {"clientNamespaces": ["shop", "pillion"]}, "registry": {"storage": {"size": "5Gi", "className": "fast"}}},
    {"gateway": {"replicas": 0, "service": {"type": "NodePort", "annotations": {"a": "b"}},
                 "ports": [{"name": "web", "port": 80, "containerPort": 8080}, {"name": "tls", "port": 443, "containerPort": 8443}]}},
)
BACKEND_VALUES = (
    {},
    {"mesh": {"inject": "disabled"}},
    {"port": 3000, "service": {"port": 3000}, "version": "2", "mesh": {"protocol": "", "annotations": {"pillion.dev/exclude-inbound-ports": "9100"}}},
    {"image": {"repository": "x", "tag": "2", "pullPolicy": "Never"}, "resources": {}},
)


def rendered_objects_are_valid():
    """what both charts render is valid by the strict schemas, with every choice of values"""
    for values in VALUES:
        validate(*render(PILLION, values))
    for values in BACKEND_VALUES:
        validate(*render(BACKEND, values, name="backend", namespace="default"))


# A wrong value of each sort, and a word of what Helm says about it.
WRONG = (
    (PILLION, {"gateway": {"replica": 2}}, "replica"),
    (PILLION, {"gateway": {"replicas": "two"}}, "replicas"),
    (PILLION, {"webhook": {"failurePolicy": "Maybe"}}, "failurePolicy"),
    (PILLION, {"webhook": {"replicas": 0}}, "replicas"),
    (PILLION, {"registry": {"url": "registry:15010"}}, "url"),
    (PILLION, {"registry": {"storage": {"size": "big"}}}, "size"),
    (PILLION, {"gateway": {"ports": [{"name": "web", "port": 0, "containerPort": 1}]}}, "port"),
    (PILLION, {"sidecar": {"memoryLimit": 64}}, "memoryLimit"),
    (PILLION, {"made": {"caCrt": "x"}}, "made"),
    (PILLION, {"registry": {"enabled": False}}, "registry.url"),
    (BACKEND, {"mesh": {"inject": True}}, "inject"),
    (BACKEND, {"port": 70000}, "port"),
    (BACKEND, {"replica": 3}, "replica"),
)


def wrong_values_are_refused():
    """wrong values are refused, and the message names them"""
    for chart, values, word in WRONG:
        try:
            render(chart, values)
        except helm_python.HelmError as error:
            assert word in str(error), (values, str(error))
        else:
            raise AssertionError(f"{values} was accepted")


def the_chart_makes_what_the_manifests_have():
    """with its defaults the chart makes exactly the objects of docker/kubernetes, and its Secrets"""
    made = {key(each): plain(each) for each in render(PILLION) if each["kind"] != "Secret"}
    have = {key(each): plain(each) for name in ("registry.yaml", "gateway.yaml", "webhook.yaml") for each in documents(read(name))}
    assert made.keys() == have.keys(), made.keys() ^ have.keys()
    for each in have:
        assert made[each] == have[each], (each, made[each], have[each])


def key(each):
    return each["kind"], each["metadata"]["name"]


def plain(each):
    """Without Helm's labels and the webhook's CA; lists of no order sorted."""
    each = copy.deepcopy(each)
    for label in HELM_LABELS:
        each["metadata"]["labels"].pop(label, None)
    for webhook in each.get("webhooks", []):
        assert webhook["clientConfig"].pop("caBundle")
        webhook["namespaceSelector"]["matchExpressions"][0]["values"].sort()
    return each


def generated_certificates_belong_together():
    """the certificates that the chart generates are signed by the CA that clients and the API server get, for the Services' names"""
    objects = render(PILLION, name="mesh", namespace="net")
    secrets = of_kind(objects, "Secret")
    client = [each for each in objects if each["metadata"]["name"] == "mesh-registry-client"]
    assert [each["metadata"]["namespace"] for each in client] == ["net", "default"]
    [webhook] = of_kind(objects, "MutatingWebhookConfiguration")["mesh"]["webhooks"]
    assert webhook["clientConfig"]["caBundle"] == client[0]["data"]["ca.crt"]
    assert client[0]["data"]["token"] == client[1]["data"]["token"] == secrets["mesh-registry"]["data"]["token"]
    for component in ("registry", "webhook"):
        verify(client[0]["data"]["ca.crt"], secrets[f"mesh-{component}"]["data"], f"mesh-{component}.net.svc")


def verify(ca, pair, host):
    with tempfile.TemporaryDirectory() as folder:
        for name, value in (("ca", ca), ("crt", pair["tls.crt"]), ("key", pair["tls.key"])):
            (Path(folder) / name).write_bytes(base64.b64decode(value))
        run = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, text=True).stdout
        run("verify", "-CAfile", "ca", "-verify_hostname", host, "crt")
        assert run("x509", "-in", "crt", "-noout", "-pubkey") == run("pkey", "-in", "key", "-pubout")


def the_backend_is_ready_for_the_injector():
    """the backend's chart asks for a sidecar that knows its ports, and is valid with it"""
    text = "---\n".join(Chart.load(BACKEND).render({}, name="backend", namespace="default").values())
    text = text[text.index("apiVersion"):]
    deployment = of_kind(documents(inject(text)), "Deployment")["backend"]
    validate(deployment)
    spec = pod_of(deployment)["spec"]
    env = named(spec["initContainers"], "pillion-sidecar")["env"]
    assert named(env, "PILLION_SERVICE")["value"] == "backend"
    assert named(env, "PILLION_APPS")["value"] == "[{port: 80, app: 8080, protocol: http}]"


CHECKS = (charts_lint_strictly, rendered_objects_are_valid, wrong_values_are_refused, the_chart_makes_what_the_manifests_have,
          generated_certificates_belong_together, the_backend_is_ready_for_the_injector)
