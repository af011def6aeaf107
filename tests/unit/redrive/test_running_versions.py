"""Which version of a service runs, and what is done with a group in it."""

from datetime import UTC, datetime, timedelta

import pytest

from sahool_dlq.redrive.choose.policy import Policy
from sahool_dlq.redrive.choose.versions import Process, Standing, judge_version, running

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def process(version: str | None, started: int, last: int, service: str = "ndvi") -> Process:
    """A process that started, and was last heard from, so many minutes after noon."""
    return Process(service, version, *(NOON + timedelta(minutes=m) for m in (started, last)))


@pytest.mark.parametrize(
    ("processes", "version"),
    [
        ([process("2.3", 0, 9)], "2.3"),
        ([process("2.3", 0, 9), process("2.4", 10, 11)], "2.4"),
        ([process("2.4", 0, 9), process("2.3", 10, 11)], "2.3"),  # rolled back
        ([process("2.3", 0, 11), process("2.4", 10, 12)], None),  # both run
        ([process("2.3", 0, 11), process("2.4", 10, 12), process("2.4", 12, 13)], "2.4"),
        ([process("2.4", 0, 11), process("2.4", 10, 12)], "2.4"),  # two alike
        ([process(None, 0, 9)], None),
        ([process("2.3", 0, 9), process(None, 10, 11)], None),
        ([process(None, 0, 11), process("2.4", 10, 12)], None),
    ],
)
def test_the_version_that_runs_is_that_of_the_latest_process(
    processes: list[Process], version: str | None
) -> None:
    others = [process("1.0", 0, 99, service="soil")]
    for order in (processes, processes[::-1]):
        found = running([*order, *others])
        assert found["soil"] == ("1.0", NOON)
        assert found.get("ndvi", (None,))[0] == version


@pytest.mark.parametrize(
    ("cured", "failed", "unanswered", "kind", "why"),
    [
        (0, 0, 0, "canary", "it has never failed in 2.4: one canary"),
        (0, 1, 0, "wait", "2.4 does not repair it: it also failed there"),
        (0, 0, 1, "wait", "a redrive in 2.4 has no outcome"),
        (1, 0, 0, "redrive", "2.4 cured 1 of 1; 312 follow"),
        (1, 3, 0, "redrive", "2.4 cured 1 of 4; 312 follow"),
        (1, 60, 0, "wait", "2.4 cured 1 of 61, too few to continue"),
        (40, 0, 9, "redrive", "2.4 cured 40 of 40; 312 follow"),
    ],
)
def test_a_group_is_tried_once_and_followed_where_that_pays(
    cured: int, failed: int, unanswered: int, kind: str, why: str
) -> None:
    standing = Standing("g", "ndvi", "2.4", 312, cured, failed, unanswered)
    assert judge_version(standing, Policy()) == (kind, why)
