"""Masks secrets and personal data before anything is stored.

A batch is first searched in Rust: only cells that may contain something take the exact path in
Python (`TextRedactor`), the same as `redact_text` and `redact_json`.

Not masked: numbers, ids, hosts and paths; `tenant_id`, `field_id` and `farmer_id`, which analyses
need; ids that the platform created itself.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import msgspec
import polars as pl

from sahool_dlq.deadletter.record import (
    FREE_TEXT_COLUMNS,
    JSON_COLUMNS,
    LABEL_COLUMNS,
    LONG_TEXT_LIMIT,
    TEXT_LIMITS,
)
from sahool_dlq.deadletter.redaction.patterns import MARK
from sahool_dlq.deadletter.redaction.prefilters import Kind, Prefilter
from sahool_dlq.deadletter.redaction.text_redaction import Mark, TextRedactor
from sahool_dlq.deadletter.user_patterns import checked, substituted

__all__ = ["Mark", "RedactionRules", "Redactor"]

_KINDS: Mapping[Kind, Sequence[str]] = {
    "json": JSON_COLUMNS,
    "text": FREE_TEXT_COLUMNS,
    "label": LABEL_COLUMNS,
}
_IS_OPAQUE = pl.col("payload_encoding").eq_missing("base64")


class RedactionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to mask besides the defaults, and what not to mask."""

    keys: tuple[str, ...] = ()
    """More names of sensitive keys; `farm_pin` also means `farmPin` and `farm-pin`."""
    patterns: dict[str, str] = {}
    """More regular expressions by name; a match is masked as `[redacted:name]`."""
    allow_keys: tuple[str, ...] = ()
    """Names of keys whose values are never masked."""
    allow_columns: tuple[str, ...] = ()
    """Columns of a dead letter that are not masked."""

    def __post_init__(self) -> None:
        for name, pattern in self.patterns.items():
            if not re.fullmatch("[a-z0-9_]{1,40}", name):
                raise ValueError(f"pattern name {name!r}: use up to 40 of a-z, 0-9 and _")
            try:
                checked(pattern)
            except ValueError as error:
                raise ValueError(f"pattern {name}: {error}") from error
        for key in (*self.keys, *self.allow_keys):
            if not re.search(r"[^\W\d_]", key):
                raise ValueError(f"key {key!r} has no letter: give the name of a key")
        known = (*JSON_COLUMNS, *FREE_TEXT_COLUMNS, *LABEL_COLUMNS)
        for column in self.allow_columns:
            if column not in known:
                raise ValueError(f"there is no column {column!r}; there are {', '.join(known)}")


class Redactor(TextRedactor):
    """Masks single texts and batches according to `rules`."""

    def __init__(
        self,
        rules: RedactionRules | None = None,
        key: bytes | None = None,
        mark: Mark | None = None,
    ) -> None:
        rules = rules or RedactionRules()
        super().__init__(rules.keys, rules.allow_keys, key, mark)
        self._patterns = rules.patterns
        self._allowed = rules.allow_columns
        self._prefilter = Prefilter(rules.keys, list(rules.patterns.values()))

    def redact_frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with all columns redacted that may contain secrets; columns may be missing."""
        names = {
            kind: [n for n in columns if n in frame.columns and n not in self._allowed]
            for kind, columns in _KINDS.items()
        }
        looked_at = frame
        if "original_data" in names["json"] and "payload_encoding" in frame.columns:
            frame = self._without_bytes(frame)
            looked_at = frame.with_columns(original_data=pl.when(~_IS_OPAQUE).then("original_data"))
        suspects = self._prefilter.rows(
            {kind: [looked_at[name] for name in its_names] for kind, its_names in names.items()}
        )
        redact = {"json": self.redact_json, "text": self.redact_text, "label": self.redact_label}
        masked = [
            _redacted(frame[name], suspects[name], redact[kind])
            for kind, its_names in names.items()
            for name in its_names
        ]
        return frame.with_columns(column for column in masked if column is not None)

    def _without_bytes(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with base64 payloads replaced by their size."""
        rows = _rows(frame, _IS_OPAQUE)
        column = _redacted(frame["original_data"], rows, self.redact_base64)
        return frame if column is None else frame.with_columns(column)

    def _extras(self, text: str) -> str:
        for name, pattern in self._patterns.items():
            parts = re.split(f"({MARK})", text)  # marks stand at the odd places
            parts[::2] = substituted(pattern, lambda found: self._mask(name, found), parts[::2])  # noqa: B023  (called at once)
            text = "".join(parts)
        return text


def _rows(frame: pl.DataFrame, is_wanted: pl.Expr) -> list[int]:
    """The numbers of the rows for which the expression is true."""
    found = frame.select(is_wanted.fill_null(value=False).arg_true())
    return found.to_series().to_list()


def _redacted(column: pl.Series, rows: list[int], redact: Callable[[str], str]) -> pl.Series | None:
    """The column redacted in these rows, or None if nothing changes."""
    if not rows:
        return None
    redact = cache(redact)
    changed = {
        row: _clamped(new, column.name)
        for row, text in zip(rows, column.gather(rows), strict=True)
        if text is not None and (new := redact(text)) != text
    }
    return column.scatter(list(changed), list(changed.values())) if changed else None


def _clamped(text: str, column: str) -> str:
    """The column cut to its limit, because a mask can be longer than the masked text."""
    if column not in JSON_COLUMNS:
        return text[: TEXT_LIMITS.get(column, LONG_TEXT_LIMIT)]
    return text if len(text) <= LONG_TEXT_LIMIT else f'"[redacted {len(text)} characters]"'
