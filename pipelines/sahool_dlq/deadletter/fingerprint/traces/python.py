"""Traces of Python."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import INDENT, Frame, Language, Link

__all__ = ["LIBRARY_PATH", "NAME", "PYTHON"]

_FRAME = re.compile(r'File "([^"]*)", line [0-9]+, in (.*)')
NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.]*(?= \[|:?$)")
LIBRARY_PATH = re.compile(
    r"site-packages|dist-packages|lib/python3\.|[Pp]ython3?[0-9]*[/\\][Ll]ib[/\\]|<frozen"
    r"|^index [0-9]|^native$|^<anonymous>$|\.p(?:yx|xi|xd)$|^<(?:template|decorator-gen|attrs gen)"
    r"|^[a-z_]+\.js$"  # of Node itself, before it wrote node:events
    r"|node_modules|(?:^|[ (])node:|^internal/|[/\\]s?bin[/\\][^./\\]*$"
)


def _links(lines: Sequence[str]) -> list[Link]:
    """Root cause first, as Python prints them; the members of a group come before the group."""
    links: list[Link] = []
    group: list[Link] = []
    open_link = False
    depth = 0  # of the frames: what is raised is printed less deep, their code deeper
    for indented in lines:
        line = indented.strip(INDENT)
        indent = len(indented) - len(indented.lstrip(" \t|+"))
        if line.endswith("Traceback (most recent call last)"):
            links.append(Link(None, []))
            open_link = True
        elif frame := _frame(line):
            if not links:
                links.append(Link(None, []))
                open_link = True
            depth = indent or 1
            links[-1].frames.insert(0, frame)
        elif open_link and indent < depth and links[-1].frames and (name := NAME.match(line)):
            links[-1] = Link(name[0], links[-1].frames)
            open_link = False
            if name[0].endswith("ExceptionGroup"):
                group.append(links.pop())
    return links + group[::-1]


def _frame(line: str) -> Frame | None:
    found = _FRAME.match(line)
    return found and Frame(found[1], found[2].strip(), not LIBRARY_PATH.search(found[1]))


PYTHON = Language(
    name="python",
    hints=('File "',),
    sign=r'(?m)^[ |]*File "[^"\n]*", line [0-9]+, in ',
    outline=(
        r"(?m)^[ |+]*(?:Exception Group )?Traceback \(most recent call last\)"
        r'|^[ |]*File "[^"\n]*", line [0-9]+, in [^\r\n]*'
        r"|^[ |\t]*[A-Za-z_$][A-Za-z0-9_$.]*(?: \[[A-Z_0-9]+\])?(?::|\r?$)"  # Error: message
    ),
    read=_links,
    frame=_frame,
)
