"""A regroup gives old failures the groups that a new drain would give them."""

import asyncio
import shutil
from dataclasses import astuple
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.deadletter.group_changes import Mute
from sahool_dlq.drain.sinks import Sinks
from sahool_dlq.errors import GroupError, RegroupError
from sahool_dlq.jobs.care import care_of, mute_in_words
from sahool_dlq.jobs.case_history import group_history
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.groups import GroupEdit, carry_words, change_group
from sahool_dlq.jobs.upkeep import regroup_history
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.postgres.database import locking
from sahool_dlq.stores.postgres.failed_events import Batch
from sahool_dlq.upkeep import regroup as regroup_module
from sahool_dlq.upkeep.carried_words import carried
from sahool_dlq.upkeep.regroup import Carried, RegroupReport
from support.platform_log import execute, failures, in_lake, letter, publish, query, state_of

RULES = """
[grouping]
library_code = ['/vendor/']

[[grouping.replace]]
pattern = 'parcel [A-Z][a-z]+'
text = 'parcel <name>'

[[grouping.group]]
name = "long {kind}"
error_type = '(?P<kind>Tail[0-9])$'
"""
TRACE = """Traceback (most recent call last):
  File "/srv/app/main.py", line 1, in run
    x
  File "/srv/app/vendor/v{n}.py", line 2, in f{n}
    x
ValueError: no
"""


def letters(first: int, count: int) -> list[bytes]:
    """Dead letters that rules merge, split or leave alone, and a type that PostgreSQL truncates."""
    kinds: list[dict[str, Any]] = [
        {"error_message": "parcel Nord is locked", "error_type": "LockedError"},
        {"error_message": "parcel West is locked", "error_type": "LockedError"},
        {"stack_trace": TRACE.format(n=1)},
        {"stack_trace": TRACE.format(n=2)},
        {"error_type": "org." + "x" * 120 + ".Tail1"},
        {"error_type": "org." + "x" * 120 + ".Tail2"},
        {"error_message": "no such field"},
    ]
    return [letter(n, **kinds[n % len(kinds)]) for n in range(first, first + count)]


