"""The report as a job: what the flow, `dlq report` and the demo call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from pipelines.analysis.report import Section
from pipelines.analysis.sections import NEEDED_MARTS, sections
from pipelines.errors import ReportError
from pipelines.jobs import compute_marts
from pipelines.settings import Settings

__all__ = ["Report", "make_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """How things stood at one time."""

    now: datetime
    frames: Mapping[str, pl.DataFrame]  # the marts that it is made of, and `log`
    sections: list[Section]

    def write_page(self, file: Path) -> None:
        """Write the page with charts; raises ReportError where that can not be done."""
        try:
            from pipelines.analysis.page import as_html  # its drawing package loads for a second

            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(as_html(self.frames, self.sections, self.now), encoding="utf-8")
        except OSError as error:
            raise ReportError(f"{file} was not written: {error.strerror}.") from error


def make_report(settings: Settings, now: datetime) -> Report:
    """The report as of `now`, from the lake alone."""
    frames = compute_marts(settings, NEEDED_MARTS, now)
    return Report(now, frames, sections(frames, now))
