"""A subscription's counters."""

from sahool_dlq.events.counters import DURATIONS, Counters


def test_a_call_counts_in_the_first_bound_that_it_is_no_longer_than() -> None:
    counters = Counters()
    for seconds in (0, 0.005, 0.0051, 300, 301):
        counters.count_call(seconds)
    assert counters.handled == 5
    assert counters.by_duration == [2, 1, *[0] * (len(DURATIONS) - 3), 1, 1]


def test_what_another_counted_is_added_and_leaves_the_other_alone() -> None:
    one, other = Counters(succeeded=1), Counters(succeeded=2, skipped=3)
    one.count_call(1)
    other.count_call(2)
    one.add(other)
    assert (one.succeeded, one.skipped, one.handled, one.handler_seconds) == (3, 3, 2, 3)
    assert sum(one.by_duration) == 2
    assert (other.succeeded, other.handled, sum(other.by_duration)) == (2, 1, 1)


def test_what_is_published_are_plain_figures() -> None:
    assert Counters(retried=2).sums() == {
        "handled": 0,
        "succeeded": 0,
        "retried": 2,
        "dead_lettered": 0,
        "skipped": 0,
        "ids_taken": 0,
        "handler_seconds": 0,
    }
