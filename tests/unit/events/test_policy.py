"""The fate of an event after its handler ran."""

import json
import math
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from sahool_dlq.errors import SettingsError
from sahool_dlq.events.config import NATSConsumerConfig, RetryPolicy
from sahool_dlq.events.policy import CRASH_SLACK, decide, is_crash_loop, next_delay
from sahool_dlq.events.results import DeadLetter, HandlerResult, ProcessingResult, Retry

SUCCESS, RETRY, GIVE_UP = ProcessingResult
RAISED = Retry(error=ValueError("boom"))


class ValidationError(ValueError): ...


def rng() -> random.Random:
    return random.Random(1)


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        assert (a, b) == (0.8, 1.2)
        return 1.0


def test_the_defaults_are_those_that_services_know() -> None:
    expected = {
        "servers": [SecretStr("nats://localhost:4222")],
        "stream_name": "SAHOOL_EVENTS",
        "consumer_name": None,
        "subject_filter": "sahool.analysis.*",
        "durable": True,
        "max_retries": 3,
        "retry_delay_seconds": 5,
        "exponential_backoff": True,
        "dlq_enabled": True,
        "dlq_subject_prefix": "sahool.dlq",
        "reconnect_time_wait": 2,
        "max_reconnect_attempts": -1,
    }
    assert NATSConsumerConfig().model_dump(include=set(expected)) == expected


@pytest.mark.parametrize("attempt", [0, 3, 99])
def test_a_success_is_acknowledged_whatever_came_before(attempt: int) -> None:
    assert decide(SUCCESS, attempt, NATSConsumerConfig(), rng()) is None


@pytest.mark.parametrize("outcome", [RETRY, RAISED])
def test_max_retries_means_so_many_retries_after_the_first_call(outcome: HandlerResult) -> None:
    config = NATSConsumerConfig(max_retries=2)
    found = [decide(outcome, attempt, config, rng()) for attempt in range(4)]
    assert [type(each) for each in found] == [Retry, Retry, DeadLetter, DeadLetter]
    assert isinstance(found[2], DeadLetter)
    assert found[2].dlq_reason == "max_retries_exceeded"


def test_without_retries_the_first_failure_is_dead_lettered() -> None:
    config = NATSConsumerConfig(max_retries=0)
    expected = DeadLetter(error=RAISED.error, dlq_reason="max_retries_exceeded")
    assert decide(RAISED, 0, config, rng()) == expected


def test_a_handler_that_gives_up_is_believed_at_once() -> None:
    assert decide(GIVE_UP, 0, NATSConsumerConfig(), rng()) == DeadLetter()
    said = DeadLetter("no such sensor", KeyError("s1"), "unknown_sensor")
    assert decide(said, 0, NATSConsumerConfig(), rng()) == said


def test_delays_double_up_to_the_longest() -> None:
    config = NATSConsumerConfig(retry_delay_seconds=5, max_retry_delay_seconds=100)
    delays = [next_delay(attempt, config, NoJitter()) for attempt in range(7)]
    assert delays == [5, 10, 20, 40, 80, 100, 100]


def test_delays_without_backoff_stay_the_same() -> None:
    config = NATSConsumerConfig(retry_delay_seconds=5, exponential_backoff=False)
    assert {next_delay(attempt, config, NoJitter()) for attempt in range(5)} == {5}


@given(st.integers(0, 10_000), st.integers(), st.floats(0, 1e6), st.floats(0, 1e6))
def test_delays_are_never_longer_than_the_longest_nor_negative(
    attempt: int, seed: int, first: float, longest: float
) -> None:
    config = NATSConsumerConfig(retry_delay_seconds=first, max_retry_delay_seconds=longest)
    assert 0 <= next_delay(attempt, config, random.Random(seed)) <= longest


def test_jitter_is_a_fifth_either_way() -> None:
    config = NATSConsumerConfig(retry_delay_seconds=10, max_retry_delay_seconds=1_000)
    source = rng()
    delays = [next_delay(0, config, source) for _ in range(500)]
    assert all(8 <= delay <= 12 for delay in delays)
    assert max(delays) - min(delays) > 3


def test_a_retry_waits_as_long_as_next_delay_says() -> None:
    config = NATSConsumerConfig()
    assert decide(RETRY, 1, config, rng()) == Retry(delay_seconds=next_delay(1, config, rng()))


def test_only_calls_beyond_all_retries_and_the_slack_are_a_crash_loop() -> None:
    assert not is_crash_loop(3 + CRASH_SLACK, 3)
    assert is_crash_loop(3 + 1 + CRASH_SLACK, 3)


@pytest.mark.parametrize("seconds", [0, 0.5, 3_600])
def test_a_handler_may_choose_its_delay(seconds: float) -> None:
    asked = Retry("told to wait", delay_seconds=seconds)
    assert decide(asked, 0, NATSConsumerConfig(), rng()) == asked


