"""Failure groups: which dead letters are the same failure.

A group is made of the chain of exceptions, the frames nearest the raise, the type and the template
of the message. Service and tenant are no part of it, so that a failure which several services share
is one group. Bump `FINGERPRINT_VERSION` whenever a text could get another group than before;
`dlq regroup` then recomputes what is stored.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import polars as pl

from pipelines.deadletter.distinct import per_distinct
from pipelines.deadletter.template import template, templates
from pipelines.deadletter.traces import OUTLINE, Trace, read_outline, read_trace

__all__ = ["FINGERPRINT_VERSION", "Fingerprint", "Rule", "add_fingerprint", "fingerprint"]

FINGERPRINT_VERSION = 1

_KEYS = ["error_type", "error_message", "stack_trace"]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user's own group: failures in which every given pattern is found, whatever else they say.

    Patterns are Python regular expressions, searched for anywhere in the text.
    """

    name: str  # template of the group
    error_type: str | None = None
    error_message: str | None = None
    stack_trace: str | None = None

    def matches(self, error_type: str, error_message: str, stack_trace: str | None) -> bool:
        """Whether the failure belongs to this group; a rule without patterns matches nothing."""
        pairs = [
            (pattern, text or "")
            for pattern, text in (
                (self.error_type, error_type),
                (self.error_message, error_message),
                (self.stack_trace, stack_trace),
            )
            if pattern is not None
        ]
        return bool(pairs) and all(re.search(pattern, text) for pattern, text in pairs)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies a failure, and the two hashes of it."""

    group_id: str  # 16 hexadecimal digits
    parent_id: str  # 16 hexadecimal digits; the wider group, alike in chain and frames
    error_class: str  # last dotted segment of the error type
    template: str  # the message with its variables replaced
    frames: tuple[str, ...]  # `module:function`, nearest the raise first


def fingerprint(
    error_type: str, error_message: str, stack_trace: str | None, rules: Sequence[Rule] = ()
) -> Fingerprint:
    """The group of one failure. The first of `rules` that matches decides."""
    rule = _first_rule(rules, error_type, error_message, stack_trace)
    return _fingerprint(error_type, template(error_message), read_trace(stack_trace or ""), rule)


def _fingerprint(error_type: str, text: str, trace: Trace, rule: str | None) -> Fingerprint:
    error_class = error_type.rpartition(".")[2]
    if rule is not None:
        group = _digest("rule", rule)
        return Fingerprint(group, group, error_class, rule, trace.frames)
    where = ["\x1f".join(trace.chain or (error_class,)), "\x1f".join(trace.frames)]
    return Fingerprint(
        group_id=_digest("group", *where, error_class, text),
        parent_id=_digest("parent", *where) if trace.frames else _digest("type", error_class),
        error_class=error_class,
        template=text,
        frames=trace.frames,
    )


def add_fingerprint(frame: pl.DataFrame, rules: Sequence[Rule] = ()) -> pl.DataFrame:
    """`frame` with the columns of `FINGERPRINT_COLUMNS`; each row equal to `fingerprint` of it.

    Messages and traces are reduced by column to template and outline. A storm of one failure has
    many messages but one template and one outline, so few rows are left to be hashed one by one.
    """
    outline = pl.col("stack_trace").fill_null("").str.extract_all(OUTLINE).list.join("\n")
    reduced = pl.DataFrame(
        [
            frame["error_type"],
            templates(frame["error_message"]).alias("template"),
            per_distinct(frame.select("stack_trace"), lambda t: t.select(outline))["stack_trace"],
            _rule_column(frame, rules),
        ]
    )
    return frame.with_columns(per_distinct(reduced, _fingerprints))


def _fingerprints(reduced: pl.DataFrame) -> pl.DataFrame:
    prints = [
        _fingerprint(kind, text, read_outline(outline.split("\n")), rule)
        for kind, text, outline, rule in reduced.iter_rows()
    ]
    return pl.DataFrame(
        {
            "group_id": [p.group_id for p in prints],
            "parent_id": [p.parent_id for p in prints],
            "fingerprint_version": [FINGERPRINT_VERSION] * len(prints),
            "error_class": [p.error_class for p in prints],
            "template": [p.template for p in prints],
            "frames": [" < ".join(p.frames) for p in prints],
        },
        schema_overrides={"fingerprint_version": pl.Int64},
    )


def _rule_column(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.Series:
    if not rules:
        return pl.Series("rule", [None], dtype=pl.String).new_from_index(0, frame.height)
    found: dict[tuple[str, str, str | None], str | None] = {}
    rows = list(frame.select(_KEYS).iter_rows())
    for row in rows:
        if row not in found:
            found[row] = _first_rule(rules, *row)
    return pl.Series("rule", [found[row] for row in rows], dtype=pl.String)


def _first_rule(
    rules: Sequence[Rule], error_type: str, error_message: str, stack_trace: str | None
) -> str | None:
    return next((r.name for r in rules if r.matches(error_type, error_message, stack_trace)), None)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x1e".join(parts).encode(), digest_size=8).hexdigest()
