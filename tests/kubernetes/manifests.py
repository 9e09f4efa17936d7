"""The files of docker/kubernetes."""

import copy
from pathlib import Path

from product import MANIFESTS, certificates, documents, inject, named, pillion, pod_of, refused, scratch, validate

# Files that `pillion inject` makes of app.yaml.
MADE = {
    "app-injected.yaml": (),
    "app-plain.yaml": ("--style", "plain", "--image", "localhost/pillion", "--registry", "http://host.containers.internal:15010",
                       "--registry-secret", ""),
}


def read(name):
    return (MANIFESTS / name).read_text()


def make(name):
    return inject(read("app.yaml"), *MADE[name])


def write():
    for name in MADE:
        (MANIFESTS / name).write_text(make(name))


def every_manifest_is_valid():
    """every manifest is valid by the strict schemas"""
    files = sorted(MANIFESTS.glob("*.yaml"))
    assert len(files) >= 6, files
    for file in files:
        validate(*documents(file.read_text()))


def made_files_are_made_of_the_source():
    """app-injected.yaml and app-plain.yaml are what pillion inject makes of app.yaml"""
    for name in MADE:
        assert read(name) == make(name), f"{name} is old: tests/kubernetes/run.py --write makes it new"


def schemas_notice_a_misspelt_key():
    """the schemas notice a misspelt key and a wrong value in a sidecar"""
    shop = named_object("app-injected.yaml", "Deployment", "shop")
    for path, value in ((("restartPolicy",), 7), (("securityContext", "runAsRoot"), False), (("startupProbe", "httpGet", "port"), [1])):
        wrong = copy.deepcopy(shop)
        place = named(pod_of(wrong)["spec"]["initContainers"], "pillion-sidecar")
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert refused(wrong), path


def mesh_documents_of_the_gateway_pass_the_check():
    """the gateway's mesh documents pass pillion check"""
    text = named_object("gateway.yaml", "ConfigMap", "pillion-gateway")["data"]["gateway.yaml"]
    with scratch() as folder:
        file = Path(folder) / "gateway.yaml"
        file.write_text(text)
        code, out, err = pillion("check", file)
        assert code == 0, out + err


def certificates_make_what_the_manifests_name():
    """docker/kubernetes/certificates makes every Secret that is named, and a valid webhook.yaml"""
    with scratch() as folder:
        certificates(Path(folder), "default", "shop")
        made = documents((Path(folder) / "secrets.yaml").read_text())
        webhook = documents((Path(folder) / "webhook.yaml").read_text())
    validate(*made, *webhook)
    assert "CA_BUNDLE" not in str(webhook)
    have = {(each["metadata"]["namespace"], each["metadata"]["name"]): set(each["data"]) for each in made if each["kind"] == "Secret"}
    client = {"ca.crt", "token"}
    assert have == {
        ("pillion", "pillion-registry"): {"tls.crt", "tls.key", "token"}, ("pillion", "pillion-webhook"): {"tls.crt", "tls.key"},
        ("pillion", "pillion-registry-client"): client, ("default", "pillion-registry-client"): client,
        ("shop", "pillion-registry-client"): client,
    }, have
    volumes = [volume for file in ("registry.yaml", "gateway.yaml", "webhook.yaml") for each in documents(read(file))
               if each["kind"] in ("Deployment", "StatefulSet") for volume in each["spec"]["template"]["spec"]["volumes"]]
    for secret in [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]:
        assert ("pillion", secret) in have, secret


def no_container_of_ours_has_more_than_it_needs():
    """no container of the mesh may write, gain privileges or run as root, but for the redirect rules' NET_ADMIN"""
    for name in ("registry.yaml", "gateway.yaml", "webhook.yaml", "app-injected.yaml", "app-plain.yaml"):
        for workload in documents(read(name)):
            if workload["kind"] not in ("Deployment", "StatefulSet"):
                continue
            spec = pod_of(workload)["spec"]
            for container in spec["containers"] + spec.get("initContainers", []):
                if "pillion" in container["image"] and container["image"] != "pillion-example":
                    check_security(container)


def check_security(container):
    security, intercept = container["securityContext"], container["name"] == "pillion-intercept"
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], container["name"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["capabilities"] == ({"add": ["NET_ADMIN"], "drop": ["ALL"]} if intercept else {"drop": ["ALL"]})
    assert security["runAsUser"] == (0 if intercept else 1337) and security["runAsNonRoot"] is not intercept
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]


def named_object(file, kind, name):
    [found] = [each for each in documents(read(file)) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


CHECKS = (every_manifest_is_valid, made_files_are_made_of_the_source, schemas_notice_a_misspelt_key,
          mesh_documents_of_the_gateway_pass_the_check, certificates_make_what_the_manifests_name, no_container_of_ours_has_more_than_it_needs)
