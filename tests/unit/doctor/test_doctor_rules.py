"""The doctor's rules alone: each on an account with its problem, and on one without."""

import re
from typing import Any

import pytest

from sahool_dlq.deadletter.subjects import covers
from sahool_dlq.doctor.diagnosis import Diagnosis, as_nagios, as_prometheus, diagnosis_of
from sahool_dlq.doctor.facts import Account, Consumer, Heard, Stream
from sahool_dlq.doctor.fate import fate
from sahool_dlq.doctor.finding import Finding, Severity
from sahool_dlq.doctor.rules import OF_ACCOUNT, OF_CONSUMERS, OF_STREAMS, diagnose
from sahool_dlq.jetstream.streams import ADVISORIES
from support import ROOT

S = 1_000_000_000
GIVEN_UP = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c"
LOSES, MAY_LOSE, ADVICE = Severity


def stream(name: str = "S", counts: Any = None, **changes: Any) -> Stream:
    """A stream with limits on a disk; `state` and `cluster` are next to its configuration."""
    beside = {"state": {"messages": 0, "first_seq": 1}} | {
        key: changes.pop(key) for key in ("state", "cluster") if key in changes
    }
    config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", **changes}
    return Stream({"config": config, **beside}, counts or {})


def consumer(of: Stream, figures: Any = None, **changes: Any) -> Consumer:
    """A durable consumer that gives up after three deliveries."""
    defaults = {"durable_name": "c", "ack_policy": "explicit", "max_deliver": 3, "ack_wait": 30 * S}
    return Consumer(of, {"name": "c", "config": defaults | changes, **(figures or {})})


def account(of: Stream, *consumers: Consumer, counts: Any = None, **facts: Any) -> Account:
    """An account in which advisories are kept and read."""
    kept = stream("ADV", counts, subjects=list(ADVISORIES))
    reader = Consumer(kept, {"name": "r", "config": consumer(kept).config})
    return Account((of, kept), (*consumers, reader), **facts)


def found(looked_at: Account) -> dict[str, Finding]:
    """The findings by rule, of which each is about one thing."""
    findings = diagnose(looked_at)
    assert len({each.rule for each in findings}) == len(findings)
    return {each.rule: each for each in findings}


def test_what_is_well_is_not_told() -> None:
    of = stream(max_age=7 * 86_400 * S)
    assert found(account(of, consumer(of))) == {}


CONSUMERS = [
    ("ack-none", LOSES, {"ack_policy": "none"}, {}, {}),
    ("ack-all", LOSES, {"ack_policy": "all"}, {}, {}),
    ("one-delivery", MAY_LOSE, {"max_deliver": 1}, {}, {}),
    ("loops", MAY_LOSE, {"max_deliver": -1}, {}, {}),
    ("loops", MAY_LOSE, {"max_deliver": -1}, {"num_redelivered": 1, "delivered": [109, 100]}, {}),
    ("loops", LOSES, {"max_deliver": -1}, {"num_redelivered": 1, "delivered": [110, 100]}, {}),
    ("retries-outlast-age", MAY_LOSE, {}, {}, {"max_age": 90 * S}),
    ("retries-outlast-age", MAY_LOSE, {"backoff": [S, 2 * S]}, {}, {"max_age": 5 * S}),
    ("paused", MAY_LOSE, {}, {"paused": True, "pause_remaining": 99 * S}, {"max_age": 100 * S}),
    ("paused", LOSES, {}, {"paused": True, "pause_remaining": 101 * S}, {"max_age": 100 * S}),
    ("filter-of-nothing", LOSES, {"filter_subjects": ["S.a", "T.b"]}, {}, {}),
    ("deleted-when-idle", MAY_LOSE, {"inactive_threshold": S}, {}, {}),
    ("consumer-in-memory", MAY_LOSE, {"mem_storage": True}, {}, {}),
    ("redelivered-share", ADVICE, {}, {"delivered": [200, 180]}, {}),
    ("held-in-queue", ADVICE, {}, {}, {"retention": "workqueue"}),
    ("given-up-before", LOSES, {}, {"num_redelivered": 3, "num_ack_pending": 1}, {}),
    (
        "max-ack-pending",
        MAY_LOSE,
        {"max_ack_pending": 2},
        {"num_ack_pending": 2, "num_pending": 1, "num_redelivered": 2},
        {},
    ),
    (
        "removed-undelivered",
        LOSES,
        {},
        {"delivered": [5, 5], "num_pending": 1},
        {"state": {"messages": 1, "first_seq": 9}},
    ),
    (
        "removed-undelivered",
        MAY_LOSE,
        {"filter_subject": "S.a"},
        {"delivered": [5, 5], "num_pending": 1},
        {"state": {"messages": 1, "first_seq": 9}},
    ),
    (
        "nearly-removed",
        MAY_LOSE,
        {},
        {"num_pending": 90},
        {"max_msgs": 100, "state": {"messages": 90, "first_seq": 1}},
    ),
]
WELL = [
    ({"max_deliver": -1, "durable_name": None}, {}, {}),  # of a client, for as long as it runs
    ({}, {}, {"max_age": 91 * S}),
    ({}, {"paused": False}, {}),
    ({}, {"delivered": [199, 180]}, {}),  # too few to decide
    ({}, {"delivered": [300, 280]}, {}),
    ({}, {}, {"retention": "workqueue", "max_age": 3600 * S}),
    ({}, {"num_redelivered": 1, "num_ack_pending": 1}, {}),
    ({"max_ack_pending": 2}, {"num_ack_pending": 2}, {}),  # nothing waits behind them
    ({"max_ack_pending": 2}, {"num_ack_pending": 1, "num_pending": 1, "num_waiting": 1}, {}),
    (
        {"filter_subject": "S.a"},
        {"delivered": [5, 5]},
        {"state": {"messages": 1, "first_seq": 9}},
    ),
    ({}, {"delivered": [8, 8]}, {"state": {"messages": 1, "first_seq": 9}}),
    ({"filter_subject": "X.a"}, {}, {"sources": [{"name": "X"}]}),
    ({"filter_subject": "X.a"}, {}, {"mirror": {"name": "X"}, "subjects": []}),
]


