"""The job of `dlq try`: a group that hangs, and options that exclude each other."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sahool_dlq.cli import _command
from sahool_dlq.jobs.trial import Trial, _Run
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.opened import OpenFailure
from sahool_dlq.reproduce.raw import Place, RawEvent
from sahool_dlq.reproduce.worker import Called
from sahool_dlq.settings import Settings


class Reading:
    """Has every event."""

    async def each(self, places: Sequence[Place], _: object) -> AsyncIterator[RawEvent]:
        for place in places:
            yield RawEvent(place.failure_id, "a.b", b"{}", {}, "stream")


class Slow:
    """Answers fast and slowly, as it is told."""

    def __init__(self, late: Sequence[bool]) -> None:
        self.late = list(late)

    def call(self, _: object) -> Called:
        is_late = self.late.pop(0)
        return Called("raised", 1, "TimeoutError", "late", is_late=is_late)


@pytest.mark.parametrize(
    ("late", "tried"),
    [
        ([True] * 9, 5),
        ([True, True, True, True, False] + [True] * 4, 9),
        ([False, True, True, True, True, True, True, True, True], 6),
    ],
)
async def test_a_group_whose_calls_hang_is_not_tried_to_its_end(
    late: list[bool], tried: int
) -> None:
    reading: Any = Reading()
    worker: Any = Slow(late)
    failures = [
        OpenFailure(Place(f"f{n}", None, None, None, None, None), "g", "E", "s", None, 1, 3, 9)
        for n in range(9)
    ]
    told: list[int] = []
    trial = Trial("a:b", Path(), Selection(), progress=lambda done, _: told.append(done))
    group = await _Run(Settings(), trial, worker, reading)._group(failures)
    assert group.tried == tried
    missing = {"not tried, since 5 calls in a row took too long": 9 - tried} if tried < 9 else {}
    assert group.missing == missing
    assert told == list(range(1, 10))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--timeout", "inf"), "range"),
        (("--timeout", "nan"), "number of seconds"),
        (("--timeout", "86401"), "range"),
        (("--json", "--pdb"), "--pdb needs the terminal"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    arguments: tuple[str, ...], words: str
) -> None:
    done = CliRunner().invoke(_command(), ["try", "a:b", "--all-open", *arguments])
    assert done.exit_code == 2
    assert words in done.output
