"""Documents say what the code does."""

import re
from pathlib import Path

import pytest

from pipelines.cli import VERBS
from pipelines.settings import Settings

ROOT = Path(__file__).parent.parent.parent


def test_every_setting_is_documented_and_none_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `(DLQ_[A-Z_]+)`", (ROOT / "docs/settings.md").read_text(), re.M)
    assert sorted(documented) == sorted(f"DLQ_{name.upper()}" for name in Settings.model_fields)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_lead_to_files_and_tests_that_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    tests = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    missing = [
        f"{file}::{name}"
        for file, name in tests
        if not (ROOT / file).exists() or (name and f"def {name}(" not in (ROOT / file).read_text())
    ]
    assert missing == []


def test_every_verb_has_its_module() -> None:
    modules = {file.stem for file in (ROOT / "pipelines/cli").glob("*.py")}
    assert set(VERBS) <= modules


def test_the_lock_names_no_registry() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()
