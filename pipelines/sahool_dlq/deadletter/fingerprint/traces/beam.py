"""Traces of the BEAM: Elixir and Erlang."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import INDENT, Frame, Language, Link

__all__ = ["BEAM"]

_ELIXIR = re.compile(r"(?:\(([a-z0-9_]+)(?: [^()]*)?\) )?([^ ()]+):(?:[0-9]+:)? (.+)$")
_TUPLE = re.compile(
    r"\{'?([^',{}\[\]]+)'?,'?([^,{}\[\]]+?)'?,(?:[0-9]+|\[.{0,300}?\]),\s*\[(?:\{file,\"([^\"]*)\"\})?"
)
_SHELL = re.compile(r"in (?:function|call from) +([^ ]+)(?: \(([^,)]*))?")
_KIND = re.compile(r"\*\* \(([A-Za-z0-9_.]+)\)|\*\* (?:exception )?(error|exit|throw)")
_ARITY = re.compile(r"/[0-9]+|\(.*")
_NUMBERS = re.compile(r"(?<=-)[0-9]+(?=-)|(?<=fun-)[0-9]+|(?<=\.\")-|-(?=\")")
_LIBRARY_APP = re.compile(
    r"(?:elixir|stdlib|kernel|erts|logger|mix|iex|ex_unit|eex|phoenix(?:_[a-z_]+)?|plug(?:_[a-z_]+)?"
    r"|ecto(?:_[a-z_]+)?|db_connection|postgrex|myxql|redix|broadway(?:_[a-z_]+)?|gen_stage|flow"
    r"|jason|poison|tesla|finch|mint|hackney|httpoison|gnat|oban(?:_[a-z_]+)?|absinthe|cowboy|cowlib"
    r"|ranch|bandit|thousand_island|telemetry(?:_[a-z_]+)?|nimble_[a-z_]+|decimal|swoosh|req|amqp"
    r"|brod|ssl|inets|crypto|mnesia)$"
)
_LIBRARY_PATH = re.compile(
    r"^[a-z0-9_]+\.(?:erl|ex|exs)$|[/\\]deps[/\\]|_build[/\\][a-z]+[/\\]lib[/\\]|^$"
)


def _links(lines: Sequence[str]) -> list[Link]:
    """The raised exception first; the reason of an exit is nested below it, and is its cause."""
    links = [Link(None, [])]
    for indented in lines:
        line = indented.strip(INDENT)
        if frame := _frame(line):
            links[-1].frames.append(frame)
        elif kind := _KIND.search(line):
            name = kind[1] or kind[2]
            if links[-1].frames or links[-1].name:
                if links[-1].frames and not indented.startswith(" "):
                    break  # another process' report
                links.append(Link(name, []))
            else:
                links[-1] = Link(name, [])
    if not any(link.frames for link in links):
        return []
    return links[::-1]


def _frame(line: str) -> Frame | None:
    if line.startswith(("{", "[{")):
        found = _TUPLE.search(line)
        if not found:
            return None
        module = found[1].removeprefix("Elixir.")
        return Frame(
            module, _function(found[2]), not _LIBRARY_PATH.search(found[3] or ""), is_name=True
        )
    if line.startswith("in "):
        if not (shell := _SHELL.match(line)):
            return None
        return _named(shell[1], is_ours=not _LIBRARY_PATH.search(shell[2] or ""))
    found = _ELIXIR.match(line)
    if not found:
        return None
    app, path, call = found[1], found[2], found[3]
    is_library = _LIBRARY_APP.match(app) if app else _LIBRARY_PATH.search(path)
    return _named(call, is_ours=not is_library)


def _named(call: str, *, is_ours: bool) -> Frame | None:
    """`Shop.PriceBook.lookup/2`, `:gen_server.call/3`, `anonymous fn/1 in Shop.Worker.run/1`."""
    inside, _, rest = call.rpartition(" in ")
    name = _ARITY.sub("", rest)
    if '"' in name:  # Shop.Worker."-run/1-fun-0-"
        owner, _, quoted = name.partition('."')
        return Frame(owner, _function(quoted.rstrip('"')), is_ours, is_name=True)
    if name == "(file)" or not name:
        return None
    owner, _, function = name.lstrip(":").rpartition("." if "." in name else ":")
    return Frame(owner, ("fn in " if inside else "") + function, is_ours, is_name=True)


def _function(name: str) -> str:
    """`-run/1-fun-0-` as `fn in run`."""
    found = re.match(r"-(?:fun\.)?([^/]*)/[0-9]+-", name)
    return f"fn in {found[1]}" if found else name


BEAM = Language(
    name="elixir",
    hints=("** (", ",[{file,", "in function "),
    sign=(
        r"(?m)^[ \t]*(?:\([a-z0-9_]+(?: [^()\r\n]*)?\) )?[^ ()\r\n]+\.(?:exs?|erl):[0-9]+: "
        r"|,\[\{file,\"[^\"\r\n]*\"\},\{line,[0-9]+\}"
        r"|^ *in function +[^ \r\n]+/[0-9]+"
    ),
    outline=(
        r"(?m)^[ \t]*\([a-z0-9_]+(?: [^()\r\n]*)?\) [^ ()\r\n]+:(?:[0-9]+:)? [^\r\n]*"
        r"|^[ \t]*[^ ()\t\r\n]+\.(?:exs?|erl):[0-9]+: [^\r\n]*"
        r"|\{[^ \t\r\n,{}\[\]]+,[^ \t\r\n,{}\[\]]+,(?:[0-9]+|\[[^\r\n]{0,300}?\]),"
        r"[ \t]*\r?\n?[ \t]*\[\{file,\"[^\"\r\n]*\"\}"
        r"|^ *in (?:function|call from) +[^\r\n]*"
        r"|^[^\r\n]*\*\* \([A-Za-z0-9_.]+\)|^\*\* exception [a-z]+"
    ),
    read=_links,
    frame=_frame,
)
