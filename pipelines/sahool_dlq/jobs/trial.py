"""The complete job that tries a handler on failed events: nothing is published or stored.

The handler runs in a separate process (`reproduce.worker`), once for each event.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import Connection

from sahool_dlq.errors import TrialError
from sahool_dlq.events.trial import as_message
from sahool_dlq.jobs.payloads import RawReading, reading_raw
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.opened import (
    OpenFailure,
    consumers_of_handler,
    open_failures,
    open_of_handler,
    open_of_selection,
)
from sahool_dlq.reproduce.pytest_file import MOST_EVENTS, masked, text_of_test, write_test
from sahool_dlq.reproduce.raw import Missing, Place, RawEvent
from sahool_dlq.reproduce.successes import NoSuccessesError, sampled_successes, undrained_count
from sahool_dlq.reproduce.verdict import GroupTrial, Kind, Successes, TrialReport, Tried, fail_alike
from sahool_dlq.reproduce.worker import Called, Worker
from sahool_dlq.settings import Settings

__all__ = ["Trial", "try_handler"]


@dataclass(frozen=True, slots=True)
class Trial:
    """The parameters of a trial."""

    handler: str  # module:function
    folder: Path  # of the working copy
    selection: Selection | None  # None: all that is open and failed in a function of that name
    of_each: int = 50  # events of each group
    successes: int = 0  # events that succeeded, to be called again
    seconds: float = 30  # for one call
    attempt: int | None = None  # instead of that of the last call
    python: str | None = None  # of the service's environment
    is_debugged: bool = False
    tests: Path | None = None  # folder for pytest files
    actor: str = ""
    reason: str = ""
    progress: Callable[[int, int], object] | None = None  # events that were called, and in all


async def try_handler(settings: Settings, trial: Trial) -> TrialReport:
    """Call the handler with each event; the reader is in the audit before.

    Raises TrialError if the handler cannot be loaded, or no event can be read, and as `reading_raw`
    does.
    """
    python = {"python": trial.python} if trial.python else {}
    with Worker(
        trial.handler,
        trial.folder,
        seconds=trial.seconds,
        is_debugged=trial.is_debugged,
        **python,
    ) as worker:
        async with reading_raw(
            settings, "payload.tried", actor=trial.actor, reason=trial.reason
        ) as reading:
            return await _Run(settings, trial, worker, reading).all()


_MOST_LATE = 5  # calls of a group in a row that took too long: the others are not tried
_MAX_RETRIES = 3  # unknown for a successful event


class _Run:
    def __init__(
        self, settings: Settings, trial: Trial, worker: Worker, reading: RawReading
    ) -> None:
        self._settings = settings
        self._trial = trial
        self._worker = worker
        self._reading = reading
        self._rules = settings.rules.grouping
        self._redactor = settings.redactor(settings.rules)
        self._decoders = settings.decoders(settings.rules)
        self._folder = trial.folder.absolute()
        self._called = self._total = 0
        self._tests: list[str] = []
        self._untested: dict[str, str] = {}

    async def all(self) -> TrialReport:
        connection, selection = self._reading.connection, self._trial.selection
        condition = (
            open_of_handler(connection, self._worker.name)
            if selection is None
            else open_of_selection(selection)
        )
        failures = open_failures(connection, condition, self._trial.of_each)
        if not failures and selection is not None:
            raise TrialError("No open failure matches: `dlq groups` lists what is open.")
        sampled, why_none = await self._sampled(failures)
        self._total = len(failures) + len(sampled)
        groups = [await self._group(group) for group in _by_group(failures)]
        if groups and not any(group.tried for group in groups) and selection is not None:
            reasons = {reason for group in groups for reason in group.missing}
            raise TrialError(f"No event can be read any more: {'; '.join(sorted(reasons))}.")
        successes = await self._successes(sampled, why_none) if self._trial.successes else None
        return TrialReport(
            self._trial.handler,
            tuple(groups),
            successes,
            _known(connection, groups),
            await undrained_count(self._settings, self._reading.client, connection)
            if successes
            else 0,
            tuple(self._tests),
            self._untested,
        )

    async def _group(self, failures: Sequence[OpenFailure]) -> GroupTrial:
        tried: list[Tried] = []
        failing: list[tuple[RawEvent, OpenFailure, Called]] = []
        missing = Counter[str]()
        late = 0  # calls in a row
        each = iter(failures)
        detail = {"group_id": failures[0].group_id, "handler": self._trial.handler}
        async for found in self._reading.each([each.place for each in failures], detail):
            failure = next(each)
            if isinstance(found, Missing):
                missing[found.reason] += 1
                continue
            if late == _MOST_LATE:
                missing[f"not tried, since {late} calls in a row took too long"] += 1
                self._tell()
                continue
            called = await self._call(found, failure.attempt, failure.max_retries)
            late = late + 1 if called.is_late else 0
            self._tell()
            tried.append(Tried(found.failure_id, called))
            if called.result != "success" and len(failing) < 4 * MOST_EVENTS:
                failing.append((found, failure, called))
        passed = sum(each.called.result == "success" for each in tried)
        first = failures[0]
        group = GroupTrial(
            first.group_id,
            first.error_type,
            first.service,
            first.open_count,
            len(tried),
            passed,
            self._alike(tried),
            dict(missing),  # `asdict` of the report cannot copy a Counter
        )
        if self._trial.tests is not None:
            await self._write_test(self._trial.tests, group, failing)
        return group

    async def _call(self, event: RawEvent, attempt: int, max_retries: int) -> Called:
        message = as_message(
            subject=event.subject,
            data=event.body,
            headers=event.headers,
            attempt=self._attempt(attempt),
            max_retries=max_retries,
            stream=event.stream,
            sequence=event.sequence,
            published_at=event.published_at and event.published_at.isoformat(),
        )
        return await asyncio.to_thread(self._worker.call, message)

    def _attempt(self, last: int) -> int:
        return last if self._trial.attempt is None else self._trial.attempt

    def _tell(self) -> None:
        self._called += 1
        if self._trial.progress is not None:
            self._trial.progress(self._called, self._total)

    def _alike(self, tried: Sequence[Tried]) -> tuple[Kind, ...]:
        return fail_alike(tried, self._redactor, self._rules, self._folder)

    async def _sampled(self, failures: Sequence[OpenFailure]) -> tuple[list[Place], str | None]:
        """Successes of the consumers that failed, or why there are none."""
        addresses = sorted({each.address for each in failures if each.address})
        if not self._trial.successes:
            return [], None
        if not addresses and self._trial.selection is None:
            addresses = consumers_of_handler(self._reading.connection, self._worker.name)
        if not addresses:
            return [], "no failure names its consumer"
        found: list[Place] = []
        reasons: list[str] = []
        for number, address in enumerate(addresses):
            share = (self._trial.successes - len(found)) // (len(addresses) - number)
            try:
                places = await sampled_successes(
                    self._reading.client, self._reading.connection, address, max(share, 1)
                )
            except NoSuccessesError as error:
                reasons.append(str(error))
                continue
            found += places
            if not places:
                reasons.append(f"the stream of {address} has no event that it handled")
        return found, None if found else "; ".join(reasons)

    async def _successes(self, sampled: Sequence[Place], why_none: str | None) -> Successes:
        tried: list[Tried] = []
        detail = {"handler": self._trial.handler}
        async for event in self._reading.each(sampled, detail, are_failures=False):
            if isinstance(event, RawEvent):  # else it left its stream meanwhile
                called = await self._call(event, 0, _MAX_RETRIES)
                tried.append(Tried(f"{event.stream}/{event.sequence}", called))
                self._tell()
        passed = sum(each.called.result == "success" for each in tried)
        return Successes(len(tried), passed, self._alike(tried), why_none)

    async def _write_test(
        self,
        folder: Path,
        group: GroupTrial,
        failing: Sequence[tuple[RawEvent, OpenFailure, Called]],
    ) -> None:
        """Only with events that fail as before when masked: otherwise it proves nothing."""
        chosen: list[tuple[RawEvent, int, int]] = []
        for event, failure, called in failing:
            shown = masked(event, self._redactor, self._decoders)
            if shown is None or len(chosen) == MOST_EVENTS:
                continue
            again = await self._call(shown, failure.attempt, failure.max_retries)
            before, after = (self._alike([Tried("", each)]) for each in (called, again))
            if after and after[0].group_id == before[0].group_id:
                chosen.append((shown, self._attempt(failure.attempt), failure.max_retries))
        if not chosen:
            self._untested[group.group_id] = (
                "it does not fail"
                if not failing
                else "none of its events fails as before when masked"
            )
            return
        text = text_of_test(
            self._trial.handler, group.group_id, group.error_type, chosen, self._trial.seconds
        )
        self._tests.append(str(write_test(folder, group.group_id, text)))


def _by_group(failures: Sequence[OpenFailure]) -> Iterator[list[OpenFailure]]:
    groups: dict[str, list[OpenFailure]] = {}
    for each in failures:
        groups.setdefault(each.group_id, []).append(each)
    yield from groups.values()


def _known(connection: Connection[Any], groups: Sequence[GroupTrial]) -> dict[str, int]:
    """Open failures of the groups into which calls fell."""
    ids = {kind.group_id for group in groups for kind in group.kinds}
    rows = connection.execute(
        "SELECT group_id, count(*) FILTER (WHERE is_open)"
        " FROM failures WHERE group_id = ANY(%s) GROUP BY 1",
        [sorted(ids)],
    )
    return dict(rows.fetchall())
