"""The manifests of deploy/kubernetes, as kubectl puts them together."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from support import ROOT

KUBERNETES = ROOT / "deploy/kubernetes"
INSTALLATIONS = ("cronjobs", "prefect")

if shutil.which("kubectl") is None:  # skips the test files that import this
    pytest.skip("needs kubectl, whose kustomize builds the manifests", allow_module_level=True)


@cache
def built(installation: str) -> list[dict[str, Any]]:
    """Every object that `kubectl apply -k` would send."""
    text = subprocess.check_output(["kubectl", "kustomize", KUBERNETES / installation], text=True)
    return list(yaml.safe_load_all(text))


def pods(installation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each workload by its name, and the specification of its pod."""
    for each in built(installation):
        spec = each.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield each["metadata"]["name"], spec["template"]["spec"]


def secret_of(pod: dict[str, Any]) -> str:
    """The secret with a pod's addresses and logins."""
    [container] = pod["containers"]
    [name] = [each["secretRef"]["name"] for each in container["envFrom"] if "secretRef" in each]
    return str(name)
