"""The report as a job: what the flow, `dlq report` and the demo call."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from sahool_dlq.analysis.report import incidents
from sahool_dlq.analysis.report.incidents import Course
from sahool_dlq.analysis.report.section import Section
from sahool_dlq.analysis.report.sections import (
    NEEDED_MARTS,
    as_json,
    headline,
    printable_frames,
    sections,
)
from sahool_dlq.analysis.report.young import MOMENTS_SQL, is_young
from sahool_dlq.connections import open_postgres
from sahool_dlq.errors import DLQError
from sahool_dlq.jobs.care import with_care
from sahool_dlq.jobs.incidents import COURSE_MARTS, course_of
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.marts import compute_marts
from sahool_dlq.jobs.pages import write_page
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.verifications import last_verifications

__all__ = ["Report", "make_report"]

_SHOWN_VERIFICATIONS = 7


@dataclass(frozen=True, slots=True)
class Report:
    """The state at one time."""

    now: datetime
    frames: Mapping[str, pl.DataFrame]  # its marts, `log`, and `moments` of a young log
    sections: list[Section]
    headline: str  # what is worst now, in one sentence
    incident: Course | None = None  # the one that its chart shows

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: the keys end with their unit."""
        return as_json(self.frames, self.now)

    def write_page(self, file: Path) -> None:
        """Write the page with charts; raises ReportError if that fails."""
        from sahool_dlq.analysis.report.page import as_html  # its package loads for a second

        page = as_html(self.frames, self.sections, self.now, self.headline, self.incident)
        write_page(file, page)


def make_report(settings: Settings, now: datetime) -> Report:
    """The report as of `now`, from the lake; the last verification and who owns the groups come
    from PostgreSQL, if it answers.
    """
    frames = compute_marts(settings, [*NEEDED_MARTS, *COURSE_MARTS], now)
    groups = with_care(settings, frames["failure_groups"])
    frames |= printable_frames({"failure_groups": groups})
    if is_young(frames["failures_minutely"], now):
        frames |= printable_frames({"moments": query(settings, MOMENTS_SQL)})
    with suppress(DLQError), open_postgres(settings) as connection:
        kept = last_verifications(connection, _SHOWN_VERIFICATIONS)
        frames |= printable_frames({"verifications": kept})
    shown = incidents.shown(frames["incidents"], now)
    course = course_of(settings, frames, shown, now) if shown else None
    return Report(now, frames, sections(frames, now), headline(frames, now), course)
