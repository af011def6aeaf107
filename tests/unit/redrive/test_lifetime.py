"""The remaining lifetime of an event, by its TTL and its age."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahool_dlq.redrive.lifetime import (
    TTL,
    TooLateError,
    age_in_words,
    check_age,
    remaining_ttl,
    ttl_of,
    ttl_seconds,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60),
        ("1h", 3_600),
        ("1h30m", 5_400),
        ("1.5s", 1.5),
        ("2s500ms", 2.5),
        ("1500000µs", 1.5),
        ("1500000us", 1.5),
        *((text, None) for text in ("never", "0", "0s", "", "-5", "1 h", "h", "1d", "٣")),
    ],
)
def test_a_ttl_is_read_as_the_server_does(text: str, seconds: float | None) -> None:
    assert ttl_seconds(text) == pytest.approx(seconds)


@given(st.integers(1, 10**9), st.floats(0, 2e9))
def test_an_event_never_lives_longer_than_its_producer_wanted(seconds: int, age: float) -> None:
    since = NOW - timedelta(seconds=age)
    try:
        left = int(str(remaining_ttl(str(seconds), since, NOW)[TTL]))
    except TooLateError:
        assert seconds - age < 1.001
    else:
        assert left >= 1
        assert seconds - age - 1.001 < left <= seconds - age + 1e-3


def test_what_has_no_end_keeps_none() -> None:
    long_ago = NOW - timedelta(days=9_000)
    assert remaining_ttl(None, long_ago, NOW) == {}
    assert remaining_ttl("never", long_ago, NOW) == {TTL: "never"}
    assert remaining_ttl("soon", long_ago, NOW) == {}  # the server would refuse it
    assert remaining_ttl("5", NOW + timedelta(hours=1), NOW) == {TTL: "5"}  # a clock ahead


def test_only_the_servers_spelling_counts_and_of_several_the_first() -> None:
    assert ttl_of({"Nats-TTL": "5"}) == "5"
    assert ttl_of({"Nats-TTL": ["5", "6"]}) == "5"
    assert ttl_of({"nats-ttl": "5"}) is None


def test_the_reason_says_how_old_it_is() -> None:
    since = NOW - timedelta(days=8)
    with pytest.raises(TooLateError, match="is 8 days old, and 7 days are the most"):
        check_age(7 * 86_400, since, NOW)
    check_age(8 * 86_400, since, NOW)
    check_age(None, since, NOW)
    with pytest.raises(TooLateError, match=r"is 8 days old, and its producer allows 60 minutes"):
        remaining_ttl("1h", since, NOW)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "5 seconds"), (119, "119 seconds"), (150, "2.5 minutes"), (7_200, "2 hours")],
)
def test_ages_in_words(seconds: float, words: str) -> None:
    assert age_in_words(seconds) == words
