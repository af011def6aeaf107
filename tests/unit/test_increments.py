"""The marts by day after drains in steps are those that a whole count makes, row by row."""

from datetime import timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_log import NOW, Log, before
from test_fold_equals_view import Message, logs

from pipelines.analysis.increments import Reach, counting
from pipelines.analysis.marts import DAILY, build_marts
from pipelines.deadletter.ids import consumer_address

Tables = dict[str, pa.Table]


def append(lake: Log, messages: list[Message], **places: Any) -> None:
    """Messages as a drain appends them, a few hours apart, so that chains reach over days."""
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
                **place,
            )


def keep(lake: Log, tables: Tables) -> None:
    for name, table in tables.items():
        lake.connection.register("arrow", table)
        lake.connection.execute(f"CREATE OR REPLACE TABLE kept_{name} AS FROM arrow")
        lake.connection.unregister("arrow")


def counted(
    lake: Log, before: Reach | None, cap: int, part_rows: int = 1_000
) -> tuple[Reach, Tables] | None:
    with counting(lake.connection, before, cap, part_rows=part_rows) as found:
        if found is None:
            return None
        tables = {name: lake.connection.sql(f"FROM {name}").to_arrow_table() for name in DAILY}
    return found[0], tables


def whole(lake: Log, cap: int) -> Tables:
    return build_marts(lake.connection, NOW, DAILY, redrive_cap=cap)


def rows(table: pa.Table) -> list[str]:
    return sorted(str(row) for row in table.to_pylist())


def assert_same(found: Tables, expected: Tables) -> None:
    for name in DAILY:
        assert rows(found[name].select(expected[name].column_names)) == rows(expected[name]), name


@given(
    log=logs(),
    cap=st.sampled_from([1, 2, 3]),
    steps=st.lists(st.integers(1, 9), max_size=3),
    part_rows=st.sampled_from([2, 1_000]),
)
@settings(max_examples=6, deadline=None)
def test_drained_in_steps_is_the_same_as_counted_whole(
    log: list[Message], cap: int, steps: list[int], part_rows: int
) -> None:
    lake, reach = Log(), None
    lake.connection.execute("SET TimeZone = 'UTC'")
    waiting = list(log)
    for step in [*steps, len(log)]:
        append(lake, waiting[:step])
        waiting = waiting[step:]
        found = counted(lake, reach, cap, part_rows)
        assert found is not None
        reach, tables = found
        keep(lake, tables)
    assert_same(tables, whole(lake, cap))
