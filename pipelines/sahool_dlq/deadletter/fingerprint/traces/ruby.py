"""Traces of Ruby."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import INDENT, Frame, Language, Link

__all__ = ["RUBY"]

_FRAME = re.compile(r"(?:[0-9]+: )?(?:from )?([^ ]*?):[0-9]+:in [`'](.*?)'(?=$|: )(?:: .*)?")
_KIND = re.compile(r"\(([A-Z][A-Za-z0-9_:]*)\)$")
_LIBRARY = re.compile(
    r"[/\\]gems[/\\]|[/\\]lib[/\\]ruby[/\\]|[/\\]rubies[/\\]|^<internal:|[/\\]s?bin[/\\][^./\\]*$|^\(eval"
)
_INSIDE = re.compile(r"^(?:(?:block(?: \([0-9]+ levels\))?|rescue|ensure) in )+")


def _links(lines: Sequence[str]) -> list[Link]:
    """The raised exception comes first, its causes below; in a terminal all is printed in reverse
    order.
    """
    bare = [line.strip(INDENT) for line in lines]
    if any(line.startswith("1: from ") for line in bare):
        return [
            link._replace(frames=link.frames[::-1]) for link in _blocks(bare, ends_in_head=True)
        ]
    return _blocks(bare, ends_in_head=False)[::-1]


def _blocks(lines: Sequence[str], *, ends_in_head: bool) -> list[Link]:
    """The exceptions in printed order. A head has type and first frame."""
    links: list[Link] = []
    name: str | None = None  # that stood on a line of its own
    is_open = False
    for line in lines:
        frame, kind = _frame(line), _KIND.search(line)
        if not frame:
            name = name or (kind[1] if kind else line.rstrip(" (:"))
            continue
        is_head = kind is not None and not line.startswith("from ")
        if not is_open or (is_head and not ends_in_head):
            links.append(Link(name, []))
            name, is_open = None, True
        links[-1].frames.append(frame)
        if kind and is_head:
            links[-1] = Link(kind[1].rpartition("::")[2], links[-1].frames)
            is_open = not ends_in_head
    return links


def _frame(line: str) -> Frame | None:
    found = _FRAME.match(line)
    if not found:
        return None
    function = _INSIDE.sub("", found[2])
    if not function.startswith("<"):  # Ruby 3.4 puts the class before it
        function = re.split(r"#|(?<=[A-Za-z0-9_])\.", function)[-1]
    return Frame(found[1], function, not _LIBRARY.search(found[1]))


RUBY = Language(
    name="ruby",
    hints=(":in `", ":in '"),
    sign=r"(?m)^[ \t]*(?:[0-9]+: )?(?:from )?[^ \t\r\n\\]+:[0-9]+:in [`'][^\r\n\\]*\r?$",
    outline=(
        r"(?m)^[ \t]*(?:[0-9]+: )?(?:from )?[^ \t\r\n]+:[0-9]+:in [`'][^\r\n]*"
        r"|^[A-Z][A-Za-z0-9_:]*(?::| \()|^[^\r\n]*\([A-Z][A-Za-z0-9_:]*\)\r?$"
    ),
    read=_links,
    frame=_frame,
)
