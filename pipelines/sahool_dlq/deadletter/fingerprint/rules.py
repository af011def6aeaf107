"""A user's own rules for failure groups: which code is theirs, what in a message is a variable,
which failures are one group.

Rules are pure values: the same failure and the same rules give the same group. `GroupingRules.hash`
is stored with each row beside the version of the built-in algorithm, so that `dlq regroup` finds
rows with other rules.
"""

import hashlib
import re

import msgspec
import polars as pl

from sahool_dlq.deadletter.fingerprint.stack_trace import FrameRules
from sahool_dlq.deadletter.user_patterns import checked

__all__ = ["Group", "GroupingRules", "Merge", "Replacement"]

_KEYS = ("error_type", "error_message", "stack_trace")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LABEL_LIMIT = 500  # characters; what a pattern captures can be long


class Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variable in messages that the built-in steps do not find."""

    pattern: str
    text: str  # what takes its place; `$1` or `${name}` is what a group captured

    def __post_init__(self) -> None:
        checked(self.pattern)


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of failures in which every given pattern matches.

    `{host}` in the name is replaced with the text that the named group `(?P<host>…)` of a pattern
    captured: each captured text is then a separate group.
    """

    name: str
    error_type: str | None = None
    error_message: str | None = None
    stack_trace: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a group needs a name")
        if not self.patterns:
            raise ValueError(f"group {self.name!r} has no pattern: give {', '.join(_KEYS)}")
        captured = set()
        for column, pattern in self.patterns.items():
            try:
                captured |= set(checked(pattern).groupindex)
            except ValueError as error:
                raise ValueError(f"group {self.name!r}, {column}: {error}") from error
        if unknown := [name for name in _PLACEHOLDER.findall(self.name) if name not in captured]:
            raise ValueError(
                f"group {self.name!r}: no pattern has a group (?P<{unknown[0]}>…) to fill it"
            )

    @property
    def patterns(self) -> dict[str, str]:
        """The patterns by column."""
        given = {column: getattr(self, column) for column in _KEYS}
        return {column: pattern for column, pattern in given.items() if pattern is not None}

    def expression(self) -> pl.Expr:
        """Rule and name of the group, joined by `\x1f`; null if the failure is not in it."""
        found = [pl.col(c).fill_null("").str.contains(p) for c, p in self.patterns.items()]
        captures = {
            name: pl.col(column).str.extract(pattern, index).fill_null("")
            for column, pattern in self.patterns.items()
            for name, index in re.compile(pattern).groupindex.items()
        }
        parts = [
            captures[text] if place % 2 else pl.lit(text)
            for place, text in enumerate(_PLACEHOLDER.split(self.name))
        ]
        label = pl.concat_str(parts).str.slice(0, _LABEL_LIMIT)
        return pl.when(*found).then(pl.concat_str(pl.lit(f"{self.name}\x1f"), label))


class Merge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Groups to merge: every failure that would get one of these ids."""

    name: str
    group_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        for group_id in self.group_ids:
            if not re.fullmatch("[0-9a-f]{16}", group_id):
                raise ValueError(f"merge {self.name!r}: {group_id!r} is not a group id")


class GroupingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules that add to, or replace, the built-in algorithm."""

    our_code: tuple[str, ...] = ()
    """Patterns of paths and classes that are ours, although they look like a library's."""
    library_code: tuple[str, ...] = ()
    """Patterns of paths and classes that are not ours."""
    ignored_frames: tuple[str, ...] = ()
    """Patterns of `path:function` or `class:function` to ignore."""
    replace: tuple[Replacement, ...] = ()
    """Applied in order to a message before the built-in steps."""
    group: tuple[Group, ...] = ()
    """The first that matches decides."""
    merge: tuple[Merge, ...] = ()
    """Applied last, to ids from the algorithm."""

    def __post_init__(self) -> None:
        for name in ("our_code", "library_code", "ignored_frames"):
            for pattern in getattr(self, name):
                try:
                    checked(pattern)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error

    @property
    def hash(self) -> str | None:
        """8 hexadecimal digits; None if there are no rules."""
        if self == GroupingRules():
            return None
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=4).hexdigest()

    @property
    def frames(self) -> FrameRules:
        """The rules about frames."""
        return FrameRules(self.our_code, self.library_code, self.ignored_frames)

    @property
    def merged(self) -> dict[str, str]:
        """Name of the merged group by group id."""
        return {group_id: merge.name for merge in self.merge for group_id in merge.group_ids}

    def replaced(self, messages: pl.Series) -> pl.Series:
        """The messages with the user's replacements."""
        for step in self.replace:
            messages = messages.str.replace_all(step.pattern, step.text)
        return messages

    def forced(self) -> pl.Expr:
        """The expression of the first group that matches; null if none does."""
        return pl.coalesce(group.expression() for group in self.group)
