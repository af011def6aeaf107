"""What becomes of an event after its handler ran."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events.config import NATSConsumerConfig, ProcessingResult
from pipelines.events.policy import (
    CRASH_SLACK,
    Acknowledge,
    DeadLetter,
    Outcome,
    Retry,
    decide,
    is_crash_loop,
    next_delay,
)

SUCCESS = Outcome(ProcessingResult.SUCCESS)
RETRY = Outcome(ProcessingResult.RETRY)
GIVE_UP = Outcome(ProcessingResult.DEAD_LETTER)
RAISED = Outcome(ProcessingResult.RETRY, ValueError("boom"))


def rng() -> random.Random:
    return random.Random(1)


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        assert (a, b) == (0.8, 1.2)
        return 1.0


@pytest.mark.parametrize("attempt", [0, 3, 99])
def test_a_success_is_acknowledged_whatever_came_before(attempt: int) -> None:
    assert decide(SUCCESS, attempt, NATSConsumerConfig(), rng()) == Acknowledge()


@pytest.mark.parametrize("outcome", [RETRY, RAISED])
def test_max_retries_means_so_many_retries_after_the_first_call(outcome: Outcome) -> None:
    config = NATSConsumerConfig(max_retries=2)
    found = [decide(outcome, attempt, config, rng()) for attempt in range(4)]
    assert [type(each) for each in found] == [Retry, Retry, DeadLetter, DeadLetter]
    assert found[2] == DeadLetter("max_retries_exceeded")


def test_without_retries_the_first_failure_is_dead_lettered() -> None:
    config = NATSConsumerConfig(max_retries=0)
    assert decide(RAISED, 0, config, rng()) == DeadLetter("max_retries_exceeded")


def test_a_handler_that_gives_up_is_believed_at_once() -> None:
    assert decide(GIVE_UP, 0, NATSConsumerConfig(), rng()) == DeadLetter("handler_dead_letter")


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
    assert decide(RETRY, 1, config, rng()) == Retry(next_delay(1, config, rng()))


def test_only_deliveries_beyond_all_retries_and_the_slack_are_a_crash_loop() -> None:
    config = NATSConsumerConfig(max_retries=3)
    assert not is_crash_loop(3 + 1 + CRASH_SLACK, config)
    assert is_crash_loop(3 + 1 + CRASH_SLACK + 1, config)
