"""The beginning of all notebooks: which lake, as of when; charts and tables without network."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import vl_convert
from IPython.display import display

from sahool_dlq.analysis.report.page import as_table
from sahool_dlq.analysis.report.readable import readable_section
from sahool_dlq.analysis.report.section import Section, cell_text
from sahool_dlq.errors import LakeError
from sahool_dlq.jobs.lake_views import newest_at
from sahool_dlq.jobs.marts import Frames, compute_marts
from sahool_dlq.settings import Settings, is_given, load_settings

__all__ = ["as_of", "interactive", "open_lake", "read_marts", "table"]

_VEGA_LITE = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
_PLACES = (".dlq/lake", ".dlq/demo/lake", ".dlq/simulated")
_LIVE = timedelta(days=1)  # an older lake is shown as of its own time


@dataclass(frozen=True, slots=True)
class Html:
    """HTML in a notebook."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def open_lake() -> Settings:
    """The settings of the lake to use; from here on charts are interactive.

    It is the lake of DLQ_LAKE_URI; else that of `dlq up`, of the demo, or a simulated one, here or
    in a parent folder. Prints which one, and as of when. Raises LakeError if there is none.
    """
    settings = _found()
    interactive()
    print(f"{settings.lake}, as of {cell_text(as_of(settings))}")
    return settings


def interactive() -> None:
    """From here on charts are interactive."""
    # Once for all charts: each cell's drawing finds it in the page.
    bundle = vl_convert.javascript_bundle(vl_version=_VEGA_LITE)  # type: ignore[call-arg]  # its types lack the argument
    display(Html(f"<script>(function() {{{bundle}}})()</script>"))  # type: ignore[no-untyped-call]  # IPython has no types here
    alt.renderers.register("dlq", _as_html)
    alt.renderers.enable("dlq")


def _found() -> Settings:
    settings = load_settings()
    if is_given(settings, "lake_uri"):
        return settings
    for folder in (Path.cwd(), *Path.cwd().parents):
        for place in _PLACES:
            if (folder / place / "dead_letters").is_dir():
                return load_settings(lake_uri=str(folder / place))
    raise LakeError("There is no lake here: run `make demo`, or say where it is (DLQ_LAKE_URI).")


def as_of(settings: Settings) -> datetime:
    """Now; for a lake without messages for a day, the time of its newest message."""
    now, newest = datetime.now(UTC), newest_at(settings)
    return newest if newest and now - newest > _LIVE else now


def read_marts(
    settings: Settings, *names: str, at: datetime | None = None
) -> tuple[Frames, datetime]:
    """These marts, computed from the lake as of `at`, or of `as_of`; and that time."""
    now = at or as_of(settings)
    return compute_marts(settings, names, now), now


def table(rows: pl.DataFrame | Section, title: str = "") -> Html:
    """Rows for people: durations, shares and times with their units."""
    part = readable_section(rows, title) if isinstance(rows, pl.DataFrame) else rows
    return Html(as_table(part))


def _as_html(spec: dict[str, Any], **_: Any) -> dict[str, str]:
    """A chart for the page that contains the bundle of `open_lake`."""
    name = f"dlq-{uuid.uuid4().hex}"
    text = json.dumps(spec).replace("</", "<\\/")  # no text of a message can end the script
    options = '{mode: "vega-lite", actions: false, renderer: "svg"}'
    draw = f'window.vegaEmbed("#{name}", {text}, {options})'
    return {"text/html": f'<div id="{name}"></div><script>{draw}</script>'}
