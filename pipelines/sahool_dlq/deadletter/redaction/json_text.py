"""JSON as text: finds strings and values in a valid document without changing its spelling.

Parsing and writing a document would turn 1.10 into 1.1 and 12345678901234567890 into a float.
"""

import json
import re
from typing import NamedTuple

__all__ = [
    "STRING",
    "Member",
    "decoded",
    "is_json",
    "members",
    "numbered",
    "shallow",
    "spelled",
    "value_end",
]

STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:\s*)?')
"""A string (its raw content is group 1), and the colon (group 2) that makes it a key."""

_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_NESTING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]')
_RUNS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]+|[\]}]+')
_KEYS = re.compile(rf"{STRING.pattern}|[{{}}]")
_SCALAR = re.compile(r"[^\s,\]}]+")


def is_json(text: str) -> bool:
    """Whether `text` is a JSON document that Python can parse, also by its nesting."""
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def decoded(raw: str) -> str:
    """The text in the raw content of a string."""
    return str(json.loads(f'"{raw}"')) if "\\" in raw else raw


def spelled(raw: str, new: str) -> str:
    """The JSON string of `new`, in ASCII if the replaced raw content was escaped."""
    return json.dumps(new, ensure_ascii="\\u" in raw)


def value_end(text: str, start: int) -> int:
    """The end of the value that begins at `start`."""
    if text[start] not in '"[{':
        scalar = _SCALAR.match(text, start)
        return scalar.end() if scalar else start
    depth = 0
    for match in _NESTING.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(text)


class Member(NamedTuple):
    """One member of an object, in its original spelling."""

    key: str  # with its quotes
    value: str


def members(text: str) -> dict[str, Member]:
    """The members of a JSON object by key, with the last of equal keys, whatever the depth of their
    values.

    `text` must be JSON. Raises ValueError if it is not an object.
    """
    position = len(text) - len(text.lstrip())
    if text[position : position + 1] != "{":
        raise ValueError("it is not a JSON object")
    found: dict[str, Member] = {}
    while match := STRING.search(text, position):
        position = value_end(text, match.end())
        key = f'"{match[1]}"'
        found[decoded(match[1])] = Member(key, text[match.end() : position])
    return found


def numbered(text: str) -> str:
    """`text` with repeated keys of an object numbered: `key`, `key 2`, `key 3`.

    `text` must be JSON.
    """
    pieces: list[str] = []
    copied = 0
    objects: list[dict[str, int]] = []  # their keys, with counts
    for match in _KEYS.finditer(text):
        if match[0] == "{":
            objects.append({})
        elif match[0] == "}":
            objects.pop()
        elif match[2]:
            key = new = decoded(match[1])
            seen = objects[-1]
            count = seen.get(key, 1)
            while new in seen:
                count += 1
                new = f"{key} {count}"
            seen[key] = count
            seen[new] = seen.get(new, 1)
            if new != key:
                pieces += text[copied : match.start()], spelled(match[1], new), match[2]
                copied = match.end()
    return "".join([*pieces, text[copied:]])


def shallow(text: str, depth: int) -> str:
    """`text` with arrays and objects nested deeper than `depth` as strings.

    Raises ValueError if one of them is not closed.
    """
    pieces: list[str] = []
    nesting = copied = start = 0
    for match in _RUNS.finditer(text):
        count = match.end() - match.start()
        if match[0][0] in "[{":
            if nesting <= depth < nesting + count:
                start = match.start() + depth - nesting
            nesting += count
        elif match[0][0] in "]}":
            nesting -= count
            if nesting <= depth < nesting + count:
                end = match.end() - (depth - nesting)
                pieces += text[copied:start], json.dumps(text[start:end])
                copied = end
    if nesting > depth:
        raise ValueError(f"nested deeper than {depth}, and not closed")
    return "".join([*pieces, text[copied:]])
