"""`pillion inject` on files, as other people write them."""

import json

from product import documents, inject, pillion, pod_of, validate

POD = """
    metadata: {labels: {app: a, pillion.dev/inject: enabled}}
    spec:
      restartPolicy: %s
      containers: [{name: a, image: a, ports: [{containerPort: 80}]}]
"""
SELECTOR = "selector: {matchLabels: {app: a}}"


def workload(api_version, kind, spec, restart="Always"):
    return f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n{spec}  template:{POD % restart}"


WORKLOADS = {
    "Deployment": workload("apps/v1", "Deployment", f"  {SELECTOR}\n"),
    "StatefulSet": workload("apps/v1", "StatefulSet", f"  {SELECTOR}\n  serviceName: a\n"),
    "DaemonSet": workload("apps/v1", "DaemonSet", f"  {SELECTOR}\n"),
    "ReplicaSet": workload("apps/v1", "ReplicaSet", f"  {SELECTOR}\n"),
    "Job": workload("batch/v1", "Job", "", "Never"),
    "Pod": "apiVersion: v1\nkind: Pod" + (POD % "Always").replace("\n    ", "\n").replace("{labels", "{name: a, labels"),
}
# What YAML 1.1 has in store for the unwary.
ODD = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: odd
  annotations: {a: "on", b: 'yes', c: "0644", d: "1e3", e: "", f: "null", g: "12:30", h: " x", i: "# no", j: "grün\\n\\tx"}
spec:
  selector: {matchLabels: {app: odd}}
  template:
    metadata: {labels: {app: odd, pillion.dev/inject: enabled}}
    spec:
      containers:
        - name: odd
          image: registry:5000/odd@sha256:0
          tty: yes
          command: ["sh", "-c", "echo 'a: b' && exit 0"]
          args:
            - |
              if true; then
                echo on
              fi
            - >-
              folded
              text
          env: [{name: A, value: "1_000"}, {name: B, value: "no"}, {name: C, value: &anchor "2001-01-01"}, {name: D, value: *anchor}]
      volumes: [{name: v, configMap: {name: v, defaultMode: 0644}}]
"""


def every_workload_stays_valid():
    """every kind of workload is valid by the strict schemas with a native sidecar, and with a plain one"""
    for kind, text in WORKLOADS.items():
        styles = ("native",) if kind == "Job" else ("native", "plain")
        for style in styles:
            [made] = documents(inject(text, "--style", style))
            validate(made)
            spec = pod_of(made)["spec"]
            where = "initContainers" if style == "native" else "containers"
            assert "pillion-sidecar" in [container["name"] for container in spec[where]], (kind, style)


def injecting_twice_changes_nothing():
    """injecting twice changes nothing, to the letter"""
    for text in [*WORKLOADS.values(), ODD, "---\n".join(f"{text}\n" for text in WORKLOADS.values())]:
        once = inject(text)
        assert once != text and inject(once) == once


def everything_else_is_kept():
    """everything else means the same to a YAML 1.1 reader before and after"""
    [before], [after] = documents(ODD), documents(inject(ODD))
    spec = pod_of(after)["spec"]
    assert [container["name"] for container in spec.pop("initContainers")] == ["pillion-intercept", "pillion-sidecar"]
    spec["volumes"] = [volume for volume in spec["volumes"] if not volume["name"].startswith("pillion-")]
    assert before == after, (before, after)
    assert spec["volumes"][0]["configMap"]["defaultMode"] == 0o644


def a_list_is_injected_item_by_item():
    """a List of kubectl is injected item by item"""
    items = [documents(text)[0] for text in WORKLOADS.values()]
    [made] = documents(inject(json.dumps({"apiVersion": "v1", "kind": "List", "items": items})))
    assert all("pillion-sidecar" in str(item) for item in made["items"])
    validate(*made["items"])


def wrong_files_are_refused_whole():
    """a file with something wrong in it is refused with place and reason, and nothing is printed"""
    wrong = WORKLOADS["Deployment"].replace("{labels", "{annotations: {pillion.dev/ports: http}, labels")
    code, out, err = pillion("inject", "-", stdin=WORKLOADS["Pod"] + "---\n" + wrong)
    assert (code, out) == (1, "") and "standard input:" in err and "Deployment a" in err and "pillion.dev/ports" in err, (code, out, err)
    code, out, err = pillion("inject", "no-such.yaml")
    assert (code, out) == (1, "") and "no-such.yaml" in err, err
    code, out, err = pillion("inject", "--style", "plain", "-", stdin=WORKLOADS["Job"])
    assert code == 1 and "--style native" in err, err


CHECKS = (every_workload_stays_valid, injecting_twice_changes_nothing, everything_else_is_kept, a_list_is_injected_item_by_item,
          wrong_files_are_refused_whole)
