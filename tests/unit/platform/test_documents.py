"""The documents agree with the code."""

import ast
import re
from pathlib import Path

import pytest

import sahool_dlq.events
from sahool_dlq.cli import VERBS
from sahool_dlq.events import NATSConsumer, NATSConsumerConfig, consumer_metrics
from sahool_dlq.redrive.choose.where import COLUMNS
from sahool_dlq.settings import Settings
from support import ROOT


def test_every_setting_is_documented_and_none_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `(DLQ_[A-Z_]+)`", (ROOT / "docs/settings.md").read_text(), re.M)
    assert sorted(documented) == sorted(f"DLQ_{name.upper()}" for name in Settings.model_fields)


PAGES = sorted(str(p.relative_to(ROOT)) for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_tests_that_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    tests = re.findall(r"`(tests/[\w/]+\.py|…)(?:::(\w+)(?:\[([^`]*)\])?)?`", text)
    file, missing = "", []
    for named, name, case in tests:
        file = file if named == "…" else named  # … is the file named last
        source = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
        if f"def {name}(" not in source and (name or not source):
            missing.append(f"{file}::{name}")
        elif not re.search(rf"\b{re.escape(case)}\b", source):
            missing.append(f"{file}::{name}[{case}]")
    assert missing == []


def test_each_way_to_connect_names_a_test() -> None:
    lines = (ROOT / "docs/connecting.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith("|--")]
    proven = [row for row in rows if re.search(r"`tests/[\w/]+\.py::test_\w+", row)]
    headers = [row for row in rows if "tested by" in row]
    assert len(headers) == 3
    assert set(rows) == {*headers, *proven}


def test_each_promise_names_its_mechanism_and_a_test_that_proves_it() -> None:
    lines = (ROOT / "docs/guarantees.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    header, *promises = rows
    assert header == ["promise", "mechanism", "test"]
    assert len(promises) > 40
    for row in promises:
        assert len(row) == 3, row
        assert re.search(r"`tests/[\w/]+\.py::test_\w+`", row[2]), row
    proofs = [name for row in promises for name in re.findall(r"`(tests/\S+)`", row[2])]
    assert all("::" in proof for proof in proofs)


def test_every_column_of_a_condition_is_documented_as_it_is() -> None:
    text = (ROOT / "docs/redrive.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.M))
    assert {name: column.what for name, column in COLUMNS.items()}.items() <= documented.items()


def test_every_verb_has_its_module() -> None:
    modules = {
        file.stem.removesuffix("_").replace("_", "-")
        for file in (ROOT / "pipelines/sahool_dlq/cli").glob("*.py")
    }
    assert set(VERBS) <= modules


def test_the_lock_names_no_registry() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/services.md"])
def test_code_uses_names_that_exist(page: str) -> None:
    trees = [ast.parse(block) for block in blocks(page, "python")]
    imports = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    ]
    ours = [node for node in imports if (node.module or "").startswith("sahool_dlq")]
    assert {node.module for node in ours} == {"sahool_dlq.events"}
    names = {alias.name for node in ours for alias in node.names}
    assert names <= set(sahool_dlq.events.__all__)


def test_the_reference_of_the_api_has_every_public_name() -> None:
    named = re.findall(r"^::: sahool_dlq\.events\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.M)
    assert sorted(named) == sorted(sahool_dlq.events.__all__)


def test_the_guide_names_settings_and_methods_that_exist(tmp_path: Path) -> None:
    [example] = blocks("docs/services.md", "toml")
    (tmp_path / "consumer.toml").write_text(example)
    config = NATSConsumerConfig.from_file(tmp_path / "consumer.toml", servers=["nats://nats:4222"])
    assert [policy.max_retries for policy in config.policies] == [8, None]
    text = (ROOT / "docs/services.md").read_text().replace("`dlq_consumer_", "`metric ")
    fields = set(
        re.findall(r"`(\w+_(?:seconds|types|retries|events|share|pending|prefix|enabled))`", text)
    )
    assert len(fields) > 8
    others = {"ack_pending", "failed_events", "delay_seconds"}  # a trouble, a table, a log's
    assert fields - others <= set(NATSConsumerConfig.model_fields)
    for method in ("run", "start_in_background", "close", "subscribe"):
        assert f"`{method}" in text or f".{method}(" in text
        assert hasattr(NATSConsumer, method)


def test_the_guide_names_every_metric_and_none_that_does_not_exist() -> None:
    text = (ROOT / "docs/services.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `dlq_consumer_")]
    named = re.findall(r"`(?:dlq_consumer|…)_(\w+)`", "".join(row.split(" | ")[0] for row in rows))
    told = [metric.name.removeprefix("dlq_consumer_") for metric in consumer_metrics.collect()]
    assert sorted(name.removesuffix("_total") for name in named) == sorted(told)
