"""`make audit` never reports success if vulnerabilities could not be looked up."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import ROOT

FILE = ROOT / "deploy/audit.py"
KNOWN = {"name": "idna", "version": "3.11", "vulns": []}
UNKNOWN = {
    "name": "altair",
    "skip_reason": "Dependency not found on PyPI and could not be audited: altair (6.3.0)",
}
AFFECTED = {
    "name": "jinja2",
    "version": "2.4.1",
    "vulns": [{"id": "PYSEC-2014-8", "fix_versions": ["2.7.2"], "aliases": [], "description": ""}],
}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_audit", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(*packages: dict[str, Any]) -> str:
    """As pip-audit 2.10 writes it."""
    return json.dumps({"dependencies": packages, "fixes": []})


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (report(KNOWN), 0, "1 packages, no known vulnerability."),
        (report(KNOWN, AFFECTED), 1, "jinja2 2.4.1: PYSEC-2014-8, fixed in 2.7.2"),
        (
            report(KNOWN, UNKNOWN),
            2,
            "knows 1 of 2 packages, so nothing is known of the rest (altair)",
        ),
        (report(UNKNOWN, AFFECTED), 2, "jinja2 2.4.1: PYSEC-2014-8"),
        (report(), 2, "knows 0 of 0 packages"),
        ("", 2, "no advisory database can be reached, so nothing is known (last words)."),
        ("[1", 2, "nothing is known"),
    ],
)
def test_only_what_was_looked_up_is_called_well(
    audit: ModuleType, text: str, code: int, said: str
) -> None:
    found = audit.verdict(text, "first\nlast words\n")
    assert found[0] == code
    assert said in found[1]


def test_without_pip_audit_or_a_lock_file_it_does_not_end_well(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "pip-audit"
    program.symlink_to(sys.executable)  # the server here understands none of the options
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert audit.main([str(tmp_path / "none.lock")]) == 2
