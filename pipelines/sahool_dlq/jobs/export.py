"""The complete job that exports failures with their events: masked, or raw with an audit row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from sahool_dlq.connections import open_postgres
from sahool_dlq.jobs.payloads import reading_raw
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.export import (
    RAW_SCHEMA,
    SCHEMA,
    Batches,
    raw_row,
    selected_failures,
    selected_places,
)
from sahool_dlq.reproduce.formats import Format, Writer, writer
from sahool_dlq.reproduce.raw import Missing
from sahool_dlq.settings import Settings

__all__ = ["ExportReport", "Progress", "export", "export_raw"]

Progress = Callable[[int], object]
"""Called with the number of failures written so far."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    failures: int
    missing: int = 0  # whose raw event no longer exists
    limit_reached: bool = False  # more may match


def export(
    settings: Settings,
    selection: Selection,
    form: Format,
    file: BinaryIO,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the failures of a selection, masked as stored."""
    out = _Out(writer(form, SCHEMA, file), Batches(SCHEMA), progress)
    with open_postgres(settings) as connection:
        for part in selected_failures(connection, selection):
            for row in part:
                out.add(row)
    return out.close(selection)


async def export_raw(
    settings: Settings,
    selection: Selection,
    form: Format,
    file: BinaryIO,
    *,
    actor: str,
    reason: str,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the failures of a selection with their original events.

    The audit has every failure before its event is read. Raises as `reading_raw` does.
    """
    out = _Out(writer(form, RAW_SCHEMA, file), Batches(RAW_SCHEMA), progress)
    detail = {"selection": selection.masked(settings.masked).as_json(), "format": form}
    async with reading_raw(settings, "payload.exported", actor=actor, reason=reason) as reading:
        # The audit rows must stay, whatever happens to the reading transaction.
        with open_postgres(settings) as connection:
            for part in selected_places(connection, selection):
                about = iter(part)
                async for found in reading.each([place for place, _ in part], detail):
                    out.missing += isinstance(found, Missing)
                    out.add(raw_row(next(about)[1], found))
    return out.close(selection)


class _Out:
    def __init__(self, target: Writer, batches: Batches, progress: Progress | None) -> None:
        self._writer, self._batches, self._progress = target, batches, progress
        self._count = 0
        self.missing = 0

    def add(self, row: tuple[Any, ...]) -> None:
        self._count += 1
        if batch := self._batches.add(row):
            self._writer.write(batch)
            if self._progress is not None:
                self._progress(self._count)

    def close(self, selection: Selection) -> ExportReport:
        if batch := self._batches.rest():
            self._writer.write(batch)
        self._writer.close()
        return ExportReport(self._count, self.missing, self._count >= selection.limit)
