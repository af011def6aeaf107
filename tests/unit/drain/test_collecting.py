"""After a drain, Python's garbage collector has the same settings as before."""

import gc

from sahool_dlq.drain.gc_pause import collecting_rarely


def test_the_collector_rests_in_a_drain_and_no_longer() -> None:
    before = gc.get_threshold()
    with collecting_rarely():
        assert gc.get_threshold()[0] > 10 * before[0]
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_drains_of_one_process_that_overlap_leave_it_as_it_was() -> None:
    before = gc.get_threshold()
    first, second = collecting_rarely(), collecting_rarely()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before