def built(config: Any, figures: Any, of_stream: Any, **facts: Any) -> Account:
    if "delivered" in figures:
        deliveries, place = figures["delivered"]
        figures = figures | {"delivered": {"consumer_seq": deliveries, "stream_seq": place}}
    return account(of := stream(**of_stream), consumer(of, figures, **config), **facts)


@pytest.mark.parametrize(("rule", "severity", "config", "figures", "of_stream"), CONSUMERS)
def test_a_consumer_is_reported(
    rule: str, severity: Severity, config: Any, figures: Any, of_stream: Any
) -> None:
    findings = found(built(config, figures, of_stream))
    assert findings.keys() == {rule}
    assert (findings[rule].severity, findings[rule].subject) == (severity, "S/c")
    assert findings[rule].sentence.endswith(".")


@pytest.mark.parametrize(("config", "figures", "of_stream"), WELL)
def test_on_a_slightly_better_account_nothing_is_reported(
    config: Any, figures: Any, of_stream: Any
) -> None:
    assert found(built(config, figures, of_stream)) == {}


def test_a_consumer_of_our_library_counts_by_itself() -> None:
    of = stream(max_age=3600 * S)
    one = consumer(of, max_deliver=-1)
    for subject, rules in (
        ("sahool.totals.ndvi.c", set()),
        ("sahool.totals.ndvi.S-c", {"loops"}),  # what the bridge counts of one without our code
        ("sahool.totals.ndvi.abc", {"loops"}),
    ):
        totals = stream("SAHOOL_TOTALS", {subject: 1}, subjects=["sahool.totals.>"])
        looked_at = account(of, one)
        looked_at = Account((*looked_at.streams, totals), looked_at.consumers)
        assert found(looked_at).keys() == rules


def test_figures_of_old_servers_prove_nothing() -> None:
    figures = {"num_redelivered": 3, "num_ack_pending": 1}
    assert found(built({}, figures, {}, version=(2, 12))) == {}
    told = built({}, figures, {}, counts={GIVEN_UP: 2})
    assert found(told) == {}


def test_without_a_stream_of_advisories_nothing_is_reported() -> None:
    of = stream(retention="workqueue", max_age=3600 * S)
    findings = found(Account((of,), (consumer(of),)))
    assert {rule: each.severity for rule, each in findings.items()} == {
        "given-up-unheard": LOSES,
        "terminated-unheard": MAY_LOSE,
    }
    assert "'$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>," in findings["given-up-unheard"].command


