"""Regular expressions of users, limited to the syntax of both engines.

Only Rust's engine runs them, in time linear in the text, also for single strings.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache

import polars as pl

__all__ = ["checked", "is_found", "substituted", "without_anchors"]

_CLASS_OR_ESCAPE = r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[^AZzb]"


def checked(pattern: str) -> re.Pattern[str]:
    """The pattern compiled for Python, which knows its groups; it also works in Rust.

    Raises ValueError if one of them refuses it (Rust supports neither look-around nor
    back-references), or if it matches the empty text and so would match everywhere.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python may change its meaning, Rust already has
        try:
            compiled = re.compile(pattern)
            is_empty = is_found(pattern, "")
            is_found(without_anchors(pattern), "")
        except (re.error, FutureWarning, DeprecationWarning) as error:
            raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
        except pl.exceptions.ComputeError as error:
            raise ValueError(
                f"{pattern!r} needs what a linear-time engine does not have, look-around or a"
                " back-reference: write it without"
            ) from error
    if is_empty:
        raise ValueError(f"{pattern!r} matches the empty text, so it would match everywhere")
    return compiled


@lru_cache(100_000)
def is_found(pattern: str, text: str) -> bool:
    """Whether `pattern` matches somewhere in `text`."""
    return bool(pl.Series([text]).str.contains(pattern).item())


def substituted(pattern: str, new: Callable[[str], str], texts: Sequence[str]) -> list[str]:
    """The texts with each match of `pattern` replaced by `new`."""
    before, after = _unused(texts)
    marked = pl.Series(texts, dtype=pl.String).str.replace_all(pattern, f"{before}${{0}}{after}")
    cut = re.compile(f"{before}([^{after}]*){after}")
    return [cut.sub(lambda found: found[1] and new(found[1]), text) for text in marked]


def _unused(texts: Sequence[str]) -> tuple[str, str]:
    """Two characters that are in none of the texts, and in no usual pattern."""
    used = set().union(*texts)
    free = (chr(code) for code in range(0xF0000, 0xFFFFE))  # for private use
    before, after = (
        sign for _, sign in zip(range(2), (s for s in free if s not in used), strict=False)
    )
    return before, after


def without_anchors(pattern: str) -> str:
    """A pattern for Rust that every text with a match of `pattern` also matches.

    Its groups lose their names, so that it can be combined with others.
    """
    kept = re.sub(
        rf"({_CLASS_OR_ESCAPE})|\\[AZzb]|[\^$]|(\(\?P?<[a-zA-Z_]\w*>)",
        lambda m: m[1] or (m[2] and "(?:") or "",
        pattern,
    )
    return f"(?:{kept})"