@pytest.fixture
def ruled(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    return settings.model_copy(update={"rules_file": file, "drain_batch_messages": 20})


def sinks(settings: Settings) -> tuple[pl.DataFrame, list[tuple[Any, ...]]]:
    """Both sinks, without the times at which they were written."""
    rows = [
        tuple(
            value
            for name, value in row.items()
            if name not in ("created_at", "updated_at", "xmin", "ctid")
        )
        for row in failures(settings)
    ]
    return in_lake(settings).drop("failure_id"), rows


async def drained_afresh(settings: Settings) -> tuple[pl.DataFrame, list[tuple[Any, ...]]]:
    """The sinks after both were lost and drained again."""
    shutil.rmtree(settings.lake)
    tables = "failed_events, failed_payloads, drain_checkpoints, drain_epochs, drain_anchors"
    execute(settings, f"TRUNCATE {tables}")
    await drain_log(settings)
    return sinks(settings)


def same(one: Any, other: Any) -> bool:
    return one[0].equals(other[0]) and one[1] == other[1]


async def test_a_regroup_with_the_same_rules_changes_nothing(
    ruled: Settings, client: Client
) -> None:
    await publish(client, ruled, letters(0, 30))
    await drain_log(ruled)
    before = state_of(ruled)
    report = await asyncio.to_thread(regroup_history, ruled)
    assert report.lake.rows == report.postgres.rows == 0
    assert state_of(ruled) == before


async def test_a_regroup_makes_what_a_fresh_drain_with_the_new_rules_makes(
    settings: Settings, ruled: Settings, client: Client
) -> None:
    await publish(client, settings, letters(0, 70))
    await drain_log(ruled.model_copy(update={"rules_file": None}))
    before = state_of(ruled)
    dry = await asyncio.to_thread(regroup_history, ruled, is_dry_run=True)
    assert state_of(ruled) == before
    report = await asyncio.to_thread(regroup_history, ruled)
    # Two parcels are one group, two traces are one; two tails are renamed; one stays as it is.
    moved = {"rows": 70, "rows_moved": 60, "groups_before": 7, "groups_after": 5}
    assert report.lake.as_dict() == report.postgres.as_dict() == moved
    assert dry.as_dict() | {"seconds": 0} == report.as_dict() | {"is_dry_run": True, "seconds": 0}
    regrouped = sinks(ruled)
    assert regrouped[0]["group_id"].n_unique() == 5
    again = await asyncio.to_thread(regroup_history, ruled)
    assert again.lake.rows == again.postgres.rows == 0
    assert (await drain_log(ruled)).drained == 0
    assert same(regrouped, await drained_afresh(ruled))


async def test_a_killed_regroup_is_run_again_and_ends_the_same(
    settings: Settings, ruled: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(client, settings, letters(0, 70))
    await drain_log(ruled.model_copy(update={"rules_file": None}))
    monkeypatch.setattr(regroup_module, "_BATCH_ROWS", 10)
    whole, calls = regroup_module._update, iter(range(100))

    def dies(connection: Any, frame: pl.DataFrame) -> None:
        whole(connection, frame)
        if next(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(regroup_module, "_update", dies)
    with pytest.raises(KeyboardInterrupt):
        regroup_history(ruled)
    stale = "SELECT count(*) FROM failed_events WHERE fingerprint_rules IS NULL"
    assert query(ruled, stale) == [{"count": 50}]
    report = await asyncio.to_thread(regroup_history, ruled)
    assert (report.lake.rows, report.postgres.rows) == (0, 50)
    assert same(sinks(ruled), await drained_afresh(ruled))


async def test_a_drain_at_work_is_not_fenced_and_keeps_what_it_writes(
    settings: Settings, ruled: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(client, settings, letters(0, 40))
    await drain_log(ruled.model_copy(update={"rules_file": None}))
    await publish(client, settings, letters(40, 60))
    reports: list[RegroupReport] = []
    store = Sinks.store

    async def then_regrouped(self: Sinks, batch: Batch) -> None:
        await store(self, batch)
        if batch.last_sequence < 100:  # between this drain's commits
            reports.append(await asyncio.to_thread(regroup_history, ruled))

    monkeypatch.setattr(Sinks, "store", then_regrouped)
    # This drain has not heard of the rules.
    drained = await drain_log(ruled.model_copy(update={"rules_file": None}))
    assert drained.drained == 60
    assert len(reports) == 2
    assert all(report.lake.rows > 0 for report in reports)
    await asyncio.to_thread(regroup_history, ruled)
    assert sorted(in_lake(ruled)["dlq_sequence"]) == list(range(1, 101))
    assert same(sinks(ruled), await drained_afresh(ruled))


async def test_a_drain_s_commit_between_reading_and_writing_a_day_is_kept(
    settings: Settings, ruled: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    unruled = ruled.model_copy(update={"rules_file": None})
    await publish(client, settings, letters(0, 20))
    await drain_log(unruled)
    await publish(client, settings, letters(20, 20))
    read, loop = regroup_module._regrouped, asyncio.get_running_loop()
    drains: list[int] = []

    def after_a_drain(*arguments: Any) -> pl.DataFrame:
        frame = read(*arguments)
        if not drains:
            report = asyncio.run_coroutine_threadsafe(drain_log(unruled), loop).result(60)
            drains.append(report.drained)
        return frame

    monkeypatch.setattr(regroup_module, "_regrouped", after_a_drain)
    await asyncio.to_thread(regroup_history, ruled)
    assert drains == [20]
    await asyncio.to_thread(regroup_history, ruled)
    assert in_lake(ruled)["dlq_sequence"].to_list() == list(range(1, 41))
    assert same(sinks(ruled), await drained_afresh(ruled))


async def test_two_regroups_do_not_run_at_once(settings: Settings) -> None:
    with locking(settings.postgres_dsn.get_secret_value(), "regroup") as lock:
        assert lock.take()
        with pytest.raises(RegroupError, match=r"Another regroup is running \(session \d+ of "):
            regroup_history(settings)
    assert Lake(settings.lake).files("dead_letters") == []


# What people said -------------------------------------------------------------------------------


def parcels(**counts: int) -> list[bytes]:
    """Failures that are a group for each parcel, and by the rules one group."""
    names = [name for name, count in counts.items() for _ in range(count)]
    return [
        letter(n, error_message=f"parcel {name} is locked", error_type="LockedError")
        for n, name in enumerate(names)
    ]


async def say(settings: Settings, group: str, **changes: Any) -> None:
    await change_group(settings, group, GroupEdit(**changes), actor="ana", reason="they know")


def groups_of(settings: Settings) -> dict[str, str]:
    found = "SELECT DISTINCT error_message, group_id FROM failed_events"
    return {row["error_message"].split()[1]: row["group_id"] for row in query(settings, found)}


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ({("a", "x"): 6, ("a", "a"): 4}, [Carried("a", "x", 6)]),
        ({("a", "x"): 5, ("a", "y"): 5}, []),  # no group gets more than half
        ({("a", "x"): 5}, []),  # five stay
        ({("a", "x"): 9, ("b", "x"): 10}, [("b", "x", 10, ""), ("a", "x", 9, "more failures")]),
        ({("a", "b"): 9}, [("a", "b", 9, "words of its own")]),
        ({("a", "c"): 9}, []),  # carried already
    ],
)
def test_words_go_where_more_than_half_of_the_failures_go(
    moves: dict[tuple[str, str], int], expected: list[Any]
) -> None:
    worded = {"a": ("team-a",), "b": ("team-b",), "c": ("team-a",)}
    found = list(carried(worded, moves, dict.fromkeys(worded, 10)))
    assert len(found) == len(expected)
    for one, said in zip(found, expected, strict=True):
        group, to, count, why = said if isinstance(said, tuple) else astuple(said)
        assert (one.group_id, one.to, one.failure_count) == (group, to, count)
        assert (why or "") in (one.kept or "")
        assert bool(why) == bool(one.kept)


async def test_what_people_said_follows_the_failures(
    settings: Settings, ruled: Settings, client: Client
) -> None:
    await publish(client, settings, parcels(Nord=8, West=5, Ost=3))
    before = ruled.model_copy(update={"rules_file": None})
    await drain_log(before)
    old = groups_of(settings)
    await say(before, old["Nord"], owner="team-a", labels=["locks"], mute=Mute(more=5))
    await say(before, old["West"], note="see the runbook")
    changed = len(in_lake(settings, "case_events"))
    dry = await asyncio.to_thread(regroup_history, ruled, is_dry_run=True)
    assert len(in_lake(settings, "case_events")) == changed
    report = await asyncio.to_thread(regroup_history, ruled)
    new = groups_of(settings)["Nord"]
    other = "it gets the words of a group with more failures"
    assert (
        report.words
        == dry.words
        == [
            Carried(old["Nord"], new, 8),
            Carried(old["West"], new, 5, other),
        ]
    )
    row = care_of(settings, new)
    assert (row["owner"], row["labels"], row["note"]) == ("team-a", ["locks"], None)
    assert mute_in_words(row) == "until 5 more failures"
    assert row["mute_reason"] == f"regrouped from {old['Nord']}: they know"
    assert [line[1:3] for line in group_history(settings, new)] == [
        ("owner team-a; labels locks; muted until 5 more failures", "dlq-regroup")
    ]
    again = await asyncio.to_thread(regroup_history, ruled)
    assert again.words == []
    # The rest by hand, as the report says.
    await carry_words(ruled, old["West"], new, actor="ana", reason="one group now")
    row = care_of(settings, new)
    assert (row["owner"], row["note"]) == ("team-a", "see the runbook")
    with pytest.raises(GroupError, match="Nobody said anything of a group"):
        await carry_words(ruled, old["Ost"], new, actor="ana", reason="one group now")


async def test_a_regroup_that_was_killed_loses_no_words_and_carries_them_once(
    settings: Settings, ruled: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(client, settings, parcels(Nord=12))
    before = ruled.model_copy(update={"rules_file": None})
    await drain_log(before)
    await say(before, groups_of(settings)["Nord"], owner="team-a")
    monkeypatch.setattr(regroup_module, "_BATCH_ROWS", 5)
    whole, calls = regroup_module._update, iter(range(100))

    def dies(connection: Any, frame: pl.DataFrame) -> None:
        whole(connection, frame)
        if next(calls) == 1:
            raise RuntimeError("killed")

    monkeypatch.setattr(regroup_module, "_update", dies)
    with pytest.raises(RuntimeError, match="killed"):
        await asyncio.to_thread(regroup_history, ruled)
    report = await asyncio.to_thread(regroup_history, ruled)
    assert report.words == []
    [new] = groups_of(settings).values()
    assert care_of(settings, new)["owner"] == "team-a"
    assert len(group_history(settings, new)) == 1


async def test_words_that_the_log_does_not_take_are_told_and_the_regroup_goes_on(
    settings: Settings, ruled: Settings, client: Client
) -> None:
    await publish(client, settings, parcels(Nord=3))
    before = ruled.model_copy(update={"rules_file": None})
    await drain_log(before)
    old = groups_of(settings)["Nord"]
    await say(before, old, owner="team-a")
    nowhere = ruled.model_copy(update={"nats_url": SecretStr("nats://127.0.0.1:1")})
    report = await asyncio.to_thread(regroup_history, nowhere)
    new = groups_of(settings)["Nord"]
    assert new != old
    [words] = report.words
    assert (words.group_id, words.to, words.failure_count) == (old, new, 3)
    assert "No NATS server answers" in (words.kept or "")
    assert "owner" not in care_of(settings, new)
