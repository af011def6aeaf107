"""What a stack trace says about a failure: the chain of exceptions and the frames of our own code.

Reading is two steps, so that a column of traces costs little: `OUTLINE` takes the lines that matter
out of the text (Polars can do it, and dead letters of one failure have one outline whatever their
messages say), `read_outline` makes sense of them. Python, Java and Node traces are understood; text
of another kind has neither chain nor frames.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sahool_dlq.deadletter.user_patterns import is_found

__all__ = [
    "FRAME_COUNT",
    "OUTLINE",
    "FrameRules",
    "Trace",
    "is_our_frame",
    "read_outline",
    "read_trace",
]

FRAME_COUNT = 5
"""Frames nearest the raise that tell one failure from another."""

# Look-around-free and ASCII, so that Python and Polars find the same lines.
OUTLINE = (
    r"(?m)^[ |+]*(?:Exception Group )?Traceback \(most recent call last\)"
    r'|^[ |]*File "[^"\n]*", line [0-9]+, in [^\r\n]*'
    r"|(?:^|[ \t])at [A-Za-z_$][^ \t\r\n()]*\([A-Za-z0-9_$. -]*(?::[0-9]+)?\)"  # Java
    r"|^[ \t]*at (?:[^\r\n()]* \([^\r\n()]*\)|[^ \t\r\n()]*:[0-9]+:[0-9]+)"  # Node
    r"|^[ \t]*(?:Caused by|Suppressed|\[cause\]): ?[A-Za-z_$][A-Za-z0-9_$.]*"
    r'|^Exception in thread "[^"\n]*" [A-Za-z_$][A-Za-z0-9_$.]*'
    r"|^[ |\t]*[A-Za-z_$][A-Za-z0-9_$.]*(?: \[[A-Z_0-9]+\])?(?::|\r?$)"  # Error: message
)
_OUTLINE = re.compile(OUTLINE)
_PYTHON_FRAME = re.compile(r'File "([^"]*)", line [0-9]+, in (.*)')
_CALL = re.compile(r"at (?:async )?(?:(?:new )?(.*?) ?)\(([^()]*)\)$")
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]*(?= \[|:?$)")
_EXCEPTION_NAME = re.compile(
    r"\.|(?:Error|Exception|Throwable|Failure|Warning|Group|Exit|Interrupt)$"
)
_LIBRARY_PATH = re.compile(
    r"site-packages|dist-packages|lib/python3\.|[Pp]ython3?[0-9]*[/\\][Ll]ib[/\\]|<frozen"
    r"|^index [0-9]|^native$|^<anonymous>$|\.p(?:yx|xi|xd)$|^<(?:template|decorator-gen|attrs gen)"
    r"|^[a-z_]+\.js$"  # of Node itself, before it wrote node:events
    r"|node_modules|(?:^|[ (])node:|^internal/|[/\\]s?bin[/\\][^./\\]*$"
)
_LIBRARY_CLASS = re.compile(
    r"(?:javax?|jdk|sun|com\.sun|jakarta|kotlinx?|scala|groovy|System|Microsoft"
    r"|org\.springframework|org\.hibernate|org\.apache\.(?:kafka|catalina|coyote|tomcat|http)"
    r"|org\.eclipse\.jetty|org\.junit|org\.codehaus\.groovy|com\.fasterxml|com\.zaxxer"
    r"|com\.google\.common|org\.postgresql|com\.mysql|io\.(?:netty|grpc|ktor|lettuce|micrometer"
    r"|opentelemetry|projectreactor|reactivex)|reactor|okhttp3|feign)\."
)
_LIBRARY_ROOT = re.compile(
    r".*(?:site-packages|dist-packages|node_modules|lib/python3\.[0-9]+)[/\\]"
)
_GENERATED = re.compile(  # names that a JVM makes up anew at every start
    r"\$\$Lambda.*|\$\$(?:Enhancer|FastClass)[A-Za-z0-9$]*|(?<=\$Proxy)[0-9]+|(?<=Accessor)[0-9]+"
    r"|(?<=lambda\$)(?=\$)|\$[0-9]+$"
)


class Trace(NamedTuple):
    """`chain`: types from root cause to raised, each once. `frames`: nearest the raise first."""

    chain: tuple[str, ...]
    frames: tuple[str, ...]


class _Frame(NamedTuple):
    place: str  # path of the file, or class
    function: str
    is_ours: bool


class FrameRules(NamedTuple):
    """A user's own word on frames: patterns that are searched for."""

    ours: tuple[str, ...] = ()  # in the path or class
    library: tuple[str, ...] = ()  # in the path or class
    ignored: tuple[str, ...] = ()  # in `path:function` or `class:function`

    def apply(self, frames: Sequence[_Frame]) -> list[_Frame]:
        """The frames that count, with the user's mind on whose they are."""
        return [
            frame._replace(is_ours=self._is_ours(frame))
            for frame in frames
            if not any(is_found(p, f"{frame.place}:{frame.function}") for p in self.ignored)
        ]

    def _is_ours(self, frame: _Frame) -> bool:
        if any(is_found(pattern, frame.place) for pattern in self.ours):
            return True
        return frame.is_ours and not any(is_found(p, frame.place) for p in self.library)


