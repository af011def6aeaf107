"""Traces of PHP: `Exception::__toString`, fatal errors, and the log files of frameworks."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import INDENT, Frame, Language, Link

__all__ = ["PHP"]

_CALL = re.compile(r"#[0-9]+ (?:(.*?)\([0-9]+\)|\[internal function\]): (.*)$")
_HEAD = re.compile(
    r"(?:\[object\] \(|Uncaught |^Next |^)([A-Za-z_\\][A-Za-z0-9_\\]*)(?:@anonymous|\(code: |: )"
)
_THROWN_IN = re.compile(r"(?: in | at )([^ ]*):[0-9]+\)?$")
_MAIN = re.compile(r"#[0-9]+ \{main\}")
_LIBRARY = re.compile(r"[/\\]vendor[/\\]|^phar:|[/\\]share[/\\]php[/\\]|^$")
_CLOSURE = re.compile(r"\{closure:(.*)(?:\(\))?:[0-9]+\}")


def _links(lines: Sequence[str]) -> list[Link]:
    """The root cause comes first; Laravel's log lists the causes below instead."""
    links: list[Link] = []
    file: str | None = None  # in which the next function was when it called, or threw
    is_below = False
    for indented in lines:
        line = indented.strip(INDENT)
        if line.startswith("[previous exception]"):
            is_below = True
        if found := _CALL.match(line):
            if not links:
                links.append(Link(None, []))
            links[-1].frames.append(_called(found[2], file))
            file = found[1] or ""  # none of an internal function
        elif _MAIN.match(line):
            if links:
                links[-1].frames.append(
                    Frame(file or "", "{main}", not _LIBRARY.search(file or ""))
                )
        elif (head := _HEAD.search(line)) and (thrown := _THROWN_IN.search(line)):
            links.append(Link(head[1].rpartition("\\")[2], []))
            file = thrown[1]
    return links[::-1] if is_below else links


def _called(call: str, file: str | None) -> Frame:
    r"""`Shop\Price\Book->lookup('x')`, defined in `file` if known."""
    name = _CLOSURE.sub(r"{closure}", call)
    name = name[: name.find("(")] if "(" in name else name
    owner, sign, function = name.rpartition("->" if "->" in name else "::")
    is_ours = file is None or not _LIBRARY.search(file)
    if not sign:
        return Frame(file or function, function.rpartition("\\")[2], is_ours)
    owner = re.sub(r"\\+", ".", owner.partition("@anonymous")[0])
    return Frame(owner, function.rpartition("\\")[2], is_ours, is_name=True)


def _frame(line: str) -> Frame | None:
    found = _CALL.match(line)
    file = (found and found[1]) or ""
    return _called(found[2], file)._replace(is_ours=not _LIBRARY.search(file)) if found else None


PHP = Language(
    name="php",
    hints=("#0 ",),
    sign=r"(?m)^[ \t]*#0 (?:[^\r\n]*\([0-9]+\): |\[internal function\]: |\{main\})",
    outline=(
        r"(?m)^[ \t]*#[0-9]+ [^\r\n]*"
        r"|^[^\r\n]*(?: in | at )[^ \r\n]*:[0-9]+\)?\r?$"
    ),
    read=_links,
    frame=_frame,
)
