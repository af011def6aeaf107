"""The template of an error message: the message with its variables replaced.

One message in Python, or a column in Polars: the same steps (`template_steps`), the same template.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache, partial

import polars as pl

from sahool_dlq.deadletter.fingerprint.distinct import per_distinct
from sahool_dlq.deadletter.fingerprint.template_languages import SIGNS, Step
from sahool_dlq.deadletter.fingerprint.template_steps import STAGES

__all__ = ["MESSAGE_LIMIT", "template", "templates"]

MESSAGE_LIMIT = 2_000
"""Characters of a message that are read: the important part is at its beginning."""

_STEPS_AT_ONCE = 8  # measured: fewer check too often, more try too many in vain


@cache
def _steps(*, is_ascii: bool) -> list[tuple[str, Callable[[str, str], str], str]]:
    """Sign, substitution and replacement of each step; compiled when the first text needs them."""
    stages = [stage for stage in STAGES if not (is_ascii and stage is SIGNS)]
    return [(s.sign, re.compile(s.pattern).sub, s.replacement) for stage in stages for s in stage]


def template(message: str) -> str:
    """The template of one message."""
    text = message[:MESSAGE_LIMIT]
    for sign, substitute, replacement in _steps(is_ascii=text.isascii()):
        if sign in text:
            text = substitute(replacement, text)
    return text.strip(" ")


def templates(messages: pl.Series) -> pl.Series:
    """The template of each message, equal to `template`."""
    frame = messages.str.slice(0, MESSAGE_LIMIT).to_frame("text")
    for stage in STAGES:
        frame = per_distinct(frame, partial(_of_script if stage is SIGNS else _replace, stage))
    return frame["text"].str.strip_chars(" ")


def _of_script(stage: Sequence[Step], frame: pl.DataFrame) -> pl.DataFrame:
    """The texts after a stage that does not change ASCII texts."""
    text = pl.col("text")
    others = frame.select((text.str.len_bytes() != text.str.len_chars()).arg_true())["text"]
    if others.is_empty():
        return frame
    replaced = _replace(stage, frame[others])["text"]
    return frame["text"].scatter(others, replaced).to_frame()


def _replace(stage: Sequence[Step], frame: pl.DataFrame) -> pl.DataFrame:
    """The texts after a stage. Texts that match none of a few steps skip all of them at once."""
    for first in range(0, len(stage), _STEPS_AT_ONCE):
        steps = stage[first : first + _STEPS_AT_ONCE]
        pattern = "|".join(f"(?:{step.pattern})" for step in steps)
        matching = frame.select(pl.col("text").str.contains(pattern).arg_true())["text"]
        if matching.is_empty():
            continue
        text = pl.col("text")
        for step in steps:
            text = text.str.replace_all(step.pattern, _in_rust(step.replacement))
        replaced = frame[matching].select(text)["text"]
        frame = frame["text"].scatter(matching, replaced).to_frame()
    return frame


def _in_rust(replacement: str) -> str:
    return re.sub(r"\\([0-9])", r"${\1}", replacement)
