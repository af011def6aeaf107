"""Recognises the language of a trace."""

import re
from typing import NamedTuple

import polars as pl

from sahool_dlq.deadletter.fingerprint.traces.beam import BEAM
from sahool_dlq.deadletter.fingerprint.traces.calls import CALLS, JAVA, JAVASCRIPT
from sahool_dlq.deadletter.fingerprint.traces.dotnet import DOTNET
from sahool_dlq.deadletter.fingerprint.traces.frames import Language
from sahool_dlq.deadletter.fingerprint.traces.go import GO
from sahool_dlq.deadletter.fingerprint.traces.php import PHP
from sahool_dlq.deadletter.fingerprint.traces.python import PYTHON
from sahool_dlq.deadletter.fingerprint.traces.ruby import RUBY
from sahool_dlq.deadletter.fingerprint.traces.rust import RUST
from sahool_dlq.deadletter.fingerprint.traces.wrapped import unwrapped

__all__ = [
    "LANGUAGES",
    "PART_END",
    "Recognised",
    "language_named",
    "outline_of",
    "outlines",
    "recognised",
]

LANGUAGES = (PYTHON, GO, RUST, PHP, RUBY, BEAM, JAVA, DOTNET, JAVASCRIPT)
"""In this order: the first one whose sign is in a text is its language."""

_SIGNS = [(language, re.compile(language.sign).search) for language in LANGUAGES]
_BY_NAME = {language.name: language for language in (*LANGUAGES, CALLS)}
_OUTLINES = {name: re.compile(language.outline).findall for name, language in _BY_NAME.items()}
PART_END = "\n\n"
"""Separates the parts of an outline; no part contains it."""

_LAYERS = 4  # a trace in JSON, in a string, in JSON, in a container's log line


class Recognised(NamedTuple):
    """A trace as its runtime printed it."""

    language: Language
    text: str


def recognised(text: str) -> Recognised:
    """The language of a trace, which may be inside a log line; `CALLS` if none is recognised."""
    layer: str | None = text
    for _ in range(_LAYERS):
        if layer is None:
            break
        if language := _language(layer):
            return Recognised(language, layer)
        layer = unwrapped(layer)
    return Recognised(CALLS, text)


def outline_of(trace: Recognised) -> list[str]:
    """The important parts of the text."""
    return _OUTLINES[trace.language.name](trace.text)


def language_named(name: str) -> Language:
    """The language of a row of `outlines`."""
    return _BY_NAME[name]


def _language(text: str) -> Language | None:
    for language, has_sign in _SIGNS:
        if any(hint in text for hint in language.hints) and has_sign(text):
            return language
    return None


def outlines(traces: pl.Series) -> pl.DataFrame:
    """The results of `recognised` and `outline_of` for each trace: `language`, `outline`.

    A language is its name; the parts of an outline are joined by `PART_END`.
    """
    left = traces.alias("text").to_frame().with_row_index()
    is_empty = pl.col("text") == ""
    done = [left.filter(is_empty).select("index", language=pl.lit(""), outline=pl.lit(""))]
    left = left.filter(~is_empty)
    for language in LANGUAGES:
        if left.is_empty():
            break
        has_sign = _has_sign(left["text"], language)
        if not has_sign.any():  # even an empty column would compile its pattern
            continue
        outline = pl.col("text").str.extract_all(language.outline).list.join(PART_END)
        found = left.filter(has_sign)
        done.append(found.select("index", language=pl.lit(language.name), outline=outline))
        left = left.filter(~has_sign)
    others = [recognised(text) for text in left["text"]]
    read = {
        "language": [trace.language.name for trace in others],
        "outline": [PART_END.join(outline_of(trace)) for trace in others],
    }
    done.append(left.select("index", *(pl.Series(k, v, pl.String) for k, v in read.items())))
    return pl.concat(done).sort("index").drop("index")


def _has_sign(texts: pl.Series, language: Language) -> pl.Series:
    """Only texts with a hint are searched for a slow sign: this is many times faster."""
    if language is PYTHON:  # the most common, and its sign is fast to find
        return texts.str.contains(language.sign)
    hinted = pl.any_horizontal(pl.col("text").str.contains(h, literal=True) for h in language.hints)
    rows = texts.to_frame("text").select(hinted.arg_true()).to_series()
    found = pl.repeat(value=False, n=len(texts), eager=True)
    return found.scatter(rows, texts[rows].str.contains(language.sign)) if len(rows) else found
