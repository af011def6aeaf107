"""The frames of a trace in any language: which ones identify a failure, and their names."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "FRAME_COUNT",
    "INDENT",
    "LIBRARY_FOLDER",
    "NAME_LIMIT",
    "Frame",
    "Language",
    "Link",
    "identifying",
    "module",
    "package",
]

FRAME_COUNT = 5
"""Number of frames nearest to the exception that distinguish failures."""

NAME_LIMIT = 1_000
"""Characters of a method's name with its class that are used."""

INDENT = " \t\r|+"
"""Possible beginnings of a trace's line; the signs are those of exception trees."""

LIBRARY_FOLDER = (  # of installed packages, or of the runtime's own library
    r"(?:(?:site-packages|dist-packages|node_modules|lib(?:64)?[/\\](?:python|pypy)[23]\.[0-9]+"
    r"|(?:[Pp]ython|conda)3?[0-9]*[/\\](?:envs[/\\][^/\\]+[/\\])?[Ll]ib|\.(?:whl|egg)"
    r"|[/\\]runfiles[/\\][^/\\]{0,80}pip[^/\\]{0,80})[/\\]|^/opt/python/)"
)
_LIBRARY_ROOT = re.compile(
    rf".*{LIBRARY_FOLDER}"
    r"|.*[/\\]gems[/\\][^/\\]+[/\\](?:lib[/\\])?|.*[/\\]lib[/\\]ruby[/\\][0-9.]+[/\\]"
)
_PATH = re.compile(r"[/\\]|\.(?:py|rb|php|rs|erl|exs?)$")
_EXTENSION = re.compile(r"\.(?:pyc?|[cm]?[jt]sx?|rb|php|rs|erl|exs?)$")


per_path = lru_cache(maxsize=20_000)
"""Remembers what is computed of a path: traces that differ share most paths."""


class Frame(NamedTuple):
    """A call in the stack."""

    place: str  # path of the file, or the name of class, module or package
    function: str
    is_ours: bool
    is_name: bool = False  # the place is a name, though it may have a slash in it


class Link(NamedTuple):
    """One exception of a chain; its frames nearest to the exception first."""

    name: str | None
    frames: list[Frame]
    is_raised_here: bool = False  # by a statement of the nearest frame, not by what that called
    is_context: bool = False  # raised while the one before was handled, not because of it


class Language(NamedTuple):
    """How to recognise and read the traces of one runtime.

    `sign` and `outline` are ASCII without look-around, so that Python and Polars find the same
    lines, and take linear time in Python too.
    """

    name: str
    hints: tuple[str, ...]  # one of them stands in each of its traces
    sign: str  # a pattern that is found in each of its traces, and in no other's
    outline: str  # a pattern that finds the parts of the text that matter
    read: Callable[[Sequence[str]], list[Link]]  # those parts; the root cause comes first
    frame: Callable[[str], Frame | None]  # the frame on one line without its indent
    has_modules: bool = False  # types are printed with the module that defines them


def identifying(links: Sequence[Link]) -> tuple[str, ...]:
    """The frames that identify a failure, nearest to the exception first, as `module:function`.

    Those of the root cause, but the place where each later exception was raised has its seat too:
    a failure that is wrapped elsewhere is another failure, and so is one that another package asked
    for. A frame that comes again (recursion) counts once. Where no code is ours, the library's
    frames have to do.
    """
    if any(frame.is_ours for link in links for frame in link.frames):
        links = [Link(link.name, [f for f in link.frames if f.is_ours]) for link in links]
    stacks = [stack for link in links if (stack := list(dict.fromkeys(link.frames)))]
    if not stacks:
        return ()
    raised_at = [stack[0] for stack in stacks[1:]][-(FRAME_COUNT - 1) :]
    nearest = _with_caller(stacks[0], FRAME_COUNT - len(raised_at)) + raised_at
    rest = [frame for stack in stacks for frame in stack]
    chosen = list(dict.fromkeys(nearest + rest))[:FRAME_COUNT]
    own = [f.place for f in chosen if not f.is_name and not _library_root(f.place)]
    folders = [_parts(place)[:-1] for place in own]
    shared = len(_common_prefix(folders))
    modules = (f"{_module(frame, shared)}:{frame.function}" for frame in chosen)
    return tuple(dict.fromkeys(modules))


def _with_caller(stack: Sequence[Frame], count: int) -> list[Frame]:
    """The nearest frames; where they are of one package, the last seat is for who called that.

    It may be a library's that no list knows, whose frames alone say nothing of who used it.
    """
    nearest = list(stack[:count])
    if count < 2 or len(stack) <= count:
        return nearest
    root = _root(nearest[0])
    if root and all(_root(frame) == root for frame in nearest):
        others = (frame for frame in stack[count:] if _root(frame) not in ("", root))
        nearest[-1] = next(others, nearest[-1])
    return nearest


def _root(frame: Frame) -> str:
    """The package that a class or module is of; empty for a file, whose folder may be any."""
    if not frame.is_name and _is_path(frame.place):
        return ""
    if "/" in frame.place:  # github.com/acme/shop/price
        parts = frame.place.split("/")
        return "/".join(parts[: 3 if "." in parts[0] else 1])
    parts = re.split(r"::|[.:]", frame.place.lstrip("<&"))
    return ".".join(parts[: 2 if len(parts) > 2 and parts[0].islower() else 1])  # com.acme


def package(frame: Frame) -> str:
    """The installed package, or module of the runtime, that a library's frame is of."""
    if frame.is_name or not _is_path(frame.place):
        return _root(frame) or frame.place.removeprefix("<frozen ").partition(".")[0].strip("<>")
    parts = _parts(frame.place[_library_root(frame.place) :])
    return parts[0] if parts else ""


def module(frame: Frame) -> str:
    """The name of a frame's file, class or module, in whatever folder it is."""
    is_file = _is_path(frame.place) and not frame.is_name
    return _parts(frame.place)[-1] if is_file else _module(frame, 0)


def _module(frame: Frame, shared: int) -> str:
    """The name of the frame's module, independent of the folder of the code.

    A class has its name. A library's module is its path below `site-packages`. Our own files are
    named by at most two parts of their path below the folder that the chosen frames share, because
    a trace does not distinguish a package from the checkout that contains it.
    """
    if frame.is_name or not _is_path(frame.place):
        return re.sub(r"^<ipython-input.*>$", "<ipython-input>", frame.place)
    if root := _library_root(frame.place):
        return ".".join(_parts(frame.place[root:]))
    return ".".join(_parts(frame.place)[shared:][-2:])


@per_path
def _is_path(place: str) -> bool:
    return _PATH.search(place) is not None


@per_path
def _library_root(place: str) -> int:
    """Where the path below the folder of installed packages begins; 0 if it is not in there."""
    root = _LIBRARY_ROOT.match(place)
    return root.end() if root else 0


@per_path
def _parts(place: str) -> tuple[str, ...]:
    parts = [part for part in re.split(r"[/\\]+", place) if part]
    if parts:
        parts[-1] = _EXTENSION.sub("", parts[-1])
    return tuple(parts)


def _common_prefix(paths: Sequence[Sequence[str]]) -> list[str]:
    prefix = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        prefix.append(parts[0])
    return prefix
