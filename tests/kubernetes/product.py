"""What is tested: the program, the folders, and what makes an object right."""

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "docker/kubernetes"
CHARTS = ROOT / "docker/helm"

# The first version with native sidecars on by default, and the newest whose schemas are here.
VERSIONS = ("1.29", kubernetes_validate.latest_version())


def pillion_program():
    for candidate in (os.environ.get("PILLION"), ROOT / "target/release/pillion", ROOT / "target/debug/pillion"):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    sys.exit("no pillion: cargo build --release makes it, or set $PILLION")


def pillion(*arguments, stdin=None):
    """(exit code, standard output, standard error), run at the top of the repository."""
    done = subprocess.run([pillion_program(), *map(str, arguments)], input=stdin, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def inject(text, *arguments):
    code, out, err = pillion("inject", *arguments, "-", stdin=text)
    assert code == 0, err
    return out


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def validate(*objects):
    """Against the strict schemas, which refuse unknown keys too."""
    for each in objects:
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)


def refused(each):
    try:
        validate(each)
    except kubernetes_validate.ValidationError:
        return True
    return False


def pod_of(workload):
    return workload if workload["kind"] == "Pod" else workload["spec"]["template"]


def named(items, name):
    [found] = [item for item in items if item["name"] == name]
    return found


def certificates(folder, *namespaces):
    """Runs the documented command, and writes what its Secrets hold into files: {secret name: folder}."""
    subprocess.run([MANIFESTS / "certificates", folder, *namespaces], check=True, capture_output=True)
    folders = {}
    for secret in documents((folder / "secrets.yaml").read_text()):
        if secret["kind"] == "Secret":
            at = folder / secret["metadata"]["name"]
            at.mkdir(exist_ok=True)
            for key, value in secret["data"].items():
                (at / key).write_bytes(base64.b64decode(value))
            folders[secret["metadata"]["name"]] = at
    return folders


def scratch():
    return tempfile.TemporaryDirectory(prefix="pillion-kubernetes-")
