"""Traces of Python."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import (
    INDENT,
    LIBRARY_FOLDER,
    Frame,
    Language,
    Link,
    per_path,
)

__all__ = ["LIBRARY_PATH", "NAME", "PYTHON"]

_FRAME = re.compile(r'File "([^"]*)", line [0-9]+, in (.*)')
NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]*(?= \[|:?$)")
LIBRARY_PATH = re.compile(
    LIBRARY_FOLDER + r"|<frozen"
    r"|^index [0-9]|^native$|^<anonymous>$|\.p(?:yx|xi|xd)$|^<(?:template|decorator-gen|attrs gen)"
    r"|^[a-z_]+\.js$"  # of Node itself, before it wrote node:events
    r"|(?:^|[ (])node:|^internal/|[/\\]s?bin[/\\][^./\\]*$"
)
_CONTEXT = "During handling of the above exception"


def _links(lines: Sequence[str]) -> list[Link]:
    """Root cause first, as Python prints them; the members of a group come before the group."""
    links: list[Link] = []
    group: list[Link] = []
    open_link = is_context = is_raised_here = False
    depth = 0  # of the frames: what is raised is printed less deep, their code deeper
    for indented in lines:
        line = indented.strip(INDENT)
        if frame := _frame(line):
            if not links:
                links.append(Link(None, []))
                open_link = True
            depth = _indent(indented) or 1
            links[-1].frames.append(frame)
            is_raised_here = False
        elif line.startswith("raise "):
            is_raised_here |= open_link
        elif line.endswith("Traceback (most recent call last)"):
            _note_raise(links, is_raised_here=is_raised_here)
            links.append(Link(None, [], is_context=is_context))
            open_link, is_context, is_raised_here = True, False, False
        elif line.startswith(_CONTEXT):
            is_context = True
        elif (
            open_link
            and links[-1].frames
            and _indent(indented) < depth
            and (name := NAME.match(line))
        ):
            links[-1] = links[-1]._replace(name=name[0])
            open_link = False
            if name[0].endswith("ExceptionGroup"):
                _note_raise(links, is_raised_here=is_raised_here)
                group.append(links.pop())
                is_raised_here = False
    _note_raise(links, is_raised_here=is_raised_here)
    for link in (*links, *group):
        link.frames.reverse()  # nearest to the exception first
    return links + group[::-1]


def _note_raise(links: list[Link], *, is_raised_here: bool) -> None:
    if is_raised_here and links:
        links[-1] = links[-1]._replace(is_raised_here=True)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t|+"))


def _frame(line: str) -> Frame | None:
    if not line.startswith("File"):
        return None
    found = _FRAME.match(line)
    if not found:
        return None
    path, function = found[1], found[2].strip()
    return Frame(path, function, not (_is_library(path) or _is_compiled(path, function)))


@per_path
def _is_library(path: str) -> bool:
    return LIBRARY_PATH.search(path) is not None


def _is_compiled(path: str, function: str) -> bool:
    """Cython names a function with its module, and a file without the folder of the packages."""
    return "." in function and function.startswith(f"{path.partition('/')[0]}.")


PYTHON = Language(
    name="python",
    hints=('File "',),
    sign=r'(?m)^[ |]*File "[^"\n]*", line [0-9]+, in ',
    outline=(
        r"(?m)^[ |+]*(?:Exception Group )?Traceback \(most recent call last\)"
        r'|^[ |]*File "[^"\n]*", line [0-9]+, in [^\r\n]*'
        rf"|^[ |]*raise [^ \r\n]|^[ |]*{_CONTEXT}"
        r"|^[ |\t]*[A-Za-z_$][A-Za-z0-9_$.]*(?: \[[A-Z_0-9]+\])?(?::|\r?$)"  # Error: message
    ),
    read=_links,
    frame=_frame,
    has_modules=True,
)
