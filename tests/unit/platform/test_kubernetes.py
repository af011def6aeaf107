"""deploy/kubernetes, as far as it can be checked without a cluster.

Its commands are run by tests/integration/platform/test_roles_in_kubernetes.py.
"""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sahool_dlq.settings import Settings
from support import ROOT
from support.kubernetes import INSTALLATIONS, KUBERNETES, built, pods, secret_of

VERSIONS = ("1.27", "1.32", "1.37")  # the first with timeZone in CronJobs; the newest with a schema
DOCUMENT = (ROOT / "docs/kubernetes.md").read_text()
ALL_PODS = [(folder, name) for folder in INSTALLATIONS for name, _ in pods(folder)]


def pod_of(installation: str, name: str) -> dict[str, Any]:
    return dict(pods(installation))[name]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_every_object_is_valid_in_each_version(installation: str, version: str) -> None:
    objects = built(installation)
    assert len(objects) > 5
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_wrong_key_would_be_found() -> None:
    [job] = [each for each in built("cronjobs") if each["kind"] == "Job"]
    wrong = yaml.safe_load(yaml.safe_dump(job))
    wrong["spec"]["template"]["spec"]["readOnlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize(("installation", "name"), ALL_PODS)
def test_a_pod_has_only_what_it_needs(installation: str, name: str) -> None:
    pod = pod_of(installation, name)
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(("installation", "name"), ALL_PODS)
def test_a_pod_mounts_and_reads_what_there_is(installation: str, name: str) -> None:
    pod = pod_of(installation, name)
    [container] = pod["containers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
    objects = {(each["kind"], each["metadata"]["name"]) for each in built(installation)}
    claim = volumes["lake"]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in objects
    [settings] = [each["configMapRef"] for each in container["envFrom"] if "configMapRef" in each]
    assert ("ConfigMap", settings["name"]) in objects
    secret = secret_of(pod)
    assert volumes["files"]["secret"]["secretName"] == f"{secret}-files"
    assert f"| `{secret}` |" in DOCUMENT


def test_pods_of_cronjobs_are_as_the_others() -> None:
    common = yaml.safe_load((KUBERNETES / "pods/pod.yaml").read_text())["spec"]["template"]["spec"]
    cronjob = yaml.safe_load((KUBERNETES / "pods/cronjob.yaml").read_text())["spec"]
    pod = cronjob["jobTemplate"]["spec"]["template"]["spec"]
    assert pod.pop("restartPolicy") == "Never"
    assert pod == common


def test_the_user_is_that_of_the_image() -> None:
    [uid] = re.findall(r"--uid (\d+)", (ROOT / "deploy/Dockerfile").read_text())
    assert pod_of("cronjobs", "dlq-monitor")["securityContext"]["runAsUser"] == int(uid)


def test_settings_exist() -> None:
    [settings] = [each for each in built("cronjobs") if each["kind"] == "ConfigMap"]
    assert set(settings["data"]) <= {f"DLQ_{field.upper()}" for field in Settings.model_fields}


def test_each_object_of_the_folder_is_part_of_an_installation() -> None:
    for folder in ("base", *INSTALLATIONS):
        listed = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
        there = {each.name for each in (KUBERNETES / folder).glob("*.yaml")}
        assert there - {"kustomization.yaml"} == set(listed["resources"]) - {"../base"}
