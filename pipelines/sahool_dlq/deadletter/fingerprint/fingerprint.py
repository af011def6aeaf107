"""Failure groups: which dead letters are the same failure.

A group is made from the chain of exceptions, the frames nearest to the exception, the type and the
template of the message. Service and tenant are not included, so a failure of several services is
one group. A user's rules (`grouping`) apply before and after the built-in algorithm. Increase
`FINGERPRINT_VERSION` whenever a text may get another group than before; `dlq regroup` then
recomputes stored rows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from sahool_dlq.deadletter.fingerprint.cause import PLACEHOLDER, message_in, parts_of
from sahool_dlq.deadletter.fingerprint.distinct import per_distinct
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.fingerprint.stack_trace import Trace, read_outline, read_trace
from sahool_dlq.deadletter.fingerprint.template import template, templates
from sahool_dlq.deadletter.fingerprint.traces.languages import (
    PART_END,
    language_named,
    outlines,
    recognised,
)

__all__ = ["FINGERPRINT_VERSION", "Fingerprint", "add_fingerprint", "fingerprint"]

FINGERPRINT_VERSION = 8

_PYTHON = 'Traceback (most recent call last):\n  File "'


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The parts that identify a failure, and its hashes."""

    group_id: str  # 16 hexadecimal digits
    parent_id: str  # 16 hexadecimal digits; the wider group, alike in chain and frames
    cause_id: str  # 16 hexadecimal digits; what a library raised, whoever called it (`cause`)
    error_class: str  # last dotted segment of the error type
    template: str  # the message with its variables replaced
    frames: tuple[str, ...]  # `module:function`, nearest the raise first


def fingerprint(error_type: str, error_message: str, stack_trace: str | None) -> Fingerprint:
    """The group of one failure, without the user's rules."""
    trace = read_trace(stack_trace or "")
    text = cause_text = template(error_message)
    if printed := trace.cause.printed(_class_of(error_type)):
        cause_text = template(_message_in(stack_trace or "", printed))
    return _by_recipe(error_type, text, trace, cause_text)


def add_fingerprint(frame: pl.DataFrame, rules: GroupingRules | None = None) -> pl.DataFrame:
    """`frame` with the columns of `FINGERPRINT_COLUMNS`; each row equals `fingerprint`.

    Messages and traces are reduced by column to template and outline. Many failures of one kind
    have many messages but one template and one outline, so only few rows are hashed one by one.
    """
    rules = rules or GroupingRules()
    traces, read = _traces(frame, rules)
    text = templates(rules.replaced(frame["error_message"])).alias("template")
    reduced = pl.DataFrame(
        [
            frame["error_type"],
            text,
            traces,
            _cause_texts(frame, rules, text, traces, read),
            _forced(frame, rules),
        ]
    )
    return frame.with_columns(per_distinct(reduced, partial(_fingerprints, rules, read)))


def _traces(frame: pl.DataFrame, rules: GroupingRules) -> tuple[pl.Series, list[Trace]]:
    """The distinct traces as they were read, and of each row the number of its trace."""
    outlined = _outlines(frame)
    frame_rules, read = rules.frames, []

    def numbered(distinct: pl.DataFrame) -> pl.DataFrame:
        for language, outline in distinct.iter_rows():
            parts = outline.split(PART_END)
            read.append(read_outline(parts, language_named(language), frame_rules))
        return pl.DataFrame({"trace": range(len(read))}, schema={"trace": pl.UInt32})

    return per_distinct(outlined, numbered)["trace"], read


def _cause_texts(
    frame: pl.DataFrame,
    rules: GroupingRules,
    own: pl.Series,
    traces: pl.Series,
    read: Sequence[Trace],
) -> pl.Series:
    """The template of the cause's message: `own`, the failure's, or that of an exception below.

    The latter stands only in the trace.
    """
    kinds = pl.DataFrame({"error_type": frame["error_type"], "trace": traces})

    def names(distinct: pl.DataFrame) -> pl.DataFrame:
        found = [read[number].cause.printed(_class_of(kind)) for kind, number in distinct.rows()]
        return pl.DataFrame({"name": found}, schema={"name": pl.String})

    printed = per_distinct(kinds, names)["name"]
    rows = (printed != "").arg_true()
    texts = own.alias("cause_text")
    if rows.is_empty():
        return texts
    pairs = zip(frame["stack_trace"][rows], printed[rows], strict=True)
    messages = pl.Series([_message_in(trace or "", name) for trace, name in pairs], dtype=pl.String)
    return texts.scatter(rows, templates(rules.replaced(messages)))