def test_bare_naks_are_told_as_they_were_heard() -> None:
    of = stream()
    heard = {("S", "c"): Heard(bare_naks=4, most_deliveries=3)}
    [finding] = diagnose(account(of, consumer(of), heard=heard))
    assert finding.rule == "bare-naks"
    assert "(4 just now): a short outage uses up its 3 attempts in" in finding.sentence
    assert found(account(of, consumer(of), heard={("S", "c"): Heard(0, 3)})) == {}
    looping = account(of, consumer(of, max_deliver=-1), heard={("S", "c"): Heard(0, 41)})
    assert "One was delivered 41 times." in found(looping)["loops"].sentence
    assert found(looping)["loops"].severity is LOSES


STREAMS = [
    ("in-memory", MAY_LOSE, {"storage": "memory"}),
    ("one-replica", MAY_LOSE, {"cluster": {"name": "c"}, "num_replicas": 1}),
    ("written-later", MAY_LOSE, {"persist_mode": "async"}),
    ("unconfirmed", MAY_LOSE, {"no_ack": True}),
    ("keeps-latest", MAY_LOSE, {"max_msgs_per_subject": 1}),
    ("queue-drops-work", MAY_LOSE, {"retention": "workqueue", "max_age": 1e12, "max_bytes": 9}),
    ("refuses-when-full", MAY_LOSE, {"discard": "new", "max_bytes": 10, "state": {"bytes": 9}}),
    ("refuses-when-full", LOSES, {"discard": "new", "max_bytes": 10, "state": {"bytes": 10}}),
]


@pytest.mark.parametrize(("rule", "severity", "config"), STREAMS)
def test_a_stream_is_reported(rule: str, severity: Severity, config: Any) -> None:
    of = stream(**config)
    findings = found(account(of, consumer(of)))
    assert findings.keys() == {rule}
    assert (findings[rule].severity, findings[rule].subject) == (severity, "S")


@pytest.mark.parametrize(
    "config",
    [
        {"cluster": {"leader": "one"}, "num_replicas": 1},  # no cluster
        {"cluster": {"name": "c"}, "num_replicas": 3},
        {"retention": "workqueue", "max_age": int(1e12), "max_bytes": 9, "discard": "new"},
        {"discard": "new", "max_bytes": 10, "state": {"bytes": 8}},
        {"max_msgs": 10, "state": {"messages": 10, "first_seq": 1}},  # and nothing waits in it
    ],
)
def test_a_little_better_a_stream_is_well(config: Any) -> None:
    of = stream(**config)
    assert found(account(of, consumer(of))) == {}


def test_events_of_a_queue_that_no_consumer_takes_are_reported() -> None:
    def severity(filters: list[str], counts: Any = None, **config: Any) -> Severity | None:
        given = {"subjects": ["Q.a.*", "Q.b"], "retention": "workqueue", "max_age": 3600 * S}
        of = stream("Q", counts, **given, **config)
        takers = [consumer(of, filter_subject=each) for each in filters]
        looked_at = account(of, *takers, unseen=config.get("unseen", {}))
        return next((f.severity for f in diagnose(looked_at) if f.rule == "queue-unclaimed"), None)

    assert severity([]) is LOSES
    assert severity(["Q.a.*"]) is LOSES
    assert severity(["Q.a.x", "Q.b"]) is MAY_LOSE
    assert severity(["Q.a.x", "Q.b"], {"Q.a.x": 3, "Q.b": 1}) is MAY_LOSE
    assert severity(["Q.a.x", "Q.b"], {"Q.a.y": 3}) is LOSES
    assert severity(["Q.>"]) is severity(["Q.a.>", "Q.b"]) is severity([">"]) is None


def test_what_is_hidden_is_reported_and_not_judged() -> None:
    of = stream("Q", retention="workqueue", max_age=3600 * S)
    hidden = Account((of,), unseen={"CONSUMER.LIST.Q": "no right."})
    [finding] = diagnose(hidden)
    assert (finding.rule, finding.severity, finding.subject) == ("unseen", MAY_LOSE, "account")
    assert not diagnosis_of(hidden).is_losing
    assert diagnosis_of(Account(unseen={"STREAM.LIST": "no right."})).is_losing


