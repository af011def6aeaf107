"""The provisioned files of Grafana, as far as they can be tested without Grafana.

Every query runs on a PostgreSQL with a simulated history. Grafana's own library reads each
dashboard without losing anything. Positions, ids and names fit together.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import psycopg
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import alerting

from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.alerts.findings import find
from sahool_dlq.alerts.grafana import grafana_rules
from sahool_dlq.alerts.rules import read_alert_rules
from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario
from support.platform_log import ROOT, execute

pytestmark = pytest.mark.xdist_group("grafana")  # one history is enough
PROVISIONING = ROOT / "grafana/provisioning"
sys.path.insert(0, str(ROOT / "grafana"))
boards, build, panels, preview = (
    import_module(name) for name in ("boards", "build", "panels", "preview")
)


BOARDS = {p.stem: json.loads(p.read_text()) for p in PROVISIONING.glob("dashboards/*.json")}
RULES = json.loads((PROVISIONING / "alerting/dlq-rules.json").read_text())["groups"][0]["rules"]
PANELS = [(uid, panel) for uid, board in sorted(BOARDS.items()) for panel in board["panels"]]
# In a history this small and quiet, these rightly find nothing.
MAY_BE_EMPTY = {"Over-represented values", "Unreadable messages", "Hour of the week"}


@pytest.fixture(scope="module")
def seeded(
    postgres_server: PostgresServer,
    nats_server: NatsServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[psycopg.Connection[Any]]:
    """PostgreSQL with four days of failures, their marts, redrives, alerts and samples."""
    home = tmp_path_factory.mktemp("grafana")
    settings = Settings(
        home=home,
        nats_url=nats_server.url,
        postgres_dsn=postgres_server.create_database("grafana"),
        lake_uri=str(home / "lake"),
        subject_prefix="grafana",
        events_stream="EVENTS_grafana",
        dlq_stream="DLQ_grafana",
        totals_stream="TOTALS_grafana",
    )
    into_lake(settings, Scenario(datetime.now(UTC), days=4, hourly=6, seed=5))
    asyncio.run(migrate_all(settings))
    asyncio.run(drain_log(settings))
    build_all_marts(settings)
    execute(
        settings,
        "INSERT INTO redrive_batches SELECT gen_random_uuid(), 'manual', 'me', 'why', '{}',"
        " 'aborted', 'f00d: none of 1 succeeded', 9, now(), now()",
    )
    execute(
        settings,
        "INSERT INTO redrives SELECT gen_random_uuid(), f.id, 1, b.id, f.group_id, 's', NULL,"
        " CASE WHEN f.dlq_sequence %% 2 = 0 THEN 'succeeded' ELSE 'failed_again' END, NULL, now(),"
        " now() FROM failed_events f, redrive_batches b LIMIT 40",
    )
    execute(
        settings,
        "INSERT INTO redrive_batches SELECT gen_random_uuid(), 'manual', 'me', 'why', '{}',"
        " 'awaiting_approval', NULL, 9, now() - interval '2 days'",
    )
    execute(settings, "INSERT INTO stream_gaps VALUES ('e', 4, 9, 'its age limit', true)")
    asyncio.run(evaluate_alerts(settings))
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as connection:
        yield connection


def expanded(sql: str, variables: list[dict[str, Any]], seeded: psycopg.Connection[Any]) -> str:
    """The statement as Grafana sends it, for the last 40 days; no variable is left in it."""
    chosen = preview.choices(seeded, variables)
    assert all(chosen.values())
    statement: str = preview.expanded(sql, chosen, hours=40 * 24, step_seconds=3600)
    assert "$" not in re.sub(r"'[^']*'", "", statement), statement
    return statement


def test_the_preview_shows_every_panel_and_escapes_what_is_in_it(
    seeded: psycopg.Connection[Any],
) -> None:
    with seeded.transaction(force_rollback=True):
        seeded.execute("UPDATE failed_events SET error_message = '<b>&', error_type = '<i>x'")
        page = preview.page(seeded)
    titles = [panel["title"] for _, panel in PANELS]
    assert all(f"<h3>{title}" in page for title in titles)
    drawn = sum(panel["type"] not in ("table", "stat") for _, panel in PANELS)
    assert 0 < page.count("<svg") <= drawn
    assert page.count("No data") < len(PANELS) / 3
    assert "&lt;b&gt;&amp;" in page
    assert "<i>x" not in page


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=[f"{u}-{p['title']}" for u, p in PANELS])
def test_each_panel_asks_what_postgres_answers(
    seeded: psycopg.Connection[Any], uid: str, panel: dict[str, Any]
) -> None:
    [target] = panel["targets"]
    cursor = seeded.execute(expanded(target["rawSql"], BOARDS[uid]["templating"]["list"], seeded))
    rows = cursor.fetchall()
    columns = [column.name for column in cursor.description or ()]
    assert len(set(columns)) == len(columns)
    if panel["title"] not in MAY_BE_EMPTY:
        assert rows
    if target["format"] == "time_series":
        assert columns[0] == "time"
        assert all(row[0].tzinfo is not None for row in rows)
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        assert all(isinstance(value, int | float) for row in rows for value in row[-1:])
    if panel["type"] == "stat":
        assert len(rows) == 1
        assert all(value is None or isinstance(value, int | float) for value in rows[0])
    if panel["type"] == "trend":
        assert panel["options"]["xField"] in columns
    for override in panel["fieldConfig"]["overrides"]:
        series = {row[1] for row in rows} if columns[1] == "metric" else set()
        assert override["matcher"]["options"] in {*columns, *series}


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_each_board_shows_the_incidents_of_the_time(
    seeded: psycopg.Connection[Any], board: dict[str, Any]
) -> None:
    [annotation] = board["annotations"]["list"]
    assert annotation["datasource"] == annotation["target"]["datasource"]
    cursor = seeded.execute(expanded(annotation["target"]["rawSql"], [], seeded))
    rows = cursor.fetchall()
    assert [column.name for column in cursor.description or ()] == [
        *("time", "timeend", "text", "tags")
    ]
    assert any("weather, irrigation, ndvi" in text for _, _, text, _ in rows)
    assert all(begin < end for begin, end, _, _ in rows)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["uid"])
def test_each_alert_asks_what_postgres_answers(
    seeded: psycopg.Connection[Any], rule: dict[str, Any]
) -> None:
    query, threshold = rule["data"]
    cursor = seeded.execute(query["model"]["rawSql"])
    assert [column.name for column in cursor.description or ()] == ["scope", "subject", "firing"]
    assert {row[2] for row in cursor.fetchall()} <= {0, 1}
    assert (rule["condition"], threshold["model"]["expression"]) == ("B", "A")


def test_grafana_fires_on_what_the_evaluation_fires_on(seeded: psycopg.Connection[Any]) -> None:
    firing = set()
    for rule in RULES:
        rows = seeded.execute(rule["data"][0]["model"]["rawSql"]).fetchall()
        firing |= {(rule["labels"]["rule"], row[0], row[1]) for row in rows if row[2]}
    ours = seeded.execute(
        "SELECT rule, scope, subject FROM alerts WHERE state <> 'resolved'"
    ).fetchall()
    assert {"unresolved", "redrive_aborted", "approval_waiting", "gap"} <= {
        rule for rule, _, _ in ours
    }
    assert firing == set(ours)


def test_grafana_shows_as_many_failures_a_minute_as_the_alert(
    seeded: psycopg.Connection[Any],
) -> None:
    [panel] = [panel for _, panel in PANELS if panel["title"] == "Failures a minute"]
    rules = read_alert_rules()
    rule = rules.rule("dlq_rate")
    assert rule is not None
    with seeded.transaction(force_rollback=True):
        seeded.execute("UPDATE failed_events SET dlq_timestamp = now() - interval '90 seconds'")
        # Everything is drained up to a check of a minute ago.
        seeded.execute(
            "UPDATE stream_samples SET at = now() - interval '1 minute' WHERE role = 'log'"
        )
        shown = seeded.execute(panel["targets"][0]["rawSql"]).fetchone()
        [found] = find(seeded, rules, rule)
        counted = seeded.execute("SELECT count(*) / 5::float8 FROM failures").fetchone()
    assert shown == counted
    assert shown == (found.value,)
    with seeded.transaction(force_rollback=True):
        seeded.execute("UPDATE failed_events SET dlq_timestamp = now() - interval '1 hour'")
        assert seeded.execute(panel["targets"][0]["rawSql"]).fetchone() == (0,)


def test_the_committed_files_are_what_the_build_makes() -> None:
    for name, text in build.files().items():
        assert (ROOT / name).read_text() == text, f"{name} is out of date: make grafana"


@pytest.mark.parametrize("board", boards.DASHBOARDS, ids=lambda board: board.uid)
def test_grafanas_library_reads_a_dashboard_and_loses_nothing(board: Any) -> None:
    written = BOARDS[board.uid]
    assert panels.complete(written) == written
    assert lost(panels.dashboard(board), written) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["uid"])
def test_grafanas_library_reads_an_alert_rule_and_loses_nothing(rule: dict[str, Any]) -> None:
    read = alerting.Rule.from_json(rule)
    again = json.loads(JSONEncoder(sort_keys=False).encode(read))
    assert lost(rule, again) == []


def test_ids_are_unique_panels_do_not_overlap_and_data_sources_are_there() -> None:
    [source] = re.findall(r"uid: (\S+)", (PROVISIONING / "datasources/dlq.yaml").read_text())
    assert {rule["data"][0]["datasourceUid"] for rule in RULES} == {source}
    assert len({rule["uid"] for rule in RULES}) == len(RULES)
    assert all(len(rule["uid"]) <= 40 for rule in RULES)
    assert {board["uid"] for board in BOARDS.values()} == set(BOARDS)
    assert len(BOARDS) == 5
    for board in BOARDS.values():
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for annotation in board["annotations"]["list"]:
            assert annotation["datasource"]["uid"] == source
        for panel in panels:
            where = panel["gridPos"]
            assert 0 <= where["x"] < where["x"] + where["w"] <= 24
            uids = {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])}
            assert uids == {source}
        for a, b in combinations((panel["gridPos"] for panel in panels), 2):
            is_beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            is_below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            assert is_beside or is_below
        for variable in board["templating"]["list"]:
            assert variable["datasource"]["uid"] == source
    links = re.findall(r'"url": "/d/([\w-]+)', json.dumps(BOARDS))
    assert links
    assert set(links) <= set(BOARDS)


def test_what_grafana_would_take_for_a_variable_of_its_environment_is_escaped() -> None:
    """Grafana replaces `$name` in a provisioned rule by an environment variable, or by nothing."""
    assert "$" not in json.dumps(RULES)
    odd = read_alert_rules('[[overrides]]\nservice = "$HOME"\nabove = 7')
    assert "'$$HOME'" in grafana_rules(odd)


def test_each_query_of_the_dashboards_is_used() -> None:
    shown = {panel["targets"][0]["rawSql"] for _, panel in PANELS}
    shown |= {
        annotation["target"]["rawSql"]
        for board in BOARDS.values()
        for annotation in board["annotations"]["list"]
    }
    unused = [
        f.name for f in Path(ROOT / "sql/grafana").glob("*.sql") if f.read_text() not in shown
    ]
    assert unused == []


def lost(before: Any, after: Any, where: str = "") -> list[str]:
    """Paths of the values that differ between the two, or are missing in the second."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            text
            for key, value in before.items()
            for text in (
                lost(value, after[key], f"{where}.{key}") if key in after else [f"{where}.{key}"]
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            text
            for number, (a, b) in enumerate(zip(before, after, strict=True))
            for text in lost(a, b, f"{where}[{number}]")
        ]
    return [] if before == after else [where]
