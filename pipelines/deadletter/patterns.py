"""Regular expressions that users write, held to what both engines understand."""

import re
import warnings

import polars as pl

__all__ = ["checked", "without_anchors"]

_CLASS_OR_ESCAPE = r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[^AZzb]"


def checked(pattern: str) -> re.Pattern[str]:
    """The pattern compiled for Python, known to work by column in Rust too.

    Raises ValueError where one of them refuses it (Rust knows neither look-around nor
    back-references), or where it matches the empty text and so would match everywhere.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Python may read otherwise one day, Rust does now
        try:
            compiled = re.compile(pattern)
            for rust in (pattern, without_anchors(pattern)):
                pl.Series([""]).str.contains(rust)
        except (re.error, FutureWarning, DeprecationWarning) as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
        except pl.exceptions.ComputeError as error:
            raise ValueError(
                f"{pattern!r} needs what a linear-time engine does not have, look-around or a"
                " back-reference: write it without"
            ) from error
    if compiled.search(""):
        raise ValueError(f"{pattern!r} matches the empty text, so it would match everywhere")
    return compiled


def without_anchors(pattern: str) -> str:
    """What a text holds that holds a match of `pattern` anywhere in it, for Rust.

    Its groups lose their names, so that it can stand beside others.
    """
    kept = re.sub(
        rf"({_CLASS_OR_ESCAPE})|\\[AZzb]|[\^$]|(\(\?P?<[a-zA-Z_]\w*>)",
        lambda m: m[1] or (m[2] and "(?:") or "",
        pattern,
    )
    return f"(?:{kept})"
