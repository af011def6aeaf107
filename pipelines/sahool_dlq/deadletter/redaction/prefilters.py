"""Patterns in Rust's regex syntax that select the cells that need an exact check.

They are loose versions of the exact patterns: a text in which an exact pattern masks something
always matches one of these; most other texts do not. They ignore word boundaries and checksums; a
false match only costs time.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from sahool_dlq.deadletter.redaction.encoded_secrets import ENCODED_HINT
from sahool_dlq.deadletter.redaction.frame_arguments import ARGUMENTS_HINT
from sahool_dlq.deadletter.redaction.patterns import BEGIN
from sahool_dlq.deadletter.redaction.personal_data import (
    FOREIGN_NUMBERS_HINT,
    LABELS_HINT,
    NUMBERS_HINT,
)
from sahool_dlq.deadletter.redaction.secret_names import key_words
from sahool_dlq.deadletter.redaction.secret_words import SHORT, hint
from sahool_dlq.deadletter.redaction.token_prefixes import VENDOR_HINT
from sahool_dlq.deadletter.redaction.tries import trie
from sahool_dlq.deadletter.redaction.vendor_tokens import (
    BOTS_HINT,
    HOOKS_HINT,
    MIXED_HINT,
    RANDOM_HINT,
    TOKENS_HINT,
)
from sahool_dlq.deadletter.user_patterns import without_anchors

__all__ = ["Kind", "Prefilter"]

Kind = Literal["json", "text", "label"]
"""How cells of a column are redacted."""

_TOKENS = rf"eyJ[A-Za-z0-9_-]{{5}}|PRIVATE KEY|{VENDOR_HINT}"
_HASHED = (
    r"\$(?:2[abxy]?|argon2[id]*|1|5|6|y|7|apr1|scrypt|pbkdf2[a-z0-9-]*)\$|pbkdf2_sha"
    r"|\{S?SHA[0-9]*\}"
)
# Words in any case
_SIGNED = (
    r"(?:sig|sign|signature(?:-256)?|hmac|credential|security-token|key-pair-id|policy|accesskeyid"
    r"|accessid|code|key|hdnea|hdnts|[?&]h|[?&]st|hash|verify|ticket)"
    r"[\\\"']*[ \t]*(?:[:=]|%3d)[ \t\\\"']*[A-Za-z0-9+/=_%.~@-]{16}"
)
_PROGRAMS = (
    r"-u[ \t=\"',]*[!-.0-9;<>-~]{1,64}[:%]|sshpass|podman|docker[ \t]login|redis-cli|ldap|mysql"
    r"|mariadb|--user|--proxy-user|--creds|--auth|bearer[ \t\\]|basic[ \t\\]|identified[ \t]"
    rf"|jdbc:oracle|sqlplus|sqlldr|expdp|impdp|rman |{BEGIN}[ei][xm]p "
)
_LOGIN = r"[^ /]@|//[^ \n]*@"
_NOT_ASCII = r"[\x{80}-\x{10ffff}]|\\u"
_IS_DOCUMENT = r"^[ \t\r\n]*[\[{]"


class Prefilter:
    """Finds the cells of a batch that need an exact check.

    Each call of Rust's engine builds its states again, which costs as much as searching thousands
    of texts. So one pattern with few states searches the texts of all columns at once, then more
    exact ones search those that match.
    """

    def __init__(self, keys: Sequence[str], patterns: Sequence[str]) -> None:
        own = [key_words(key) for key in keys]
        names = hint(own)
        ascii_names = _ascii(hint([name for name in own if name.isascii()]))
        # Raw JSON does not show where a text begins and ends, or the meaning of an escape.
        self._own = [without_anchors(pattern) for pattern in patterns]
        escaped = r"\\" if patterns else r"\\u00"
        more = r"(?:(?-i:[A-Z0-9_.-])[A-Za-z0-9_.-]*)?"  # of the name: pinCodeOfAli, pin_2
        short = rf"(?:{_ascii(SHORT)}){more}[\\\"')\]]*[ \t]*(?:[:=>,]|%3|[ \t][!-~]|\\t)"
        words = f"{ascii_names}|{short}|{_PROGRAMS}|{_SIGNED}|{HOOKS_HINT}"
        shapes = rf"{trie(f'{_TOKENS}|{TOKENS_HINT}')}|{_HASHED}|\.{ENCODED_HINT}"
        begun = f"{ENCODED_HINT}|{BOTS_HINT}"
        shapes = f"{shapes}|{ARGUMENTS_HINT}"
        label = f"(?i-u:{trie(words)})|{shapes}|{BEGIN}(?:{begun})"
        text = f"(?i-u:{trie(f'{words}|{LABELS_HINT}')})|{shapes}|{BEGIN}(?:{begun}|{NUMBERS_HINT})"
        self._quick = f"{text}|{MIXED_HINT}|@|{_NOT_ASCII}"
        foreign_after = r"[\\\"'»”)\]]*[ \t\x{a0}]*(?:[:=：＝>]|%3|[ \t\x{a0}][^ \t\r\n]|\\t)"
        foreign_short = rf"(?i:{SHORT})(?:[A-Z0-9_.-][\w.-]*)?(?:{foreign_after}"
        begun = rf"[^\x00-\x7f](?:{begun}|[A-Z]{{2}}[0-9]{{2}})"
        foreign = f"(?i:{names})|{foreign_short})|{begun}"
        foreign_json = (
            rf"(?i:{_escapable(names)})|{foreign_short}|\\uff1)|\\u0633\\u0631[\\\"]|{begun}"
        )
        self._exact = {
            "label": (f"{label}|{_LOGIN}", foreign),
            "text": (f"{text}|{_LOGIN}", f"{foreign}|{FOREIGN_NUMBERS_HINT}"),
            "json": (f"{text}|@|{escaped}", f"{foreign_json}|{FOREIGN_NUMBERS_HINT}"),
        }

    def rows(self, columns: Mapping[Kind, Sequence[pl.Series]]) -> dict[str, list[int]]:
        """By column, the numbers of the rows that need an exact check."""
        cells = {
            kind: pl.concat([column.alias("part").cast(pl.String) for column in its_columns])
            .to_frame()
            .with_row_index("cell")
            for kind, its_columns in columns.items()
            if its_columns
        }
        if not cells:
            return {}
        parts = {kind: self._parts(kind, its_cells) for kind, its_cells in cells.items()}
        # Labels and lines of traces are often repeated; JSON contains times and ids.
        distinct = {
            kind: p if kind == "json" else p[p["part"].arg_unique()] for kind, p in parts.items()
        }
        hits = _found(pl.concat(distinct.values()), [self._quick, *self._own])
        rows: dict[str, list[int]] = {c.name: [] for its in columns.values() for c in its}
        for kind, its_parts in distinct.items():
            found = self._exactly(kind, its_parts.filter(hits[: len(its_parts)]))
            hits = hits[len(its_parts) :]
            if kind != "json" and len(found):
                found = parts[kind].filter(pl.col("part").is_in(found["part"].implode()))
            suspects = set(found["cell"])
            if kind == "text":
                is_document = pl.col("part").str.contains(_IS_DOCUMENT)
                suspects.update(cells[kind].filter(is_document)["cell"])
            height = len(columns[kind][0])
            for cell in sorted(suspects):
                number, row = divmod(cell, height)
                rows[columns[kind][number].name].append(row)
        return rows

    def _parts(self, kind: Kind, cells: pl.DataFrame) -> pl.DataFrame:
        if kind != "text" or self._own:  # a user's pattern may go over more than a line
            return cells
        return cells.with_columns(pl.col("part").str.split("\n")).explode("part")

    def _exactly(self, kind: Kind, parts: pl.DataFrame) -> pl.DataFrame:
        """The matching parts in which a more exact pattern also matches."""
        if parts.is_empty():
            return parts
        exact, foreign = self._exact[kind]
        is_found = _found(parts, [exact, RANDOM_HINT, *self._own])
        if not is_found.all():
            is_foreign = _found(parts, [_NOT_ASCII]) & ~is_found
            if is_foreign.any():
                is_found |= is_foreign & _found(parts, [foreign])
        return parts.filter(is_found)


def _found(parts: pl.DataFrame, patterns: Sequence[str]) -> pl.Series:
    """Whether one of the patterns matches, by row."""
    is_found = pl.any_horizontal(pl.col("part").str.contains(pattern) for pattern in patterns)
    return parts.select(is_found.fill_null(value=False)).to_series()


def _ascii(pattern: str) -> str:
    """`pattern` without its alternatives that are not ASCII."""
    return re.sub(r"\|[^|()]*[^\x00-\x7f|()][^|()]*", "", pattern)


def _escapable(pattern: str) -> str:
    """`pattern` for JSON, where its letters may be escaped."""
    return re.sub(r"[^\x00-\x7f]", lambda sign: rf"(?:{sign[0]}|\\u{ord(sign[0]):04x})", pattern)
