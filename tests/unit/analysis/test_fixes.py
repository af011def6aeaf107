"""A group that a person said is repaired in a version: which later failures are a regression."""

from typing import Any

import pytest

from sahool_dlq.analysis.marts.build import build_marts
from sahool_dlq.analysis.versions import older_than
from support.lake_log import NOW, Log, before

State = tuple[str, str | None, str | None]


@pytest.fixture
def log() -> Log:
    return Log()


def mart(log: Log, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = build_marts(log.connection, NOW, [name])[name].to_pylist()
    return rows


def state(log: Log) -> State:
    [group] = mart(log, "failure_groups")
    return group["state"], group["resolved_in_version"], group["regressed_in_version"]


def failed(log: Log, name: str, version: str | None, hours: float, **columns: Any) -> None:
    log.dead_letter(name, consumer_version=version, dlq_timestamp=before(hours=hours), **columns)


def resolved(log: Log, name: str, version: str | None, hours: float) -> None:
    log.event("triage.resolved", name, resolved_in_version=version, at=before(hours=hours))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.3", ("fixed", "2.4", None)),
        ("2.4rc1", ("fixed", "2.4", None)),
        ("2.10", ("regressed", "2.4", "2.10")),
        ("2.4.0", ("regressed", "2.4", "2.4.0")),  # the same version
        (None, ("regressed", "2.4", None)),  # nobody can tell
    ],
)
def test_a_later_failure_is_judged_by_its_version(
    log: Log, version: str | None, expected: State
) -> None:
    failed(log, "a", "2.3", 40)
    resolved(log, "a", "2.4", 30)
    assert state(log) == ("resolved", "2.4", None)
    failed(log, "b", version, 20)
    assert state(log) == expected


def test_a_redrive_of_the_known_bug_that_fails_in_the_repaired_version_is_a_regression(
    log: Log,
) -> None:
    failed(log, "a", "2.3", 40)
    resolved(log, "a", "2.4", 30)
    failed(log, "b", "2.3", 20)
    log.event("redrive.published", "b", attempt=1)
    failed(log, "b1", "2.4", 19, root="b", redrive_attempt=1)
    assert state(log) == ("regressed", "2.4", "2.4")


def test_a_resolution_by_a_person_without_a_version_leaves_the_one_before(log: Log) -> None:
    failed(log, "a", "2.3", 40)
    resolved(log, "a", "2.4", 30)
    failed(log, "b", "2.3", 25)
    resolved(log, "b", None, 24)
    failed(log, "c", "2.3", 20)
    assert state(log) == ("fixed", "2.4", None)


def test_a_newer_decision_replaces_the_one_before(log: Log) -> None:
    failed(log, "a", "2.3", 40)
    resolved(log, "a", "2.4", 30)
    failed(log, "b", "2.4", 25)
    assert state(log) == ("regressed", "2.4", "2.4")
    resolved(log, "b", "2.5", 24)
    failed(log, "c", "2.4", 20)
    assert state(log) == ("fixed", "2.5", None)


def test_each_service_has_its_own_versions(log: Log) -> None:
    failed(log, "a", "2.3", 40)
    resolved(log, "a", "2.4", 30)
    failed(log, "b", "1.0", 20, service="soil")
    assert state(log) == ("regressed", "2.4", None)  # nothing was said of soil's versions
    assert [(row["service"], row["is_older"]) for row in mart(log, "fixes")] == [
        ("ndvi", True), ("soil", False)
    ]  # fmt: skip


def test_a_decision_about_a_closed_case_counts_for_its_group(log: Log) -> None:
    failed(log, "a", "2.3", 40)
    log.event("redrive.published", "a", attempt=1)
    log.event("redrive.succeeded", "a", attempt=1, at=before(hours=35))
    resolved(log, "a", "2.4", 30)
    assert state(log) == ("resolved", "2.4", None)
    failed(log, "b", "2.5", 20)
    assert state(log) == ("regressed", "2.4", "2.5")


def test_a_decision_about_a_reopened_case_is_about_the_opening_before_it(log: Log) -> None:
    failed(log, "a", "2.3", 45)
    resolved(log, "a", None, 44)
    failed(log, "a", "2.3", 40, group_id="g2")
    resolved(log, "a", "2.4", 30)
    told = {row["group_id"]: row["resolved_in_version"] for row in mart(log, "failure_groups")}
    assert told == {"g1": None, "g2": "2.4"}


def test_versions_without_an_order_are_ordered_by_appearance(log: Log) -> None:
    """Totals tell that a version runs, also where nothing failed in it."""
    failed(log, "a", "3f78685", 40)
    resolved(log, "a", "0be11aa", 30)
    failed(log, "b", "77aa012", 26)  # the repaired version has not appeared
    assert state(log) == ("fixed", "0be11aa", None)
    log.totals("ndvi", started_at=before(hours=25), consumer_version="0be11aa")
    failed(log, "c", "92cc511", 20)
    assert state(log) == ("regressed", "0be11aa", "92cc511")


def test_the_version_that_fails_again_brought_the_group_back(log: Log) -> None:
    failed(log, "a", "2.3", 40)
    resolved(log, "a", "2.4", 30)
    failed(log, "b", "2.2", 25)
    failed(log, "c", "2.5", 20)
    told = {row["consumer_version"]: row["brought_back"] for row in mart(log, "deploys")}
    assert told == {"2.2": None, "2.3": None, "2.5": "g1"}


def test_a_known_bug_that_escalates_is_escalating(log: Log) -> None:
    failed(log, "a", "2.3", 400)
    resolved(log, "a", "2.4", 390)
    for number in range(30):
        failed(log, f"b{number}", "2.3", 0.2)
    assert state(log) == ("escalating", "2.4", None)


def test_a_new_group_is_fixed_however_many_failures_it_had(log: Log) -> None:
    for number in range(30):
        failed(log, f"a{number}", "2.3", 0.5)
        resolved(log, f"a{number}", "2.4", 0.2)
    failed(log, "b", "2.3", 0.1)
    assert state(log) == ("fixed", "2.4", None)


def test_a_log_without_such_decisions_has_no_rows(log: Log) -> None:
    failed(log, "a", "2.3", 40)
    resolved(log, "a", None, 30)
    assert mart(log, "fixes") == []


@pytest.mark.parametrize(
    ("version", "appeared", "older"),
    [
        ("2.4", ["2.5", "2.10", "2.3"], {"2.3"}),
        ("v2.4", ["2.3", "2.4.0"], {"2.3"}),
        ("2.0.0-feature.2", ["2.0.0-feature.1", "2.0.0"], {"2.0.0-feature.1"}),
        ("b", ["a", "b", "c"], {"a"}),
        ("d", ["a", "b"], {"a", "b"}),
        ("2.4", [], set()),
    ],
)
def test_older_versions(version: str, appeared: list[str], older: set[str]) -> None:
    assert older_than(version, appeared) == older