@pytest.mark.parametrize("delay", [math.inf, math.nan, "5", timedelta(seconds=5)])
def test_a_delay_that_is_no_number_of_seconds_is_refused(delay: Any) -> None:
    with pytest.raises(ValueError, match="delay_seconds is a number of seconds, not"):
        Retry(delay_seconds=delay)


@pytest.mark.parametrize("prefix", ["sahool.deadletters", "dlq", "sahool.dlq.", "a.b.dlq", "*.dlq"])
def test_a_prefix_of_dead_letters_that_no_stream_would_hold_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="dlq_subject_prefix"):
        NATSConsumerConfig(dlq_subject_prefix=prefix)


def test_a_delay_of_the_handlers_own_gives_no_retry_more() -> None:
    found = decide(Retry("busy", delay_seconds=1), 3, NATSConsumerConfig(max_retries=3), rng())
    assert found == DeadLetter("busy", dlq_reason="max_retries_exceeded")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (json.JSONDecodeError("no", "{", 1), "json_decode_error"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "unicode_error"),
        (ValidationError("no"), "validation_error"),
        (
            type("TooOldError", (type("ValidationError", (ValueError,), {}),), {})(),
            "validation_error",
        ),
    ],
)
def test_fatal_errors_are_dead_lettered_at_once_with_their_own_reason(
    error: Exception, reason: str
) -> None:
    said = Retry(error=error)
    assert decide(said, 0, NATSConsumerConfig(), rng()) == DeadLetter(None, error, reason)


def test_the_fatal_list_is_a_setting() -> None:
    config = NATSConsumerConfig(fatal_error_types=("LookupError",))
    assert isinstance(decide(Retry(error=KeyError("x")), 0, config, rng()), DeadLetter)
    assert isinstance(decide(Retry(error=ValueError("x")), 0, config, rng()), Retry)


POLICIES = NATSConsumerConfig(
    name="ndvi-service",
    max_retries=3,
    policies=(
        RetryPolicy(event_type="ndvi_*", max_retries=5, retry_delay_seconds=1),
        RetryPolicy(error_type="TimeoutError", max_retries=8, exponential_backoff=False),
        RetryPolicy(service="billing-*", max_retries=99),
        RetryPolicy(event_type="ndvi_late", error_type="OSError", fatal_error_types=("OSError",)),
    ),
)


@pytest.mark.parametrize(
    ("event_type", "error", "expected"),
    [
        ("soil", None, (3, 5, True)),
        ("ndvi_computed", None, (5, 1, True)),
        ("ndvi_computed", ValueError(), (5, 1, True)),
        ("soil", TimeoutError(), (8, 5, False)),
        ("ndvi_computed", TimeoutError(), (8, 1, False)),
    ],
)
def test_policies_that_apply_add_up_and_later_ones_win(
    event_type: str, error: Exception | None, expected: tuple[int, float, bool]
) -> None:
    found = POLICIES.in_force(event_type, error)
    assert expected == (found.max_retries, found.retry_delay_seconds, found.exponential_backoff)


def test_a_policy_may_make_an_error_fatal() -> None:
    error = ConnectionError("gone")
    for event_type, expected in (("ndvi_late", DeadLetter), ("ndvi_computed", Retry)):
        config = POLICIES.in_force(event_type, error)
        assert type(decide(Retry(error=error), 0, config, rng())) is expected


def test_an_event_is_no_crash_loop_while_some_error_could_give_it_retries() -> None:
    assert POLICIES.most_retries("soil") == 8
    assert NATSConsumerConfig(max_retries=2).most_retries("soil") == 2


def test_settings_and_policies_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "consumer.toml"
    file.write_text(
        """
        name = "ndvi-service"
        max_retries = 1
        fatal_error_types = ["LookupError"]

        [[policies]]
        event_type = "ndvi_*"
        max_retries = 7
        """
    )
    config = NATSConsumerConfig.from_file(file, max_concurrency=8)
    assert (config.name, config.max_retries, config.max_concurrency) == ("ndvi-service", 1, 8)
    assert config.fatal_error_types == ("LookupError",)
    assert config.in_force("ndvi_computed").max_retries == 7


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("max_retries = -1", "max_retries is not valid"),
        ("retries = 3", "retries is not a known setting of a consumer"),
        ("[[policies]]\nevent = 'x'", "policies.0.event is not valid"),
        ("max_retries = ", "cannot be read"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_a_sentence(
    tmp_path: Path, text: str, what: str
) -> None:
    file = tmp_path / "consumer.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=what):
        NATSConsumerConfig.from_file(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        NATSConsumerConfig.from_file(tmp_path / "absent.toml")
