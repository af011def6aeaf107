"""The life of an alert: when it fires, which messages are sent, when it is over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sahool_dlq.alerts.entries import moves
from sahool_dlq.alerts.findings import Finding
from sahool_dlq.alerts.rules import AlertRules, Rule, read_alert_rules
from sahool_dlq.alerts.states import Alert, step
from sahool_dlq.alerts.text import OngoingIncident, Sample, compose, plain, quantity
from sahool_dlq.alerts.text import command as next_command

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
HOLDS = Finding("all", "", 12.0, 10.0, 60, NOW, "id-1", "a 60", ["id-1"], is_told=False)
RULES = read_alert_rules()


def rule(name: str = "dlq_rate", rules: AlertRules = RULES, **changes: Any) -> Rule:
    found = rules.rule(name)
    assert found is not None
    return replace_rule(found, **changes)


def replace_rule(found: Rule, **changes: Any) -> Rule:
    import msgspec

    return msgspec.structs.replace(found, **changes)


class Life:
    """Evaluates one alert, once a minute unless told otherwise."""

    def __init__(self, rule: Rule, last_told_at: datetime | None = None) -> None:
        self.rule, self.last_told_at = rule, last_told_at
        self.alert: Alert | None = None
        self.minute = 0

    def look(self, finding: Finding | None, minutes: int = 1) -> str | None:
        self.minute += minutes
        now = NOW + timedelta(minutes=self.minute)
        done = step(self.alert, finding, self.rule, "warning", self.last_told_at, now)
        self.alert = done.alert
        return done.kind

    @property
    def state(self) -> str | None:
        return self.alert.state if self.alert else None


def test_it_fires_once_the_condition_has_held_long_enough_and_is_said_once() -> None:
    life = Life(rule())  # for 2 minutes
    assert [life.look(HOLDS) for _ in range(5)] == [None, None, "firing", None, None]
    assert life.state == "firing"


def test_a_condition_that_was_over_in_between_begins_again() -> None:
    life = Life(rule())
    assert life.look(HOLDS) is None
    assert life.look(None) is None
    assert life.state is None
    assert [life.look(HOLDS) for _ in range(3)] == [None, None, "firing"]


@pytest.mark.parametrize("value", [10.0, 9.9, None])
def test_at_the_threshold_or_not_known_it_does_not_hold(value: float | None) -> None:
    life = Life(rule(for_minutes=0))
    assert life.look(replace(HOLDS, value=value)) is None
    assert life.state is None


def test_what_is_not_known_any_more_is_not_over() -> None:
    life = Life(rule(for_minutes=0))
    assert life.look(HOLDS) == "firing"
    assert [life.look(replace(HOLDS, value=None)) for _ in range(9)] == [None] * 9
    assert life.state == "firing"
    assert [life.look(None) for _ in range(5)] == [None] * 4 + ["resolved"]


def test_it_is_resolved_only_after_a_quiet_time_and_that_is_said_once() -> None:
    life = Life(rule(for_minutes=0))
    assert life.look(HOLDS) == "firing"
    assert [life.look(None) for _ in range(4)] == [None] * 4
    assert life.look(HOLDS) is None  # the same episode
    assert [life.look(None) for _ in range(5)] == [None] * 4 + ["resolved"]
    assert life.state == "resolved"


def test_a_reminder_comes_after_an_hour_unless_somebody_looks_after_it() -> None:
    life = Life(rule(for_minutes=0))
    assert life.look(HOLDS) == "firing"
    assert life.look(HOLDS, 59) is None
    assert life.look(HOLDS, 1) == "reminder"
    assert life.alert is not None
    life.alert = replace(life.alert, acked_at=NOW, acked_by="ada")
    assert life.look(HOLDS, 600) is None
    assert life.look(None, 10) == "resolved"


def test_one_that_comes_and_goes_is_said_again_after_the_cooldown_only() -> None:
    told = NOW - timedelta(minutes=5)
    life = Life(rule(for_minutes=0), last_told_at=told)
    assert [life.look(HOLDS) for _ in range(6)] == [None, None, None, None, "firing", None]


def test_what_another_alert_has_told_is_not_told_again_nor_its_end() -> None:
    life = Life(rule("critical_errors"))
    told = replace(HOLDS, is_told=True)
    assert [life.look(told) for _ in range(3)] == [None, None, None]
    assert life.state == "firing"
    assert life.look(HOLDS) == "firing"  # there are others now
    quiet = Life(rule("critical_errors"))
    quiet.look(told)
    assert quiet.look(None, 10) is None
    assert quiet.state == "resolved"


def alert(name: str = "dlq_rate", subject: str = "", **changes: Any) -> Alert:
    life = Life(rule(name, for_minutes=0))
    life.look(replace(HOLDS, subject=subject, **changes))
    assert life.alert is not None
    return life.alert


def test_a_message_says_what_since_when_how_many_a_sample_a_link_and_what_next() -> None:
    rules = read_alert_rules('link = "https://grafana.example/{rule}?s={subject}"')
    sample = Sample("id-1", "TimeoutError", "too slow", "ndvi", "sahool.analysis.x")
    one = alert("critical_errors", "ndvi/eu", detail="DatabaseError 60")
    title, body = compose("firing", [one], rules, {"id-1": sample})
    assert title == "FIRING: Critical errors: ndvi/eu"
    assert body.splitlines() == [
        "What: Critical errors: ndvi/eu",
        "Now: 12 failures (fires above 10)",
        "Since: 2026-03-01 10:00:00 UTC",
        "How many: 60 failures",
        "Who: DatabaseError 60",
        f"First: {rule('critical_errors').first}",
        "Next: dlq show id-1",
        "Link: https://grafana.example/critical_errors?s=ndvi%2Feu",
        "Sample: TimeoutError in ndvi on sahool.analysis.x: too slow",
    ]


def test_a_message_about_an_approval_has_the_batch_who_asked_and_the_commands() -> None:
    detail = "1 redrive, asked for by ana: <!channel>"
    facts = {"value": 25.5, "above": 24, "failure_count": 1, "detail": detail, "sample_id": None}
    title, body = compose("firing", [alert("approval_waiting", "5b2e-77", **facts)], RULES, {})
    assert title == "FIRING: A redrive waits for approval: 5b2e-77"
    assert body.splitlines() == [
        f"What: {title.removeprefix('FIRING: ')}",
        "Now: 25.50 hours (fires above 24)",
        "Since: 2026-03-01 10:00:00 UTC",
        "How many: 1 failure",
        "Who: 1 redrive, asked for by ana: <\u200b!channel>",
        f"First: {rule('approval_waiting').first}",
        "Next: dlq batches approve 5b2e-77  # or reject",
    ]
    odd = alert("approval_waiting", "x; rm -rf ~")
    assert next_command(odd, rule("approval_waiting")).startswith(
        "dlq batches approve 'x; rm -rf ~'"
    )


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1, "batches", "1 batch"),
        (2, "batches", "2 batches"),
        (1, "failures open for more than 24 hours", "1 failure open for more than 24 hours"),
        (1, "sequences", "1 sequence"),
        (1, "of its limit", "1 of its limit"),
        (1, "a minute", "1 a minute"),
        (0.5, "minutes", "0.50 minutes"),
    ],
)
def test_one_has_no_plural(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_an_outage_of_five_hundred_services_is_one_short_message() -> None:
    many = [alert("service_failing", f"service-{n:03}", value=0.9, above=0.5) for n in range(500)]
    title, body = compose("firing", [*many, alert("drain_lag", value=0.5, above=0.1)], RULES, {})
    assert title == "FIRING: A service fails all its messages: service-000 and 499 more (+1 more)"
    assert "- service-004: a 60\n- and 495 more\n" in body
    assert "How many: 30,000 failures" in body
    assert len(body) < 1_500


OUTAGE = OngoingIncident("20260301-10-2a56f4", ["weather", "soil", "ndvi"], 3, 906, NOW)


def test_alerts_of_one_incident_speak_of_it() -> None:
    alerts = [alert("service_failing", name, value=0.9, above=0.5) for name in ("ndvi", "soil")]
    alerts.append(alert("dlq_rate"))  # of all services
    other = OngoingIncident("20260301-09-b47fc4", ["billing"], 1, 40, NOW)
    title, body = compose("firing", alerts[:2], RULES, {}, [OUTAGE, other])
    assert title == "FIRING: incident of weather, soil, ndvi: A service fails all its messages"
    assert body.splitlines()[:3] == [
        "Incident: weather, soil, ndvi; 906 failures in 3 groups since 2026-03-01 10:00:00 UTC",
        "Timeline: dlq incident 20260301-10-2a56f4",
        "",
    ]
    assert "billing" not in body
    title, _ = compose("reminder", alerts, RULES, {}, [OUTAGE])
    assert title.startswith("STILL FIRING: incident of weather, soil, ndvi: ")
    assert title.endswith(" (+1 more)")


@pytest.mark.parametrize(
    ("kind", "alerts"),
    [
        ("resolved", [alert("service_failing", "ndvi", value=0.9, above=0.5)]),
        ("firing", [alert("service_failing", "billing", value=0.9, above=0.5)]),
        ("firing", [alert("drain_lag", value=0.5, above=0.1)]),
        ("firing", [alert("unresolved", since=NOW - timedelta(days=1))]),
    ],
)
def test_other_alerts_do_not_speak_of_an_incident(kind: str, alerts: list[Alert]) -> None:
    plain_text = compose(kind, alerts, RULES, {})
    assert compose(kind, alerts, RULES, {}, [OUTAGE]) == plain_text


def test_an_alert_beside_an_incident_keeps_its_title() -> None:
    alerts = [
        alert("service_failing", "ndvi", value=0.9, above=0.5),
        alert("drain_lag", value=0.5, above=0.1),
    ]
    title, body = compose("firing", alerts, RULES, {}, [OUTAGE])
    assert title == compose("firing", alerts, RULES, {})[0]
    assert body.startswith("Incident: weather, soil, ndvi; ")


def test_words_of_a_message_are_words() -> None:
    odd = (
        "a\x1b[31m\nWhat: \u202e\u200f\u2028<!channel> <https://x|y> @here @Everyone <b>"
        + "x" * 600
    )
    text = plain(odd)
    assert "\x1b" not in text
    assert "\n" not in text
    for sign in "\u202e\u200f\u2028":
        assert sign not in text
    for command in ("<!", "<h", "@here", "@Everyone", "<b"):
        assert command not in text
    assert len(text) < 520
    assert plain("a@b.example: 3 < 4") == "a@b.example: 3 < 4"


def test_the_users_file_changes_what_it_names_and_nothing_else() -> None:
    rules = read_alert_rules(
        "[defaults]\nrepeat_minutes = 5\n[rules.dlq_rate]\nabove = 30\n"
        '[[overrides]]\nservice = "import-*"\nchannels = ["imports"]\nseverity = "critical"\n'
        '[[overrides]]\nrule = "dlq_rate"\ntenant = "big"\nabove = 99\n'
    )
    changed = rule(rules=rules)
    assert (changed.above, changed.repeat_minutes, changed.for_minutes) == (30, 5, 2)
    scopes = [(s.name, s.above, s.severity, s.channels) for s in rules.scopes(changed)]
    assert scopes == [
        ("service import-*", 30, "critical", ("imports",)),
        ("tenant big", 99, "warning", ()),
        ("all", 30, "warning", ()),
    ]
    lag = rule("drain_lag", rules)
    assert [scope.name for scope in rules.scopes(lag)] == ["all"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[rules.dlq_rat]\nabove = 1", "there is no rule dlq_rat, there are dlq_rate, "),
        ("[rules.dlq_rate]\nabove = 'x'", "rules.dlq_rate.above: Expected `float`, got `str`"),
        ("[rules.dlq_rate]\nabov = 1", "rules.dlq_rate: Object contains unknown field `abov`"),
        ("[[overrides]]\nrule = 'gap'\nservice = 'x'", "gap is about the pipeline"),
        ("[[overrides]]\nrule = 'dlq_rate'", "names no service, no tenant and no owner"),
        ("rules = 3", "rules: Expected `object`, got `int`"),
        ("[rules]\ndlq_rate = 3", "rules.dlq_rate: Expected `object`, got `int`"),
        ("overrides = 3", "overrides: Expected `array`, got `int`"),
        ("[defaults]\nabove = 1", "defaults: unknown key above"),
        ("[defaults]\nkeep_minutes = 'x'", "defaults.keep_minutes: Expected `float`, got `str`"),
        ("[rules.dlq_rate]\nwindow_minutes = 0", "rules.dlq_rate.window_minutes: Expected"),
        ("[rules.dlq_rate]\nabove = nan", "rules.dlq_rate.above: Expected `float` >= 0"),
        ("[rule.x]", "unknown key rule"),
        ("x =", "Invalid value"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_where_it_does_not(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_alert_rules(text)
    assert reason in str(refused.value)


def told(id_: int, subject: str, minute: int = 0, **values: Any) -> Alert:
    fired = NOW + timedelta(minutes=minute)
    given = {"state": "firing", "fired_at": fired, "told_count": 1, "id": id_, **values}
    return replace(alert("service_failing", subject, value=0.9, above=0.5), **given)


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        # the first that fired leads, a critical one before others
        ([told(1, "ndvi", 1), told(2, "soil"), told(3, "billing")], {1: 2}),
        ([told(1, "ndvi"), told(2, "soil", 5, severity="critical")], {1: 2}),
        # who is there stays; who is acknowledged stays
        ([told(1, "ndvi", entry_id=2), told(2, "soil")], {}),
        ([told(1, "ndvi", 1, acked_at=NOW), told(2, "soil")], {}),
        # the leader that is over still leads; one that has moved no more
        ([told(1, "ndvi", entry_id=9), told(2, "soil", 3)], {2: 9}),
        ([told(1, "ndvi", entry_id=8), told(2, "soil", 3)], {1: 2}),
        ([told(1, "ndvi")], {}),
    ],
)
def test_alerts_of_an_incident_move_to_the_entry_of_the_first(
    alerts: list[Alert], expected: dict[int, int]
) -> None:
    leaders = {9: told(9, "weather"), 8: told(8, "weather", entry_id=7)}
    assert moves(alerts, leaders, RULES, [OUTAGE]) == expected
    assert moves(alerts, leaders, RULES, []) == {}


def test_an_alert_of_two_incidents_stays_alone() -> None:
    other = OngoingIncident("20260301-09-b47fc4", ["ndvi", "soil"], 1, 40, NOW)
    assert moves([told(1, "ndvi"), told(2, "soil", 1)], {}, RULES, [OUTAGE, other]) == {}