class _Link(NamedTuple):
    """One exception of a chain; its frames nearest the raise first."""

    name: str | None
    frames: list[_Frame]


def read_trace(stack_trace: str) -> Trace:
    """Chain and frames of one trace."""
    return read_outline(_OUTLINE.findall(stack_trace))


def is_our_frame(line: str, rules: FrameRules) -> bool | None:
    """Whether a line of a trace is a frame of our own code; None where it is no frame."""
    bare = line.strip(" \t\r|+")
    frame = _python_frame(bare) or (_call_frame(bare) if bare.startswith("at ") else None)
    return any(f.is_ours for f in rules.apply([frame])) if frame else None


def read_outline(lines: Sequence[str], rules: FrameRules | None = None) -> Trace:
    """Chain and frames of the lines that `OUTLINE` found, in their order."""
    bare = [line.strip(" \t\r|+") for line in lines]
    is_python = any(line.startswith(('File "', "Traceback", "Exception Group T")) for line in bare)
    links = _python_links(lines) if is_python else _call_links(lines)
    chain = dict.fromkeys(link.name.rpartition(".")[2] for link in links if link.name)
    if rules:
        links = [_Link(link.name, rules.apply(link.frames)) for link in links]
    return Trace(tuple(chain), _frames(links))


def _python_links(lines: Sequence[str]) -> list[_Link]:
    """Root cause first, as Python prints them; the members of a group come before the group."""
    links: list[_Link] = []
    group: list[_Link] = []
    open_link = False
    depth = 0  # of the frames: what is raised is printed less deep, their code deeper
    for indented in lines:
        line = indented.strip(" \t\r|+")
        indent = len(indented) - len(indented.lstrip(" \t|+"))
        if line.endswith("Traceback (most recent call last)"):
            links.append(_Link(None, []))
            open_link = True
        elif frame := _python_frame(line):
            if not links:
                links.append(_Link(None, []))
                open_link = True
            depth = indent or 1
            links[-1].frames.insert(0, frame)
        elif open_link and indent < depth and links[-1].frames and (name := _NAME.match(line)):
            links[-1] = _Link(name[0], links[-1].frames)
            open_link = False
            if name[0].endswith("ExceptionGroup"):
                group.append(links.pop())
    return links + group[::-1]


def _call_links(lines: Sequence[str]) -> list[_Link]:
    """Java and Node print what was raised first and its causes below: turn that round."""
    links = [_Link(None, [])]
    aside: list[_Frame] = []  # frames of what is suppressed
    suppressed: int | None = None  # how far it, and its own causes, are indented
    for indented in lines:
        line = indented.strip(" \t\r|+")
        indent = len(indented) - len(indented.lstrip())
        if line.startswith("at "):
            if frame := _call_frame(line):
                (links[-1].frames if suppressed is None else aside).append(frame)
        elif line.startswith("Suppressed:"):
            suppressed = indent if suppressed is None else min(suppressed, indent)
        elif line.startswith(("Caused by:", "[cause]:")):
            if suppressed is None or indent < suppressed:
                suppressed = None
                links.append(_Link(line.partition(":")[2].strip(), []))
        elif len(links) == 1 and not links[0].frames:
            name = line.rpartition('" ')[2] if line.startswith("Exception in") else line
            match = _NAME.match(name)
            if match and not (links[0].name and _EXCEPTION_NAME.search(links[0].name)):
                links[0] = _Link(match[0], [])
    if not any(link.frames for link in links):
        return []  # a text that is not a trace
    if not any(frame.is_ours for link in links for frame in link.frames):
        links[-1].frames.extend(aside)  # Reactor's trace of where the call was put together
    return links[::-1]


