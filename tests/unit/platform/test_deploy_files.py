"""The files of deploy/, as far as they can be checked without Docker or systemd."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from sahool_dlq.embedded.nats import nats_server_binary
from sahool_dlq.settings import Settings
from support import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_asks_for_what_its_example_names_and_nothing_else() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert set(variables("compose.env.example")) == asked


def test_compose_mounts_and_waits_for_what_there_is() -> None:
    for service in COMPOSE["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])


def test_every_setting_of_the_examples_exists() -> None:
    named = set(variables("dlq.env.example")) | set(COMPOSE["x-platform"]["environment"])
    ours = {name for name in named if name.startswith("DLQ_")}
    assert ours
    assert ours <= {f"DLQ_{field.upper()}" for field in Settings.model_fields}


def test_nats_takes_its_configuration() -> None:
    passwords = re.findall(r"\$(NATS_\w+)", (DEPLOY / "nats.conf").read_text())
    done = subprocess.run(
        [nats_server_binary(), "-t", "-c", DEPLOY / "nats.conf"],
        env=os.environ | dict.fromkeys(passwords, "secret"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").iterdir():
        text = re.sub(r"/opt/dlq/\.venv/bin/\w+", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.glob("*.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "dlq-" in line] == []


def variables(file: str) -> list[str]:
    """The names that an environment file sets, including commented ones."""
    return re.findall(r"^(?:# )?(\w+)=", (DEPLOY / file).read_text(), re.MULTILINE)
