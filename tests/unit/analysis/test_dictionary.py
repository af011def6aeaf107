"""Every table, view, mart and column is explained, and docs/data.md is up to date."""

import json

import pytest
from click.testing import CliRunner

from sahool_dlq.analysis.dictionary import (
    as_markdown,
    explained,
    postgres_comments,
    relation,
    relations,
)
from sahool_dlq.analysis.marts.build import MARTS
from sahool_dlq.analysis.marts.views import VIEWS
from sahool_dlq.cli import _command
from sahool_dlq.errors import UnknownNameError
from sahool_dlq.stores.lake.lake import LAYOUTS
from support import ROOT

NAMES = [each.name for each in relations()]


def test_every_relation_is_listed_once_with_title_and_grain() -> None:
    assert [*LAYOUTS, *VIEWS, *(f"mart_{name}" for name in MARTS)] == NAMES
    for each in relations():
        assert each.title.endswith((".", ":")), each.name
        assert each.grain.startswith("One row"), (each.name, each.grain)


def test_every_column_is_explained() -> None:
    found = explained()
    assert [each.name for each in found if not each.columns] == []
    missing = [(r.name, c.name) for r in found for c in r.columns if not c.meaning]
    assert missing == []


def test_a_column_says_its_unit_and_where_it_is_explained() -> None:
    columns = {column.name: column for column in relation("failures").columns}
    assert (columns["age_seconds"].unit, columns["age_seconds"].kind) == ("s", "bigint")
    assert columns["opened_at"].unit == "UTC"
    assert columns["stack_trace"].meaning == "traceback as text, redacted"  # as in dead_letters
    assert {"status", "message", "body"} <= columns.keys()


def test_the_page_is_what_the_generator_prints() -> None:
    page = ROOT / "docs" / "data.md"
    assert page.read_text() == as_markdown(), "dlq tables --markdown > docs/data.md"


def test_postgres_is_explained_by_its_comments() -> None:
    title, columns = postgres_comments()["failed_events"]
    assert title.startswith("One row per failure")
    assert columns["tenant_id"] == "tenant, from the event"
    assert (
        postgres_comments()["service_totals"][0]
        == "Samples of the consumers' own counters since their start."
    )


def test_a_name_that_there_is_not_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="no table 'nix'"):
        relation("nix")
    assert CliRunner().invoke(_command(), ["tables", "mart_nix"]).exit_code == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("failure_groups", "mart_failure_groups"), ("spikes", "mart_spikes"), ("failure", "failures")],
)
def test_a_name_that_is_nearly_right_says_which_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"did you mean {meant}\?"):
        relation(typed)


def test_the_command_explains_in_json() -> None:
    told = json.loads(CliRunner().invoke(_command(), ["tables", "EPOCHS", "--json"]).stdout)
    assert (told["name"], told["kind"]) == ("epochs", "view")
    assert [column["name"] for column in told["columns"]] == ["epoch", "epoch_number", "began_at"]