def _python_frame(line: str) -> _Frame | None:
    found = _PYTHON_FRAME.match(line)
    return found and _Frame(found[1], found[2].strip(), not _LIBRARY_PATH.search(found[1]))


def _call_frame(line: str) -> _Frame | None:
    """`at org.a.B.m(B.java:1)`, `at fn (/a/b.js:1:2)` or `at /a/b.js:1:2`."""
    call = _CALL.match(line)
    if call and " (" not in line:
        owner, _, function = (call[1] or "").rpartition("/")[2].rpartition(".")
        owner, function = _GENERATED.sub("", owner), _GENERATED.sub("", function)
        return _Frame(owner, function, not _LIBRARY_CLASS.match(owner))
    name, location = (call[1], call[2]) if call else ("<anonymous>", line[3:])
    path = re.sub(r"(?::[0-9]+){1,2}$", "", location.removeprefix("async ")).removeprefix("file://")
    return _Frame(path, re.sub(r" \[as .*\]", "", name), not _LIBRARY_PATH.search(path))


def _frames(links: Sequence[_Link]) -> tuple[str, ...]:
    """The frames that identify a failure, nearest the raise first.

    Those of the root cause, but the place where each later exception was raised has its seat too:
    a failure that is wrapped elsewhere is another failure. A frame that comes again (recursion)
    counts once. Where no code is ours, the library's frames have to do.
    """
    if any(frame.is_ours for link in links for frame in link.frames):
        links = [_Link(link.name, [f for f in link.frames if f.is_ours]) for link in links]
    stacks = [stack for link in links if (stack := list(dict.fromkeys(link.frames)))]
    if not stacks:
        return ()
    raised_at = [stack[0] for stack in stacks[1:]][-(FRAME_COUNT - 1) :]
    nearest = stacks[0][: FRAME_COUNT - len(raised_at)] + raised_at
    rest = [frame for stack in stacks for frame in stack]
    chosen = list(dict.fromkeys(nearest + rest))[:FRAME_COUNT]
    own = [frame.place for frame in chosen if not _LIBRARY_ROOT.match(frame.place)]
    folders = [_parts(place)[:-1] for place in own]
    shared = len(_common_prefix(folders))
    modules = (f"{_module(frame, shared)}:{frame.function}" for frame in chosen)
    return tuple(dict.fromkeys(modules))


def _module(frame: _Frame, shared: int) -> str:
    """The name of the frame's module, whatever folder the code was installed in.

    A class has its name. A library's module is its path below `site-packages`. Our own files are
    named by at most two parts of their path below the folder that the chosen frames share, because
    nothing in a trace tells a package from the checkout that it lies in.
    """
    if not re.search(r"[/\\]|\.py$", frame.place):
        return re.sub(r"^<ipython-input.*>$", "<ipython-input>", frame.place)
    if root := _LIBRARY_ROOT.match(frame.place):
        return ".".join(_parts(frame.place[root.end() :]))
    return ".".join(_parts(frame.place)[shared:][-2:])


def _parts(place: str) -> list[str]:
    parts = [part for part in re.split(r"[/\\]+", place) if part]
    if parts:
        parts[-1] = re.sub(r"\.(?:pyc?|[cm]?[jt]sx?)$", "", parts[-1])
    return parts


def _common_prefix(paths: Sequence[Sequence[str]]) -> list[str]:
    prefix = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        prefix.append(parts[0])
    return prefix
