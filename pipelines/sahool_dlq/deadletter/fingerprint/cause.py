"""The cause of a failure: what a library or driver raised, whoever called it and wrapped it.

A broker that is down fails many services at many places, and each place is a failure group. Their
cause is one: it is told by the library that raised and by its message, and neither by our code nor
by the library's version, folder and lines.

Which exception of a chain it is: the chain is read from the root. The first library that raised is
the driver (a client of HTTP only where no library used it), and its last exception is its answer:
"Error 111 connecting to …" of redis, not the ConnectionRefusedError below it, nor the error of our
code or of a framework above it. What was
raised while our code handled another failure is a new failure, unless our code raised it. Where no
library raised, the function of our code that is nearest to the root cause stands for it.
"""

import builtins
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sahool_dlq.deadletter.fingerprint.traces.frames import (
    INDENT,
    Frame,
    Language,
    Link,
    module,
    package,
)
from sahool_dlq.deadletter.fingerprint.traces.runtimes import SAME_PACKAGE, Rank, rank

__all__ = ["NO_CAUSE", "PLACEHOLDER", "Cause", "cause_of", "message_in", "parts_of"]

_BY_INTERPRETER = (
    *("AttributeError", "TypeError", "KeyError", "IndexError", "NameError", "UnboundLocalError"),
    *("AssertionError", "RecursionError", "StopIteration", "ZeroDivisionError"),
)
"""Types of programming errors: their messages tell nothing of what was being done."""
_PASSED_OVER = (
    *("KeyError", "AttributeError", "IndexError", "Empty", "QueueEmpty", "StopIteration"),
    *("StopAsyncIteration", "GeneratorExit", "CancelledError", "ImportError"),
    *("ModuleNotFoundError", "RemoteTraceback"),
)
"""Types that libraries handle all the time: a later exception tells more."""
_CONDITIONS = {
    "ConnectionRefusedError": "refused",
    "ConnectionResetError": "reset",
    "gaierror": "unresolved",
}
"""What the operating system told a library, whatever the library then says."""
_CONDITION_TEXTS = (
    ("refused", re.compile("onnection refused|Connect call failed|actively refused|ECONNREFUSED")),
    (
        "reset",
        re.compile(
            "onnection reset by peer|forcibly closed by the remote|ECONNRESET|reset by peer"
        ),
    ),
    (
        "unresolved",
        re.compile(
            "Name or service not known|name resolution|getaddrinfo failed|Name does not resolve"
            "|nodename nor servname|No address associated|ENOTFOUND|Name has no usable address"
        ),
    ),
)
_WORD = re.compile("[A-Za-z]{2,}")
PLACEHOLDER = re.compile("<[a-z]+>")
_POINTED = re.compile(r"(column <>:).* \^$")
"""The line of a parser's input with the place that it could not read."""
_TELLING_WORDS = 3
"""A template with so many words tells a failure of a library without type and function."""
_OF_DRIVER = re.compile(r"^\(([a-z][a-z_]*)(?:<n>)?\.(?:[a-z_]+\.)*([A-Z][A-Za-z0-9]*)\) ")
"""How SQLAlchemy begins a message: with the type of the driver, whose digits are a variable."""
_MESSAGE_ENDS = re.compile(
    r"\n[ \t|]*(?:\+-|During handling of the above|The above exception was the direct"
    r"|Traceback \(most|at |\.\.\. [0-9]|Caused by:|Suppressed:|---|from )|[ \n]---> |\n *\[cause\]"
)
_IN_TREE = re.compile(r"(?m)^ *\|(?: \|)* ?")  # before each line of an exception group
_AFTER_NAME = re.compile(r"(?: \(0x[0-9A-Fa-f]+\)| \[[A-Z_0-9]+\])?(?::|(?=[ \t\r]*(?:\n|$)))")
_NAME_BEGINS = ("Caused by: ", "---> ", "[cause]: ")


class Cause(NamedTuple):
    """What tells one cause from another, besides the template of its message."""

    library: str  # the package that raised; empty: our own code did
    place: str  # function of the library, or `module:function` of our code
    condition: str  # what the operating system said; empty where it said nothing
    name: str  # type of what was raised, as the trace prints it; empty where it does not
    is_wrapped: bool  # another exception was raised from it

    @property
    def error_class(self) -> str:
        """The last segment of its name."""
        return _class_of(self.name)

    def printed(self, error_class: str) -> str:
        """The name below which the trace has the message; empty: it is that of the failure.

        `error_class` is the failure's.
        """
        is_other = self.is_wrapped or self.error_class != error_class
        return self.name if is_other and not self.condition else ""


NO_CAUSE = Cause("", "", "", "", is_wrapped=False)
"""Of a failure without a trace."""


def cause_of(links: Sequence[Link], language: Language) -> Cause:
    """The cause, from the chain of exceptions, root cause first."""
    if not any(link.frames for link in links):
        return NO_CAUSE
    raised = [_Raised(link, language, links) for link in links]
    if not (language.has_modules or raised[0].is_driver):
        return _of_our_code(raised)  # what no list knows may be a library too
    episode = _last_episode(raised)
    chosen = _answer(episode)
    if chosen is None:
        return _of_our_code(raised)
    until = episode[: episode.index(chosen) + 1]
    condition = next(filter(None, (_CONDITIONS.get(link.error_class) for link in until)), "")
    library = chosen.library.rstrip("0123456789")  # psycopg2 and psycopg answer alike
    return Cause(library, chosen.function, condition, chosen.name, chosen is not raised[-1])


