"""Traces of Go: panics, `debug.Stack()`, and errors with a stack (pkg/errors, zap, gin)."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import (
    INDENT,
    NAME_LIMIT,
    Frame,
    Language,
    Link,
)

__all__ = ["GO"]

_PATH = re.compile(r"(.*\.(?:go|s)):[0-9]+(?: |$)")
_NAMED = re.compile(r"(.*\.(?:go|s)):[0-9]+ \(0x")  # the function is on the next line
_LIBRARY_PATH = re.compile(
    r"[/\\]pkg[/\\]mod[/\\]|@v[0-9]|[/\\]vendor[/\\]"
    r"|(?:^|[/\\])(?:[Gg]o|goroot)(?:[-0-9.]*|[/\\](?:[-0-9.]+(?:[/\\][a-z0-9]+)?|libexec))[/\\]src[/\\]"
)
_STANDARD = re.compile(  # roots of the standard library
    r"(?:runtime|net|encoding|os|io|bufio|bytes|strings|strconv|sync|time|reflect|fmt|errors"
    r"|context|database|crypto|html|text|testing|log|math|sort|regexp|syscall|internal|unicode"
    r"|archive|compress|hash|mime|slices|maps|iter|unsafe|golang\.org/x)[/.]"
)
_NUMBERED = re.compile(
    r"(?<=\.func)[0-9]+(?:\.[0-9]+)*|\.(?:gowrap|deferwrap)[0-9]+|-fm$|-range[0-9]+"
)
_TYPE_PARAMETERS = re.compile(r"\[[^\[\]]*\]")
_ENDS = ("runtime.goexit", "runtime.main")


def _links(lines: Sequence[str]) -> list[Link]:
    """A panic is one link; each stack of pkg/errors is one more, the root cause's first."""
    links = [Link(None, [])]
    goroutines = 0
    for pair in lines:
        if pair.startswith("goroutine "):
            goroutines += 1
            if goroutines > 1 and links[0].frames:
                break  # other running goroutines do not matter
            continue
        first, _, second = pair.partition("\n")
        first, second = first.strip(INDENT), second.strip(INDENT)
        if first.startswith("created by "):
            continue
        if first.startswith("panic("):  # frames above this handled the panic
            links[-1].frames.clear()
            continue
        if named := _NAMED.match(first):  # gin: /a/b.go:41 (0x49d2c5)\n\tLookup: code
            path, name = named[1], second.partition(":")[0]
        elif path_found := _PATH.match(second):
            path, name = path_found[1], first
        else:
            continue
        frame = _function(name, path)
        if f"{frame.place}.{frame.function}" in _ENDS:
            links.append(Link(None, []))
        else:
            links[-1].frames.append(frame)
    return [link for link in links if link.frames]


def _function(name: str, path: str) -> Frame:
    """`example.com/shop/price.(*Book).Lookup(0xc000, …)` in its file."""
    if name.endswith(")") and not name.endswith(".(*"):
        name = _without_arguments(name)
    name = name[:NAME_LIMIT]
    if "[" in name:  # twice: those of type parameters first
        name = _TYPE_PARAMETERS.sub("", _TYPE_PARAMETERS.sub("", name))
    name = _NUMBERED.sub("", name)
    folder, _, rest = name.rpartition("/")
    package, _, function = rest.partition(".")
    place = f"{folder}/{package}" if folder else package
    is_library = _LIBRARY_PATH.search(path) or _STANDARD.match(place + ".")
    if not function:  # gin names the function alone
        return Frame(path, package, not is_library)
    return Frame(place.replace("%2e", "."), function, not is_library, is_name=True)


def _without_arguments(name: str) -> str:
    """The name up to the bracket that matches its last one."""
    depth = 0
    for at in range(len(name) - 1, -1, -1):
        depth += (name[at] == ")") - (name[at] == "(")
        if not depth:
            return name[:at]
    return name


def _frame(line: str) -> Frame | None:
    found = _PATH.match(line)
    return Frame(found[1], "", not _LIBRARY_PATH.search(found[1])) if found else None


GO = Language(
    name="go",
    hints=(".go:", "goroutine "),
    sign=(
        r"(?m)^[ |]*\t[^\r\n:]*(?::[^\r\n:]*)?\.go:[0-9]+(?: \+0x[0-9a-f]+)?\r?$"
        r"|^ +[^ \t\r\n]+\.go:[0-9]+\r?$|^goroutine [0-9]+ \[|^[^ \t\r\n]+\.go:[0-9]+ \(0x"
    ),
    outline=(
        r"(?m)^goroutine [0-9]+ \["
        r"|^[ |\t]*[^ |\t\r\n][^\r\n]*\r?\n[ |]*[ \t][^\r\n]*\.(?:go|s):[0-9]+"
        r"|^[^ \t\r\n]+\.(?:go|s):[0-9]+ \(0x[0-9a-f]+\)\r?\n\t[^\r\n]*"
    ),
    read=_links,
    frame=_frame,
)
