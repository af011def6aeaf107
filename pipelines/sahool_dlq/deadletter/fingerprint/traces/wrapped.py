"""Traces inside log lines: JSON, escaped line ends, prefixes that containers write before each
line.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["unwrapped"]

_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# A tab only after a line end: a namespace of PHP may have a name that begins with t.
_ESCAPE = re.compile(r'(?:\\+r)?\\+(?:n|u000[aA])(\\+t)*|\\+["\']|\\+u00(?:22|27)')
# Where a trace begins or goes on, in whatever language.
_MARK = re.compile(
    r"(?:Exception Group )?Traceback \(most|  File \"|  at |\tat |\tfrom |\t/|goroutine [0-9]+ \["
    r"|   [^ .:()]{1,12} [A-Za-z_][^ ()]{0,300}\(|panic: |thread '|#0 [/\[]|\*\* \(|\*\* exception "
    r"|in function  |:[0-9]+:in [`']|stack backtrace:"
)
_PREFIX_LIMIT = 300
_DOCKER = "log"  # the key of Docker's json-file under which each line stands


def unwrapped(text: str) -> str | None:
    """The text without one layer of wrapping; None if there is no known one."""
    if "\x1b[" in text:
        return _TERMINAL.sub("", text)
    if "{" in text and (found := _of_json(text)) is not None:
        return found
    if "\\n" in text or "\\u000" in text:
        return _unescaped(text)
    if "#012" in text:
        return text.replace("#012", "\n").replace("#011", "\t")
    return _without_prefix(text)


def _unescaped(text: str) -> str:
    """The text of a string as JSON, or other programs, write it."""
    if (string := _parsed(f'"{text}"')) is not None:
        return str(string)
    return _from_mark(_ESCAPE.sub(_plain, text))


def _plain(escape: re.Match[str]) -> str:
    if escape[0][-1] in "\"'":
        return escape[0][-1]
    if escape[0].endswith(("22", "27")):
        return '"' if escape[0].endswith("22") else "'"
    return "\n" + "\t" * escape[0].count("t")


def _of_json(text: str) -> str | None:
    """The strings with a line end or a mark, in a JSON text or in JSON lines."""
    if (document := _parsed(text.strip())) is not None:
        return _joined([document])
    documents = []
    for line in text.splitlines():
        start = line.find("{")
        if start >= 0 and line.rstrip().endswith("}"):
            document = _parsed(line[start:].strip())
            if isinstance(document, dict):
                documents.append(document)
    return _joined(documents) if documents else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text[:1] in ("{", "[", '"') else None
    except (ValueError, RecursionError):
        return None


def _joined(documents: list[Any]) -> str | None:
    lines = [
        d[_DOCKER] for d in documents if isinstance(d, dict) and isinstance(d.get(_DOCKER), str)
    ]
    if len(lines) == len(documents) > 1:
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    found = [text for document in documents for text in _texts(document) if _MARK.search(text)]
    return "\n".join(found) if found else None


def _texts(value: Any) -> Iterator[str]:
    """The strings of a document; a list of strings is one text."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack.extend(reversed(value.values()))
        elif isinstance(value, list):
            if value and all(isinstance(item, str) for item in value):
                yield "\n".join(item.rstrip("\n") for item in value)
            else:
                stack.extend(reversed(value))


def _from_mark(text: str) -> str:
    """The text from the beginning of its trace, if that is in the middle of a line."""
    mark = _MARK.search(text)
    if not mark:
        return text
    begin = _begin(text, mark)
    start = text.rfind("\n", 0, begin) + 1
    return f"{text[:start]}\n{text[begin:]}" if text[start:begin].strip(" \t|+") else text


def _begin(text: str, mark: re.Match[str]) -> int:
    """Where the marked text begins: a line of Ruby with the path before the mark."""
    if not mark[0].startswith(":"):
        return mark.start()
    return max(text.rfind(blank, 0, mark.start()) for blank in " \t\n") + 1


def _without_prefix(text: str) -> str | None:
    """The lines without the common prefix before the trace; numbers in it may differ."""
    for line in text.splitlines():
        if not (mark := _MARK.search(line)):
            continue
        prefix = line[: _begin(line, mark)].rstrip(" \t|+" if "Group" in mark[0] else " \t")
        if not prefix.strip(" \t|+") or len(prefix) > _PREFIX_LIMIT:
            continue
        parts = re.split("([0-9]+)", prefix)
        shape = "".join("[0-9]+" if i % 2 else re.escape(part) for i, part in enumerate(parts))
        return re.sub(rf"(?m)^{shape} ?", "", text)
    return None
