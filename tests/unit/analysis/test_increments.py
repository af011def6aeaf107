"""Marts that are updated by day have the same rows as marts computed from all rows."""

from datetime import timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fold_equals_view import Message, logs, moment

from sahool_dlq.analysis.marts.build import DAILY, build_marts
from sahool_dlq.analysis.marts.increments import Reach, counting
from sahool_dlq.deadletter.ids import consumer_address
from support.lake_log import NOW, Log, before

Tables = dict[str, pa.Table]


def append(lake: Log, messages: list[Message], **places: Any) -> None:
    """Append messages as a drain does, a few hours apart, so that chains span days."""
    for message in messages:
        at = before(days=9) + timedelta(hours=5 * lake.sequence)
        place = {"published_at": at, "dlq_date": at.date(), **places}
        if message.kind:
            lake.event(
                message.kind,
                message.name,
                attempt=message.attempt,
                trigger=message.trigger,
                consumer=consumer_address("SAHOOL_EVENTS", message.consumer),
                parse_error=message.parse_error,
                not_before=message.not_before,
                redrive_cap=message.redrive_cap,
                resolved_in_version="2.4" if message.kind == "triage.resolved" else None,
                **place,
            )
        else:
            lake.dead_letter(
                message.name,
                root=message.root,
                redrive_attempt=message.attempt,
                consumer_name=message.consumer,
                tenant_id=message.name,
                template=message.name if message.attempt else None,
                first_attempt_at=moment(message.began or lake.sequence + 1),
                **place,
            )


def keep(lake: Log, tables: Tables) -> None:
    for name, table in tables.items():
        lake.connection.register("arrow", table)
        lake.connection.execute(f"CREATE OR REPLACE TABLE kept_{name} AS FROM arrow")
        lake.connection.unregister("arrow")


def counted(lake: Log, before: Reach | None, part_rows: int = 1_000) -> tuple[Reach, Tables] | None:
    with counting(lake.connection, before, part_rows=part_rows) as found:
        if found is None:
            return None
        tables = {name: lake.connection.sql(f"FROM {name}").to_arrow_table() for name in DAILY}
    return found[0], tables


def whole(lake: Log) -> Tables:
    return build_marts(lake.connection, NOW, DAILY)


def rows(table: pa.Table) -> list[str]:
    return sorted(str(row) for row in table.to_pylist())


def assert_same(found: Tables, expected: Tables) -> None:
    for name in DAILY:
        table = found[name].select(expected[name].column_names)
        assert rows(table) == rows(expected[name]), name
        assert table.schema.types == expected[name].schema.types, name


@given(
    log=logs(),
    steps=st.lists(st.integers(1, 9), max_size=3),
    part_rows=st.sampled_from([2, 1_000]),
)
@settings(max_examples=6, deadline=None)
def test_drained_in_steps_is_the_same_as_counted_whole(
    log: list[Message], steps: list[int], part_rows: int
) -> None:
    lake, reach = Log(), None
    lake.connection.execute("SET TimeZone = 'UTC'")
    waiting = list(log)
    for step in [*steps, len(log)]:
        append(lake, waiting[:step])
        waiting = waiting[step:]
        found = counted(lake, reach, part_rows)
        assert found is not None
        reach, tables = found
        keep(lake, tables)
    assert_same(tables, whole(lake))


def test_a_part_has_the_whole_chain_and_all_that_is_said_of_it() -> None:
    """Also if the failure of a redrive is a separate case, a root again, or has two roots."""
    lake, log = Log(), list[Message]()
    lake.connection.execute("SET TimeZone = 'UTC'")
    for name in "abcdefgh":
        log += [
            Message(name),
            Message(f"{name}1", name, attempt=1, consumer="other"),
            Message(f"{name}1", kind="triage.resolved"),
            # a root that is a redrive
            Message(f"{name}2"),
            Message(f"{name}3", f"{name}2", attempt=1, consumer="other"),
            Message(f"{name}4", f"{name}3", attempt=1, consumer="other"),
            # two roots
            Message(f"{name}5"),
            Message(f"{name}6"),
            Message(f"{name}7", f"{name}5", attempt=1),
            Message(f"{name}7", f"{name}6", attempt=1),
        ]
    append(lake, log)
    found = counted(lake, None, part_rows=1)
    assert found is not None
    assert_same(found[1], whole(lake))