def test_the_log_keeps_dead_letters_well() -> None:
    well = {"subjects": ["sahool.dlq.>"], "deny_purge": True, "duplicate_window": 3600 * S}
    for changes, rules in (
        ({}, set()),
        ({"max_age": 7 * 86_400 * S}, set()),
        ({"max_age": 6 * 86_400 * S}, {"log-too-short"}),
        ({"deny_purge": False}, {"log-can-be-emptied"}),
        ({"duplicate_window": 120 * S}, {"log-doubles"}),
        ({"max_msgs_per_subject": 1}, {"log-too-short"}),
        ({"subjects": ["*.dlq.>"], "deny_purge": False}, set()),  # somebody else's
    ):
        of = stream("SAHOOL_DLQ", **(well | changes))
        assert found(account(of)).keys() == rules


def test_the_account_is_near_a_limit_or_has_another_clock() -> None:
    info = {"storage": 90, "streams": 3, "limits": {"max_storage": 100, "max_streams": -1}}
    [finding] = diagnose(Account(info=info))
    assert (finding.rule, finding.severity) == ("near-limits", MAY_LOSE)
    tiers = {"tiers": {"R3": {"streams": 5, "limits": {"max_streams": 5}}}}
    [finding] = diagnose(Account(info=tiers))
    assert (finding.severity, "5 of 5 streams of R3" in finding.sentence) == (LOSES, True)
    [finding] = diagnose(Account(clock_seconds=-90))
    assert "1.5 min behind this machine's" in finding.sentence
    assert diagnose(Account(clock_seconds=29)) == []


@pytest.mark.parametrize(
    ("config", "of_stream", "said"),
    [
        ({"max_deliver": -1}, {}, "It is delivered again every 30 s, for ever."),
        (
            {"max_deliver": -1},
            {"max_age": 86_400 * S},
            "It is delivered again every 30 s, for ever until the stream removes it after 1 d.",
        ),
        (
            {"backoff": [S, 9 * S]},
            {"retention": "workqueue"},
            (
                "After 3 deliveries (19 s without an answer) it is given up and held in the queue"
                " for ever; ADV stores the advisory."
            ),
        ),
        (
            {"max_deliver": 1},
            {"max_age": 86_400 * S},
            (
                "After one delivery (30 s without an answer) it is given up and left in the stream,"
                " undelivered for 1 d; ADV stores the advisory."
            ),
        ),
        (
            {"ack_policy": "none"},
            {},
            "It counts as handled once it is sent: its failure is not noticed.",
        ),
    ],
)
def test_the_fate_of_a_poison_message(config: Any, of_stream: Any, said: str) -> None:
    of = stream(**of_stream)
    one = consumer(of, **config)
    assert fate(account(of, one), one) == said


def test_the_worst_comes_first() -> None:
    of = stream(storage="memory", retention="workqueue")
    findings = diagnose(account(of, consumer(of, ack_policy="none")))
    order = [list(Severity).index(each.severity) for each in findings]
    assert order == sorted(order)
    assert len(set(order)) == 3


def test_names_can_not_break_a_form() -> None:
    odd = Finding("loops", LOSES, 'S/a|b"\n', "x | y.", "c")
    text, status = as_nagios(Diagnosis(1, (odd,), (), is_blind=False))
    assert status == 2
    assert text.splitlines()[0].count("|") == 1
    assert len(text.splitlines()) == 2
    metrics = as_prometheus(Diagnosis(1, (odd,), (), is_blind=False))
    assert r'subject="S/a|b\"\n"' in metrics


@pytest.mark.parametrize(
    ("pattern", "wanted", "covered"),
    [
        ("a.>", "a.>", True),
        ("a.>", "a.*", True),
        (">", "a.b.>", True),
        ("a.*", "a.*", True),
        ("a.*.c", "a.b.c", True),
        ("a.*", "a.>", False),
        ("a.x", "a.*", False),  # a wildcard is no token of this name
        ("a.x.x", "a.>", False),
        ("a.b.>", "a.>", False),
        ("a.*.>", "a.>", False),
        ("a.b", "a.c", False),
    ],
)
def test_a_filter_covers_another(pattern: str, wanted: str, covered: bool) -> None:
    assert covers(pattern, wanted) is covered


def test_every_rule_is_documented_and_none_that_does_not_exist() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    documented = re.findall(r"^\| `([a-z-]+)` \|", page, re.M)
    assert sorted(documented) == sorted([*OF_CONSUMERS, *OF_STREAMS, *OF_ACCOUNT])
