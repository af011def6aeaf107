"""What the notebooks begin with: which lake, as of now, and charts that need no network."""

from datetime import UTC, datetime
from pathlib import Path

import altair as alt

from sahool_dlq.errors import LakeError
from sahool_dlq.jobs.marts import Frames, compute_marts
from sahool_dlq.settings import Settings, is_given, load_settings

__all__ = ["open_lake", "read_marts"]

_PLACES = (".dlq/lake", ".dlq/demo/lake")


def open_lake() -> Settings:
    """The settings of the lake to look at, with charts drawn as SVG.

    It is DLQ_LAKE_URI's; else the lake of `dlq up`, or the demo's, here or in a folder above.
    Raises LakeError where there is none.
    """
    alt.renderers.enable("svg")
    settings = load_settings()
    if is_given(settings, "lake_uri"):
        return settings
    for folder in (Path.cwd(), *Path.cwd().parents):
        for place in _PLACES:
            if (folder / place / "dead_letters").is_dir():
                return load_settings(lake_uri=str(folder / place))
    raise LakeError("There is no lake here: run `make demo`, or say where it is (DLQ_LAKE_URI).")


def read_marts(settings: Settings, *names: str) -> tuple[Frames, datetime]:
    """These marts, computed from the lake as of now, and that time."""
    now = datetime.now(UTC)
    return compute_marts(settings, names, now), now