def _message_in(stack_trace: str, name: str) -> str:
    return message_in(recognised(stack_trace).text, name)


def _outlines(frame: pl.DataFrame) -> pl.DataFrame:
    """Language and outline of each trace.

    A Python trace ends with its message, which differs in each dead letter, while the rest is
    repeated. If the message cannot add anything to the outline, it is left out.
    """
    message = pl.col("error_message")
    rest = pl.col("stack_trace").str.strip_chars_end("\n").str.strip_suffix(message)
    is_whole = rest.str.contains(r"(?:^|\n)[A-Za-z_$][A-Za-z0-9_$.]*: $")  # Type:
    is_plain = rest.str.starts_with(_PYTHON) & is_whole & (message.str.split("\n").list.len() == 1)
    traces = frame.select(trace=pl.when(is_plain).then(rest).otherwise("stack_trace").fill_null(""))
    return per_distinct(traces, lambda distinct: outlines(distinct["trace"]))


def _forced(frame: pl.DataFrame, rules: GroupingRules) -> pl.Series:
    if not rules.group:
        return pl.Series("forced", [None], dtype=pl.String).new_from_index(0, frame.height)
    keys = frame.select("error_type", "error_message", "stack_trace")
    return per_distinct(keys, lambda t: t.select(forced=rules.forced()))["forced"]


def _fingerprints(
    rules: GroupingRules, traces: Sequence[Trace], reduced: pl.DataFrame
) -> pl.DataFrame:
    merged, prints = rules.merged, []
    for error_type, text, trace, cause_text, forced in reduced.iter_rows():
        found = _by_recipe(error_type, text, traces[trace], cause_text)
        if forced is not None:
            found = _named(found, *forced.split("\x1f", 1))
        elif found.group_id in merged:
            name = merged[found.group_id]
            found = _named(found, name, name)
        prints.append(found)
    return pl.DataFrame(
        {
            "group_id": [p.group_id for p in prints],
            "parent_id": [p.parent_id for p in prints],
            "cause_id": [p.cause_id for p in prints],
            "fingerprint_version": [FINGERPRINT_VERSION] * len(prints),
            "fingerprint_rules": [rules.hash] * len(prints),
            "error_class": [p.error_class for p in prints],
            "template": [p.template for p in prints],
            "frames": [" < ".join(p.frames) for p in prints],
        },
        schema_overrides={"fingerprint_version": pl.Int64, "fingerprint_rules": pl.String},
    )


def _by_recipe(error_type: str, text: str, trace: Trace, cause_text: str) -> Fingerprint:
    error_class = _class_of(error_type)
    where = ["\x1f".join(trace.chain or (error_class,)), "\x1f".join(trace.frames)]
    return Fingerprint(
        # The kind of value does not matter: an id may be a number or a UUID.
        group_id=_digest("group", *where, error_class, PLACEHOLDER.sub("<>", text)),
        parent_id=_digest("parent", *where) if trace.frames else _digest("type", error_class),
        cause_id=_digest("cause", *parts_of(trace.cause, error_class, cause_text)),
        error_class=error_class,
        template=text,
        frames=trace.frames,
    )


def _class_of(error_type: str) -> str:
    return error_type.rpartition(".")[2]


def _named(found: Fingerprint, rule: str, name: str) -> Fingerprint:
    """The same failure in a group that a rule names."""
    return replace(
        found, group_id=_digest("rule", name), parent_id=_digest("rule", rule), template=name
    )


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x1e".join(parts).encode(), digest_size=8).hexdigest()
