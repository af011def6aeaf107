"""The view `failures` has the same columns and rows in PostgreSQL and in the lake."""

import json
from typing import Any

from nats.aio.client import Client

from sahool_dlq.analysis.dictionary import relation
from sahool_dlq.jobs.decisions import decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support.platform_log import letter, publish
from support.platform_log import query as ask

ONLY_IN_THE_LAKE = {"consumer_version"}  # the view has it not
ONLY_IN_POSTGRES = {"created_at", "alert_sent", "resolution_notes"}


async def test_postgres_and_the_lake_say_the_same_of_each_failure(
    settings: Settings, client: Client
) -> None:
    bodies = [letter(n, error_type=f"app.errors.Odd{n % 2}") for n in range(4)]
    await publish(client, settings, [*bodies, b"{no json"])
    await drain_log(settings)
    [first, *_] = ask(settings, "SELECT failure_id::text AS id FROM failures ORDER BY dlq_sequence")
    await decide(
        settings, Selection(failure_ids=(first["id"],)), "discarded", actor="ada", reason="a test"
    )
    await drain_log(settings)

    in_lake = query(settings, "SELECT * FROM failures ORDER BY dlq_sequence").to_dicts()
    in_postgres = ask(settings, "SELECT * FROM failures ORDER BY dlq_sequence")
    names = [column.name for column in relation("failures").columns]
    assert list(in_lake[0]) == names
    assert in_postgres[0].keys() - ONLY_IN_POSTGRES == set(names) - ONLY_IN_THE_LAKE
    assert [row["status"] for row in in_lake] == ["discarded", *["pending"] * 4]
    assert [row["is_open"] for row in in_lake] == [False, *[True] * 4]
    assert [row["error_class"] for row in in_lake[:2]] == ["Odd0", "Odd1"]
    for lake, postgres in zip(in_lake, in_postgres, strict=True):
        assert abs(lake["age_seconds"] - postgres["age_seconds"]) < 300
        for name in postgres.keys() - {"age_seconds", *ONLY_IN_POSTGRES}:
            assert plain(lake[name]) == plain(postgres[name]), name


def plain(value: Any) -> Any:
    """JSON parsed, ids as texts."""
    if isinstance(value, dict | list):
        return value
    if isinstance(value, str) and value[:1] in ("{", "[", '"'):
        return json.loads(value)
    return value if value is None or isinstance(value, int | float) else str(value)
