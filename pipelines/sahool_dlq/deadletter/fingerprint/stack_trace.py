"""Reads a stack trace: the chain of exceptions and the frames of our own code.

Reading has two steps, so that a column of traces costs little. The outline of its language extracts
the important parts of the text (Polars can do it, and dead letters of one failure have one outline,
whatever their messages are). `read_outline` interprets them. A text of a kind that is not in
`LANGUAGES` has neither chain nor frames.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sahool_dlq.deadletter.fingerprint.cause import NO_CAUSE, Cause, cause_of
from sahool_dlq.deadletter.fingerprint.traces.frames import (
    FRAME_COUNT,
    INDENT,
    Frame,
    Language,
    identifying,
)
from sahool_dlq.deadletter.fingerprint.traces.languages import outline_of, recognised
from sahool_dlq.deadletter.user_patterns import is_found

__all__ = [
    "FRAME_COUNT",
    "FrameRules",
    "Trace",
    "marked",
    "our_places",
    "read_outline",
    "read_trace",
]


class Trace(NamedTuple):
    """`chain`: types from root cause to raised one, each once. `frames`: nearest to the exception
    first.
    """

    chain: tuple[str, ...]
    frames: tuple[str, ...]
    language: str = ""  # a name of `LANGUAGES`; empty where none was recognised
    cause: Cause = NO_CAUSE


class FrameRules(NamedTuple):
    """A user's rules about frames: patterns to search for."""

    ours: tuple[str, ...] = ()  # in the path or class
    library: tuple[str, ...] = ()  # in the path or class
    ignored: tuple[str, ...] = ()  # in `path:function` or `class:function`

    def apply(self, frames: Sequence[Frame]) -> list[Frame]:
        """The frames that count, after the user's rules."""
        return [
            frame._replace(is_ours=self._is_ours(frame))
            for frame in frames
            if not any(is_found(p, f"{frame.place}:{frame.function}") for p in self.ignored)
        ]

    def _is_ours(self, frame: Frame) -> bool:
        if any(is_found(pattern, frame.place) for pattern in self.ours):
            return True
        return frame.is_ours and not any(is_found(p, frame.place) for p in self.library)


def read_trace(stack_trace: str) -> Trace:
    """Language, chain and frames of one trace."""
    trace = recognised(stack_trace)
    return read_outline(outline_of(trace), trace.language)


def our_places(stack_trace: str, rules: FrameRules) -> list[str]:
    """Paths, or classes, of the frames of our own code, each once.

    Those of the root cause come first, nearest to the exception first.
    """
    trace = recognised(stack_trace)
    links = trace.language.read(outline_of(trace))
    frames = (frame for link in links for frame in rules.apply(link.frames))
    return list(dict.fromkeys(frame.place for frame in frames if frame.is_ours))


def marked(stack_trace: str, rules: FrameRules) -> Iterator[tuple[str, bool | None]]:
    """Each line, and whether it is a frame of our own code; None if it is not a frame."""
    language = recognised(stack_trace).language
    for line in stack_trace.splitlines():
        frame = language.frame(line.strip(INDENT))
        yield line, any(f.is_ours for f in rules.apply([frame])) if frame else None


def read_outline(
    parts: Sequence[str], language: Language, rules: FrameRules | None = None
) -> Trace:
    """Chain and frames from the parts in the outline of `language`, in their order."""
    links = language.read(parts)
    chain = dict.fromkeys(link.name.rpartition(".")[2] for link in links if link.name)
    if rules and any(rules):
        links = [link._replace(frames=rules.apply(link.frames)) for link in links]
    return Trace(tuple(chain), identifying(links), language.name, cause_of(links, language))
