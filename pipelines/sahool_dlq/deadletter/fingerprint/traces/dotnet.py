"""Traces of .NET and Mono, in any system language."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import (
    INDENT,
    NAME_LIMIT,
    Frame,
    Language,
    Link,
)

__all__ = ["DOTNET"]

# The word for "at" is translated: bei, à, en, в, 場所, 위치:, a következő helyen:, …
_AT = r"(?:[^ \t\r\n().<>\[\]]{1,14} ){1,4}"
_CALL = r"[^ \t\r\n()]+ ?\([^()\r\n]*\)"
_FRAME = re.compile(rf"{_AT}([^ \t()]+) ?\(")
_LIBRARY = re.compile(
    r"(?:System|Microsoft|Windows|Mono|MS|Internal|Interop|FSharp|NATS|AlterNats|Npgsql|Newtonsoft"
    r"|MassTransit|MediatR|Polly|Dapper|Serilog|NLog|StackExchange|Grpc|Google|Confluent|RabbitMQ"
    r"|NServiceBus|Rebus|AutoMapper|FluentValidation|Amazon|Azure|MongoDB|MySql|MySqlConnector"
    r"|Oracle|Hangfire|Quartz|Autofac|Castle|Refit|RestSharp|Xunit|NUnit|OpenTelemetry)\."
)
_KIND = re.compile(r"(?:---> )?([A-Za-z_][^ \t\r\n:()]*)(?: \(0x[0-9A-Fa-f]+\))?:?$")
_INNER = "---> "
_ASIDE = "---> (Inner Exception #"
_END = re.compile("--- [^\r\n]* ---$")

# What the compiler adds to a method's name: generic parameters, closures, state machines.
_GENERIC = re.compile(r"`[0-9]+|\[[^\[\]]*\]")
_CLOSURE = re.compile(r"\.<>c(?:__DisplayClass[0-9_]*)?(?=\.)|@[0-9]+(?:-[0-9]+)?")
_OPENED = re.compile("<<+")
_COMPILED = re.compile(
    r"<([^<>]*)>(\$>?)?(?:([a-z])__([A-Za-z_][A-Za-z0-9_]*)?[|0-9_]*>?)?"
    r"(d?(?:__[0-9]+)?\.MoveNext$|d$)?"
)
# The same by the compiler of Visual Basic.
_CLOSURE_OF_VB = re.compile(r"\._Closure\$__[0-9R-]*(?=\.)")
_STATE_MACHINE_OF_VB = re.compile(r"VB\$StateMachine_[0-9]*_([^.]*)(?:\.MoveNext$)?")
_LAMBDA_OF_VB = re.compile(r"_Lambda\$__[0-9R-]*")


def _links(lines: Sequence[str]) -> list[Link]:
    """Types come outermost first, and their frames innermost first, each block with an end line."""
    kinds: list[str] = []
    blocks: list[list[Frame]] = [[]]
    for indented in lines:
        line = indented.strip(INDENT)
        if line.startswith(_ASIDE):
            break  # the first is the inner exception that came already
        if _END.match(line):
            if indented[:1] in (" ", "\t"):  # else the same trace goes on, in another thread
                blocks.append([])
        elif frame := _frame(line):
            blocks[-1].append(frame)
        elif (line.startswith(_INNER) or not (kinds or blocks[0])) and (kind := _KIND.match(line)):
            kinds.append(_GENERIC.sub("", kind[1]).rpartition("+")[2])
    if not any(blocks):
        return []
    names = [*reversed(kinds), *[None] * len(blocks)]
    return [Link(name, block) for name, block in zip(names, blocks, strict=False)]


def _frame(line: str) -> Frame | None:
    found = _FRAME.match(line)
    if not found or "." not in found[1]:
        return None
    owner, function = _method(found[1])
    return Frame(owner, function, not _LIBRARY.match(owner + "."), is_name=True)


def _method(name: str) -> tuple[str, str]:
    """Class and method as in the source, from the compiler's name."""
    name = name[:NAME_LIMIT].replace("+", ".")  # Mono's sign for a class in a class
    if "`" in name or "[" in name:
        name = _GENERIC.sub("", _GENERIC.sub("", name))
    if "$__" in name or "VB$" in name:
        name = _STATE_MACHINE_OF_VB.sub(r"\1", _CLOSURE_OF_VB.sub("", name))
        name = _LAMBDA_OF_VB.sub("lambda", name)
    if "<" in name or "@" in name:
        name = _OPENED.sub("<", _CLOSURE.sub("", name))
        name = _COMPILED.sub(_as_written, name)
    name = name.replace("..", ".$")  # constructors are called .ctor
    owner, _, function = name.rpartition(".")
    return owner, function.replace("$", ".")


def _as_written(found: re.Match[str]) -> str:
    method, is_main, kind, local, state_machine = found.groups()
    if not (is_main or kind or state_machine):
        return found[0]  # a name with brackets in it
    # An asynchronous method, or one that yields, or the statements that are the program.
    if kind in (None, "d") or (local or "").startswith(("Iterator", "async")):
        return method
    return f"{method}/{(local or 'lambda').rstrip('0123456789')}"


DOTNET = Language(
    name="dotnet",
    hints=(")",),
    sign=(
        rf"(?m)^(?:[ \t]+{_AT}|at )[^ \t\r\n()]+"
        r"(?:\((?:|[^()\r\n]* [a-z_@][^ ()\r\n]*)\)(?:\r?$| [^ \t\r\n]{1,8} [^\r\n]*:)"
        r"| ?\([^()\r\n]*\) (?:\[0x[0-9a-f]+\]|<0x[0-9a-f]+))"
    ),
    outline=(
        rf"(?m)^[ \t]+{_AT}{_CALL}"
        r"|[ \t]at [^ \t\r\n()]+ ?\([^()\r\n]*\)"
        r"|^[ \t]*--- [^\r\n]* ---\r?$"
        r"|---> \(Inner Exception #"
        r"|---> [A-Za-z_][^ \t\r\n:()]*"
        r"|^[ \t]*[A-Za-z_][^ \t\r\n:()]*(?: \(0x[0-9A-Fa-f]+\))?:"
    ),
    read=_links,
    frame=_frame,
)
