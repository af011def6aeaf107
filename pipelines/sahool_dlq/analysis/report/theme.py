"""The look of charts: one set of colours for light and dark, and the conversion of a chart to SVG.

The colours can be distinguished with any colour vision (after Okabe and Ito), and ramps change
lightness in one direction. Every colour of a palette is unique, so that the SVG of a page can
contain names instead: the page's style sheet then sets light or dark.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from sahool_dlq.analysis.report.drawing import draw

__all__ = ["DARK", "LIGHT", "NOTEBOOK", "PHONE", "WIDE", "Look", "as_svgs", "styled"]

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2530",
    "muted": "#5f6b7a",
    "grid": "#e6e9ee",
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "red": "#d55e00",
    "sky": "#56b4e9",
    "purple": "#a8508a",
    "grey": "#a9b1bc",
    "on-red": "#fffffe",
    "ramp1": "#fdebd0",
    "ramp2": "#fbc88b",
    "ramp3": "#f09a55",
    "ramp4": "#d5673a",
    "ramp5": "#a53c35",
    "ramp6": "#691c2c",
}
DARK = {
    "paper": "#14181f",
    "ink": "#e8ebf0",
    "muted": "#a0abb9",
    "grid": "#2a313c",
    "blue": "#4aa3df",
    "orange": "#f0b429",
    "green": "#2bbd93",
    "red": "#f07f3c",
    "sky": "#9bd3f7",
    "purple": "#d48cba",
    "grey": "#687482",
    "on-red": "#14181e",
    "ramp1": "#33262a",
    "ramp2": "#5a2d2f",
    "ramp3": "#8d4034",
    "ramp4": "#c4623c",
    "ramp5": "#ee9450",
    "ramp6": "#ffd18c",
}

FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"
"""Fonts of one width, so that texts fit wherever the chart is drawn and read."""


@dataclass(frozen=True, slots=True)
class Look:
    """The surface for which a chart is drawn."""

    width: int = 600  # pixels of the whole chart
    is_dark: bool = False
    is_interactive: bool = False  # interactive; drawings are not

    def __getitem__(self, name: str) -> str:
        """A colour by its name."""
        return (DARK if self.is_dark else LIGHT)[name]

    @property
    def is_narrow(self) -> bool:
        """Whether there is space only for a few words."""
        return self.width < 450

    @property
    def series(self) -> list[str]:
        """Colours for things without their own colour."""
        return [self[name] for name in ("blue", "orange", "green", "red", "sky", "purple")]

    @property
    def ramp(self) -> list[str]:
        """From little to much."""
        return [self[f"ramp{step}"] for step in range(1, 7)]


WIDE = Look()
PHONE = Look(width=340)
NOTEBOOK = Look(width=1000, is_interactive=True)


def styled(chart: alt.Chart | alt.LayerChart, look: Look, what: str) -> Any:
    """The chart in our style, with the width of the look; `what` is the text above it, with its
    unit.
    """
    text = {"labelColor": look["muted"], "titleColor": look["muted"]}
    return (
        chart.properties(
            title=alt.TitleParams(what, anchor="start"),
            width=look.width,
            background="transparent",
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        .configure(font=FONT, padding=4, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            **text,
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            gridColor=look["grid"],
            domainColor=look["grid"],
            tickColor=look["grid"],
            labelLimit=170 if look.is_narrow else 240,
        )
        .configure_axisY(title=None, domain=False)
        .configure_title(color=look["muted"], fontSize=12, fontWeight="normal", offset=8)
        .configure_legend(
            **text,
            orient="top",
            direction="horizontal",
            title=None,
            labelFontSize=11,
            symbolSize=90,
            symbolType="square",
            columns=2 if look.is_narrow else 4,
            columnPadding=18,
            labelLimit=150,
            offset=10,
        )
    )


def as_svgs(charts: Sequence[alt.Chart | alt.LayerChart]) -> list[str | None]:
    """The charts, drawn without a browser, with the names of `LIGHT` (CSS variables) as colours.

    None for one that could not be drawn.
    """
    with alt.data_transformers.enable("default"), alt.data_transformers.disable_max_rows():
        specs = [chart.to_dict(context={"pre_transform": False}) for chart in charts]
    version = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    names = {colour: name for name, colour in LIGHT.items()}

    def named(found: re.Match[str]) -> str:
        name = names.get(found[1].lower())
        return f'="var(--{name})"' if name else found[0]

    return [svg and re.sub(r'="(#[0-9a-fA-F]{6})"', named, svg) for svg in draw(specs, version)]
