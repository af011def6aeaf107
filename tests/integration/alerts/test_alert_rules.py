"""What each alert rule finds on PostgreSQL, with its condition true and false."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sahool_dlq.alerts.findings import Finding, find
from sahool_dlq.alerts.rules import AlertRules, read_alert_rules
from sahool_dlq.settings import Settings
from sahool_dlq.sqlfiles import read_sql
from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.postgres.diagnoses import keep_diagnosis
from support.alert_rows import (
    add_checkpoint,
    add_failures,
    add_sample,
    add_totals,
    add_verification,
)
from support.platform_log import execute, query

MORE = """
[[overrides]]
rule = "dlq_rate"
service = "import-*"
above = 200
[[overrides]]
rule = "dlq_rate"
tenant = "big_farm"
enabled = false
"""


def found(settings: Settings, name: str, changes: str = "") -> list[Finding]:
    rules: AlertRules = read_alert_rules(changes)
    rule = rules.rule(name)
    assert rule is not None
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        return find(connection, rules, rule)


def one(settings: Settings, name: str, **parts: Any) -> Finding:
    [finding] = found(settings, name, **parts)
    return finding


def test_nothing_is_found_where_nothing_is(settings: Settings) -> None:
    rules = read_alert_rules()
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        assert {rule.name: find(connection, rules, rule) for rule in rules.rules} == {
            rule.name: [] for rule in rules.rules
        }


def test_the_rate_is_the_mean_of_five_minutes(settings: Settings) -> None:
    add_failures(settings, 40, minutes_ago=1)
    add_failures(settings, 11, minutes_ago=4, service="weather", error_type="x.TimeoutError")
    add_failures(settings, 500, minutes_ago=6)  # before the window
    add_failures(settings, 500, minutes_ago=1, status="superseded")
    finding = one(settings, "dlq_rate")
    assert (finding.value, finding.failure_count, finding.is_above) == (51 / 5, 51, True)
    assert finding.detail == "ndvi-service ConnectionError 40; weather TimeoutError 11"
    assert len(finding.unmarked_ids or ()) == 51
    assert finding.sample_id is not None


def test_fifty_in_five_minutes_are_not_above_ten_a_minute(settings: Settings) -> None:
    add_failures(settings, 50, minutes_ago=1)
    assert not one(settings, "dlq_rate").is_above


def test_a_part_with_a_threshold_of_its_own_counts_there_alone(settings: Settings) -> None:
    add_failures(settings, 900, minutes_ago=1, service="import-eu")
    add_failures(settings, 600, minutes_ago=1, tenant="big_farm")
    add_failures(settings, 25, minutes_ago=1, tenant="bigXfarm")
    values = {f.scope: (f.value, f.is_above) for f in found(settings, "dlq_rate", MORE)}
    assert values == {
        "service import-*": (180, False),
        "tenant big_farm": (120, False),
        "all": (5, False),
    }


def test_the_window_ends_where_the_drain_has_come_to(settings: Settings) -> None:
    """Otherwise the minutes that are not drained yet would count as minutes without failures."""
    add_failures(settings, 60, minutes_ago=7)
    assert found(settings, "dlq_rate") == []
    add_checkpoint(settings, 60)
    add_sample(settings, minutes_ago=4, last=60)
    add_sample(settings, minutes_ago=1, last=99)
    assert one(settings, "dlq_rate").value == 12


def test_critical_errors_are_reported_by_service_with_their_subclasses(settings: Settings) -> None:
    add_failures(settings, 2, error_type="sqlalchemy.exc.IntegrityError")
    add_failures(settings, 1, error_type="DatabaseError", alert_sent=True)
    add_failures(settings, 1, error_type="AuthenticationError", service="api", alert_sent=True)
    add_failures(settings, 9, error_type="ValueError")
    add_failures(settings, 9, error_type="DatabaseError", minutes_ago=16)
    by_service = {f.subject: f for f in found(settings, "critical_errors")}
    assert {name: f.value for name, f in by_service.items()} == {"ndvi-service": 3, "api": 1}
    assert by_service["ndvi-service"].detail == "IntegrityError 2; DatabaseError 1"
    assert len(by_service["ndvi-service"].unmarked_ids or ()) == 2
    # The monitor has alerted about all failures of api, but not of the other service.
    assert {name: f.is_told for name, f in by_service.items()} == {
        "ndvi-service": False,
        "api": True,
    }


def test_what_was_drained_late_is_reported_and_what_a_wrong_clock_dates_is_over_in_time(
    settings: Settings,
) -> None:
    critical = {"error_type": "DatabaseError"}
    add_failures(settings, 2, minutes_ago=90, stored_minutes_ago=1, service="late", **critical)
    add_failures(settings, 9, minutes_ago=2_000, stored_minutes_ago=1, service="old", **critical)
    add_failures(settings, 9, minutes_ago=-900, stored_minutes_ago=20, service="odd", **critical)
    assert {f.subject: f.value for f in found(settings, "critical_errors")} == {"late": 2}
    assert found(settings, "dlq_rate") == []
    assert found(settings, "service_failing") == []


@pytest.mark.parametrize(
    ("samples", "value"),
    [
        (((6, 100, 90), (1, 105, 90)), 0.5655),  # five calls, no success: Wilson's lower bound
        (((6, 100, 90), (1, 104, 90)), 0),  # four calls are too few
        (((6, 100, 90), (1, 150, 91)), 0),  # one success
        (((6, 100, 90), (3, 140, 90), (1, 200, 90)), 0.963),
    ],
)
def test_a_service_with_totals_fails_all_its_messages(
    settings: Settings, samples: Any, value: float
) -> None:
    add_failures(settings, 3)
    add_totals(settings, "ndvi-service", *samples)
    finding = one(settings, "service_failing")
    assert finding.subject == "ndvi-service"
    assert finding.value == pytest.approx(value, abs=0.0005)
    assert finding.is_above == (value > 0.5)


MUTED = "INSERT INTO group_decisions (group_id, muted_at, mute_until, changed_at) VALUES"
MUTED += " ('f00d', now(), now() + interval '1 hour', now())"


def test_no_rule_about_failures_counts_those_of_muted_groups(settings: Settings) -> None:
    add_failures(settings, 60, minutes_ago=1, error_type="DatabaseError")
    add_failures(settings, 1, minutes_ago=1_500)
    add_failures(settings, 1, parse_error="not JSON")
    add_totals(settings, "ndvi-service", (6, 0, 0), (1, 61, 0))
    names = ("dlq_rate", "critical_errors", "service_failing", "unresolved", "quarantine")
    assert [len(found(settings, name)) for name in names] == [1] * 5
    execute(settings, MUTED)
    assert [found(settings, name) for name in names] == [[]] * 5
    execute(settings, "UPDATE group_decisions SET mute_until = now()")
    assert [len(found(settings, name)) for name in names] == [1] * 5


def test_a_service_that_also_fails_in_another_group_is_found(settings: Settings) -> None:
    add_failures(settings, 5)
    execute(settings, MUTED)
    add_totals(settings, "ndvi-service", (6, 0, 0), (1, 30, 0))
    assert found(settings, "service_failing") == []
    execute(settings, "UPDATE failed_events SET group_id = 'beef' WHERE event_id = 'e1'")
    finding = one(settings, "service_failing")
    assert (finding.failure_count, finding.is_above) == (1, True)


OWNED = """
[[overrides]]
owner = "@acme/*"
above = 40
"""


def test_an_override_takes_the_failures_of_an_owners_groups(settings: Settings) -> None:
    add_failures(settings, 60, minutes_ago=1)
    owned = "INSERT INTO ruled_owners VALUES ('f00d', '@acme/pay', 'rule', 'x')"
    assert one(settings, "dlq_rate", changes=OWNED).scope == "all"
    execute(settings, owned)
    finding = one(settings, "dlq_rate", changes=OWNED)
    assert (finding.scope, finding.above) == ("owner @acme/*", 40)
    named = (
        "INSERT INTO group_decisions (group_id, owner, changed_at) VALUES ('f00d', 'ana', now())"
    )
    execute(settings, named)
    assert one(settings, "dlq_rate", changes=OWNED).scope == "all"  # a person is stronger


def test_a_service_that_only_retries_is_found_too(settings: Settings) -> None:
    add_totals(settings, "ndvi-service", (6, 0, 0), (1, 30, 0))
    add_totals(settings, "quiet", (6, 7, 7), (1, 9, 9))
    finding = one(settings, "service_failing")
    assert (finding.subject, finding.failure_count) == ("ndvi-service", 0)
    assert finding.detail == "none of 30 handler calls succeeded in 5 minutes"
    assert finding.is_above


def stop(settings: Settings, waiting: int, least: int, service: str = "ndvi-service") -> None:
    execute(
        settings,
        "INSERT INTO stopped_consumers VALUES ('E/' || %s, %s, 'nobody pulls', %s, %s, now())",
        *(service, service, waiting, least),
    )


def test_that_nothing_is_handled_any_more_is_no_end_of_failing(settings: Settings) -> None:
    add_totals(settings, "ndvi-service", (30, 100, 90), (6, 150, 90), (4, 153, 90))
    assert one(settings, "service_failing").value == 0  # three calls are too few
    stop(settings, 9, 9)
    unknown = one(settings, "service_failing")
    assert unknown.value is None
    assert unknown.detail is not None
    assert unknown.detail.startswith("its consumer stopped, so whether it fails is not known; 3 ")
    add_totals(settings, "other", (6, 10, 10), (4, 20, 12))
    stop(settings, 9, 9, "other")
    of_other = next(f for f in found(settings, "service_failing") if f.subject == "other")
    assert of_other.value == 0  # some calls succeeded


def test_a_stopped_consumer_is_reported_once_its_backlog_grows(settings: Settings) -> None:
    stop(settings, 9, 9)
    assert not one(settings, "consumer_stopped").is_above
    execute(settings, "UPDATE stopped_consumers SET waiting_count = 12")
    finding = one(settings, "consumer_stopped")
    assert (finding.subject, finding.value, finding.is_above) == ("E/ndvi-service", 12, True)
    assert finding.detail == "ndvi-service: nobody pulls; 12 events wait"
    changes = '[[overrides]]\nrule = "consumer_stopped"\nservice = "ndvi-*"\nabove = 500'
    assert not one(settings, "consumer_stopped", changes=changes).is_above


def consumer_at(settings: Settings, *samples: tuple[float, int]) -> None:
    for minutes_ago, sequence in samples:
        execute(
            settings,
            "INSERT INTO consumer_samples VALUES (now() - %s * interval '1 minute', 'E', 'c', %s)",
            *(minutes_ago, sequence),
        )


def test_without_totals_no_progress_is_failing_and_else_nothing_is_known(
    settings: Settings,
) -> None:
    add_failures(settings, 4, minutes_ago=0.5, stream="E", consumer="c")
    assert one(settings, "service_failing").value == 0  # too few to decide
    add_failures(settings, 2, minutes_ago=0.5, stream="E", consumer="c")
    unknown = one(settings, "service_failing")
    assert unknown.value is None
    assert unknown.detail == "6 failures; without totals its successes are not known in 5 minutes"
    consumer_at(settings, (3, 17), (1, 17))
    stuck = one(settings, "service_failing")
    assert stuck.value == pytest.approx(6 / (6 + 1.96**2), abs=0.0005)
    assert stuck.is_above
    consumer_at(settings, (0, 18))
    assert one(settings, "service_failing").value == 0


def test_what_is_open_for_a_day_is_unresolved(settings: Settings) -> None:
    add_failures(settings, 2, minutes_ago=1450, status="parked")
    add_failures(settings, 1, minutes_ago=3000)
    add_failures(settings, 4, minutes_ago=1430)
    add_failures(settings, 4, minutes_ago=1450, status="resolved")
    finding = one(settings, "unresolved")
    assert (finding.value, finding.is_above) == (3, True)
    assert finding.detail == "ndvi-service ConnectionError 3"


def test_the_drain_lags_from_the_first_look_that_showed_more(settings: Settings) -> None:
    add_checkpoint(settings, 5)
    for minutes_ago, last in ((30, 5), (12, 6), (1, 90)):
        add_sample(settings, minutes_ago, last=last)
    finding = one(settings, "drain_lag")
    assert finding.value == pytest.approx(12, abs=0.5)
    assert finding.detail == "85 messages wait"
    add_sample(settings, 0, first=91, last=90)  # purged unread: a gap, and nothing waits
    assert found(settings, "drain_lag") == []
    add_checkpoint(settings, 90)
    assert found(settings, "drain_lag") == []


def test_what_the_dashboards_call_not_drained_is_of_this_life_of_the_stream(
    settings: Settings,
) -> None:
    lag = read_sql("grafana/lag_now.sql")
    add_checkpoint(settings, 500)
    add_sample(settings, 3, last=512)
    assert query(settings, lag) == [{"value": 12}]
    add_sample(settings, 2, first=513, last=512)
    assert query(settings, lag) == [{"value": 0}]
    add_sample(settings, 1, last=7)
    execute(settings, "UPDATE stream_samples SET created = created + interval '1 day'")
    assert query(settings, lag) == [{"value": 7}]


def test_what_the_last_verification_found_is_told_until_one_finds_nothing(
    settings: Settings,
) -> None:
    wrong = {"kind": "damaged_file", "where": "a", "count": 3, "is_repaired": False}
    many = [wrong | {"what": f"File {number} is damaged."} for number in range(5)]
    mended = [finding | {"is_repaired": True} for finding in many]
    assert found(settings, "damage") == []
    add_verification(settings, many)
    finding = one(settings, "damage")
    assert (finding.value, finding.is_above) == (5, True)
    assert finding.detail == "File 0 is damaged. File 1 is damaged. File 2 is damaged."
    add_verification(settings, mended)
    finding = one(settings, "damage")
    assert (finding.value, finding.is_above, finding.detail) == (0, False, None)


def test_what_loses_data_is_told_until_the_doctor_finds_nothing(settings: Settings) -> None:
    rows = [
        {"severity": "loses data", "subject": f"S/{n}", "sentence": "So it is."} for n in "abcd"
    ]
    rows.append({"severity": "may lose", "subject": "S/e", "sentence": "Perhaps."})

    def look(loses: int, minutes_ago: float) -> None:
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        with database(settings.postgres_dsn.get_secret_value()) as connection:
            findings = rows[4 - loses :]
            keep_diagnosis(connection, at=at, loses=loses, may_lose=1, findings=findings)

    assert found(settings, "loses_data") == []
    look(4, minutes_ago=25 * 60)
    assert found(settings, "loses_data") == []  # whether it is still so is unknown
    look(2, minutes_ago=60)
    finding = one(settings, "loses_data")
    assert (finding.value, finding.is_above) == (2, True)
    assert finding.detail == "S/c: So it is. S/d: So it is."
    look(0, minutes_ago=1)
    finding = one(settings, "loses_data")
    assert (finding.value, finding.is_above, finding.detail) == (0, False, None)


def test_gaps_quarantine_and_aborted_redrives_are_found_for_an_hour(settings: Settings) -> None:
    execute(settings, "INSERT INTO stream_gaps VALUES ('e', 4, 9, 'its age limit', true)")
    execute(
        settings, "INSERT INTO stream_gaps VALUES ('e', 1, 1, 'x', true, now() - '2 h'::interval)"
    )
    add_failures(settings, 2, parse_error="not JSON", service="odd")
    execute(
        settings,
        "INSERT INTO redrive_batches SELECT gen_random_uuid(), 'manual', 'me', 'why', '{}',"
        " 'aborted', 'f00d: none of 1 succeeded', 9, now(), now() - n * '50 min'::interval"
        " FROM generate_series(0, 2) n",
    )
    gap = one(settings, "gap")
    assert (gap.value, gap.detail) == (6, "lost: sequences 4 to 9; its age limit")
    execute(
        settings,
        "INSERT INTO stream_gaps SELECT 'e', n, n + 1, 'its age limit', true, g.found_at"
        " FROM stream_gaps g, generate_series(20, 50, 10) n WHERE first_sequence = 4",
    )
    gap = one(settings, "gap")
    wanted = "lost: 14 messages in 5 runs, sequences 4 to 51; its age limit"
    assert (gap.subject, gap.value, gap.detail) == ("e from 4", 14, wanted)
    assert (one(settings, "quarantine").value, one(settings, "quarantine").detail) == (2, "odd 2")
    aborted = one(settings, "redrive_aborted")
    assert (aborted.value, aborted.detail) == (2, "group f00d: none of 1 succeeded")


def test_redrives_that_nobody_answered_are_found_for_an_hour(settings: Settings) -> None:
    assert found(settings, "redrive_unanswered") == []
    add_failures(settings, 2, service="ndvi")
    add_failures(settings, 1, service="soil")
    add_failures(settings, 1, service="soil", message="long ago")
    execute(
        settings,
        "WITH b AS (INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection,"
        " state, planned) VALUES (gen_random_uuid(), 'manual', 'me', 'why', '{}', 'done', 4)"
        " RETURNING id) INSERT INTO redrives (id, failure_id, attempt, batch_id, subject, state,"
        " ended_at) SELECT gen_random_uuid(), f.id, 1, b.id, 's', 'outcome_unknown', now() -"
        " CASE WHEN f.error_message = 'long ago' THEN 61 ELSE 59 END * '1 min'::interval"
        " FROM failed_events f, b",
    )
    finding = one(settings, "redrive_unanswered")
    assert (finding.value, finding.detail, finding.is_above) == (3, "ndvi 2, soil 1", True)
    assert finding.sample_id
    execute(settings, "UPDATE redrives SET state = 'succeeded'")  # late, but it came
    assert found(settings, "redrive_unanswered") == []


def test_a_redrive_that_nobody_approves_is_found_after_a_day(settings: Settings) -> None:
    execute(
        settings,
        "INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection, state, planned,"
        " created_at) SELECT md5(state)::uuid, 'manual', 'ana', 'tiles are back', '{}', state, 120,"
        " now() - CASE state WHEN 'planned' THEN 23 ELSE 25 END * interval '1 hour'"
        " FROM unnest(ARRAY['awaiting_approval', 'planned', 'running', 'paused']) state",
    )
    execute(
        settings,
        "UPDATE redrive_batches SET state = 'awaiting_approval' WHERE id = md5('planned')::uuid",
    )
    waiting, young = found(settings, "approval_waiting")
    assert (waiting.value, young.value) == (pytest.approx(25, abs=0.1), pytest.approx(23, abs=0.1))
    assert (waiting.is_above, young.is_above) == (True, False)
    assert (waiting.failure_count, waiting.detail) == (
        120,
        "120 redrives, asked for by ana: tiles are back",
    )
    [batch] = query(
        settings, "SELECT * FROM redrive_batches WHERE id = md5('awaiting_approval')::uuid"
    )
    assert (waiting.subject, waiting.since) == (str(batch["id"]), batch["created_at"])
    sooner = "[rules.approval_waiting]\nabove = 2"
    assert all(finding.is_above for finding in found(settings, "approval_waiting", sooner))
    execute(settings, "UPDATE redrive_batches SET state = 'running'")  # somebody approved them
    assert found(settings, "approval_waiting") == []


def test_the_log_that_can_not_be_written_or_is_nearly_full(settings: Settings) -> None:
    add_sample(settings, 9, problem="an older trouble")
    add_sample(settings, 5)
    add_sample(settings, 3, problem="it is full")
    add_sample(settings, 1, problem="it is full", messages=9, max_messages=10)
    finding = one(settings, "dlq_unwritable")
    assert (finding.subject, finding.detail, finding.is_above) == ("SAHOOL_DLQ", "it is full", True)
    full = one(settings, "stream_full")
    assert (full.value, full.detail, full.is_above) == (0.9, "9 of 10 messages", True)
    add_sample(settings, 0, messages=7, max_messages=10)
    assert found(settings, "dlq_unwritable") == []
    assert not one(settings, "stream_full").is_above


def test_alerts_that_are_not_evaluated_are_an_alert(settings: Settings) -> None:
    add_checkpoint(settings, 1)
    execute(settings, "UPDATE drain_epochs SET started_at = now() - interval '20 minutes'")
    assert (one(settings, "not_evaluated").is_above, one(settings, "not_evaluated").detail) == (
        True,
        "never",
    )
    add_sample(settings, 14)
    assert one(settings, "not_evaluated").is_above
    add_sample(settings, 1)
    assert not one(settings, "not_evaluated").is_above
