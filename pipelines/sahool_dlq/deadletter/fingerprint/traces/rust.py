"""Traces of Rust: panics with and without a backtrace, and errors with one (anyhow, eyre)."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.frames import INDENT, Frame, Language, Link

__all__ = ["RUST"]

_SYMBOL = re.compile(r"[0-9]+: +(?:0x[0-9a-f]+ - )?(.*)$")
_LOCATION = re.compile(r"at (.*?)(?::[0-9]+){1,2}$")
_PANIC = re.compile(r"thread .* panicked at (?:.*, )?([^ ,]*?):[0-9]+:[0-9]+:?$")
_LOCATED = re.compile(r"Location:\s+([^ ]*?):[0-9]+(?::[0-9]+)?$")  # by color-eyre
_LIBRARY_PATH = re.compile(
    r"^/rustc/|[/\\](?:\.?cargo[/\\])?registry[/\\]src[/\\]|[/\\]\.?cargo[/\\]git[/\\]"
    r"|[/\\]rustlib[/\\]|^/?library[/\\]|[/\\]vendor[/\\]"
)
_LIBRARY = re.compile(
    r"(?:std|__rustc|core|alloc|proc_macro|test|backtrace|anyhow|eyre|color_eyre|stable_eyre|tokio"
    r"|tokio_util|futures(?:_[a-z]+)?|async_nats|nats|hyper(?:_util)?|tower(?:_[a-z]+)?|axum"
    r"|actix(?:_[a-z]+)?|tonic|reqwest|serde(?:_[a-z]+)?|sqlx(?:_[a-z]+)?|diesel|tracing(?:_[a-z]+)?"
    r"|log|rayon(?:_core)?|crossbeam(?:_[a-z]+)?|parking_lot|bytes|h2|rustls|prost|chrono|rdkafka"
    r"|redis|tokio_postgres|async_std|smol|rocket|warp|clap|once_cell|hashbrown)::"
)
_GENERATED = re.compile(
    r"\[[0-9a-f]{16}\]|::h[0-9a-f]{16}$|(?<=\{closure)#[0-9]+|(?<=\{impl)#[0-9]+"
)
_SELF = re.compile(r"^<+(?:&(?:mut )?|dyn |alloc::boxed::Box<|impl )*")


def _links(lines: Sequence[str]) -> list[Link]:
    frames: list[Frame] = []
    panicked_at: str | None = None
    for indented in lines:
        line = indented.strip(INDENT)
        if symbol := _SYMBOL.match(line):
            if frame := _symbol(symbol[1]):
                frames.append(frame)
        elif location := _LOCATION.match(line):
            if frames and _LIBRARY_PATH.search(location[1]):
                frames[-1] = frames[-1]._replace(is_ours=False)
        elif panic := _PANIC.match(line):
            if frames:
                break  # a thread that waited for it also panicked
            panicked_at = panicked_at or panic[1]
        elif located := _LOCATED.match(line):
            panicked_at = panicked_at or located[1]
    if not frames and panicked_at:
        frames = [Frame(panicked_at, "panic", not _LIBRARY_PATH.search(panicked_at))]
    return [Link(None, frames)] if frames else []


def _symbol(name: str) -> Frame | None:
    name = _GENERATED.sub("", name)
    place, _, function = name.rpartition("::")
    if not place:
        return None  # of the system: main, __libc_start_main
    while function.startswith("{") and "::" in place:  # a closure, or the body of an async fn
        outer, _, last = place.rpartition("::")
        place, function = outer, f"{last}::{function}"
    return Frame(place, function, not _LIBRARY.match(_SELF.sub("", name)), is_name=True)


def _frame(line: str) -> Frame | None:
    symbol = _SYMBOL.match(line)
    return _symbol(symbol[1]) if symbol else None


RUST = Language(
    name="rust",
    hints=("panicked at ", "ack backtrace:", "Location:"),
    sign=(
        r"(?m)^thread [^\r\n]* panicked at [^\r\n\\]*\r?$|^[ \t]*[Ss]tack backtrace:\r?$"
        r"|^Location:[ \t]*\r?\n?[ \t]+[^ \t\r\n]+\.rs:[0-9]+"
    ),
    outline=(
        r"(?m)^thread [^\r\n]* panicked at [^\r\n]*"
        r"|^ *[0-9]+: +(?:0x[0-9a-f]+ - )?[^ \r\n]*::[^\r\n]*|^ +[0-9]+: +[<_][^\r\n]*"
        r"|^ +at [^\r\n]*:[0-9]+"
        r"|^Location:[ \t]*\r?\n?[ \t]+[^ \t\r\n]+\.rs:[0-9:]+"
    ),
    read=_links,
    frame=_frame,
)