class _Raised:
    """One exception of the chain, and which library raised it."""

    def __init__(self, link: Link, language: Language, links: Sequence[Link]) -> None:
        self.link = link
        self.name = link.name or ""
        self.error_class = _class_of(self.name)
        nearest = next((i for i, f in enumerate(link.frames) if f.is_ours), len(link.frames))
        self.escaped = nearest < len(link.frames)  # our code saw it
        frames = link.frames[:nearest]  # of libraries, before the first of ours
        packages = [_package(frame) for frame in frames]
        named = self._named(language, links, has_frames=bool(frames))
        self.library = min((named, *packages), key=rank)  # the nearest of the best
        self.rank = rank(self.library)
        self.is_driver = self.rank < Rank.FRAMEWORK
        places = [f for f, name in zip(frames, packages, strict=True) if name == self.library]
        self.function = places[0].function.rpartition(".")[2] if places else ""

    def _named(self, language: Language, links: Sequence[Link], *, has_frames: bool) -> str:
        """The library that the type's module tells: a driver in C has no frames."""
        root, dot, _ = self.name.partition(".")
        if not (language.has_modules and dot) or root == "__main__":
            return ""
        if not has_frames and (self.link.is_raised_here or _is_ours(root, links)):
            return ""
        return SAME_PACKAGE.get(root, root)


def _class_of(name: str) -> str:
    kind = re.split(r"[.$]|::", name)[-1]
    return "TimeoutError" if kind == "timeout" else kind  # socket's, before Python 3.10


def _package(frame: Frame) -> str:
    name = package(frame)
    return SAME_PACKAGE.get(name, name)


def _is_ours(root: str, links: Sequence[Link]) -> bool:
    """Whether our own frames have this name in their paths."""
    ours = (frame.place for link in links for frame in link.frames if frame.is_ours)
    return any(root in re.split(r"[/\\.]", place) for place in ours)


def _last_episode(raised: Sequence[_Raised]) -> list[_Raised]:
    """The exceptions since a library failed anew while our code handled an earlier failure."""
    episode: list[_Raised] = []
    for before, link in zip([None, *raised], raised, strict=False):
        if before and before.escaped and link.link.is_context and link.is_driver:
            episode = []
        episode.append(link)
    return episode


def _answer(episode: Sequence[_Raised]) -> _Raised | None:
    """The last exception of the first library that raised; None if no library did."""
    drivers = [link for link in episode if link.is_driver]
    telling = [link for link in drivers if link.error_class not in _PASSED_OVER] or drivers
    if telling:
        driver = min(telling, key=lambda link: link.rank).library
        return [link for link in telling if link.library == driver][-1]
    return episode[0] if episode[0].rank == Rank.FRAMEWORK else None  # its own failure


def _of_our_code(raised: Sequence[_Raised]) -> Cause:
    """The nearest function of ours in the root cause."""
    root = next((link for link in raised if link.escaped), raised[0])
    frames = root.link.frames
    nearest = next((f for f in frames if f.is_ours), frames[0] if frames else None)
    place = f"{module(nearest)}:{nearest.function}" if nearest else ""
    return Cause("", place, "", root.name, root is not raised[-1])


def message_in(trace: str, name: str) -> str:
    """The message of the exception of that type, as the trace prints it; empty if it has none."""
    at = trace.find(name)
    while at >= 0:
        line = trace[trace.rfind("\n", 0, at) + 1 : at]
        is_name = not line.strip(INDENT) or line.endswith(_NAME_BEGINS)
        if is_name and (after := _AFTER_NAME.match(trace, at + len(name))):
            end = _MESSAGE_ENDS.search(trace, after.end())
            text = trace[after.end() : end.start() if end else len(trace)]
            return _IN_TREE.sub("", text).strip()
        at = trace.find(name, at + len(name))
    return ""


def parts_of(cause: Cause, error_class: str, text: str) -> Iterator[str]:
    """What the id of a cause is made of; `text` is the template of the message."""
    kind = cause.error_class or error_class
    if not cause.library:
        yield from ("ours", cause.place, kind, PLACEHOLDER.sub("<>", text))
        return
    library, place = cause.library, cause.place
    if of_driver := _OF_DRIVER.match(text):
        library, kind, place = of_driver[1], of_driver[2], ""
        text = text[of_driver.end() :]
    condition = cause.condition or _condition(text)
    if condition:
        yield from ("library", library, condition)
        return
    text = _POINTED.sub(r"\1", PLACEHOLDER.sub("<>", text))
    yield from ("library", library)
    if kind not in _BY_INTERPRETER and len(_WORD.findall(text)) >= _TELLING_WORDS:
        yield text
        return
    if not hasattr(builtins, kind):  # the library's own type
        place = ""
    said = text.replace(" ", "").lower()  # "Server disconnected" of ServerDisconnectedError
    yield from (kind, place, "" if "Timeout" in kind or said in kind.lower() else text)


def _condition(text: str) -> str:
    return next((name for name, pattern in _CONDITION_TEXTS if pattern.search(text)), "")
