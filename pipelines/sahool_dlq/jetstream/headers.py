"""The header block of a NATS message: every value of every header, both ways.

nats-py keeps the last value of a header that is repeated, and sends each once.
"""

from nats.errors import BadHeaderError

from sahool_dlq.deadletter.headers import Headers, MutableHeaders, add_header, pairs_of

_VERSION = "NATS/1.0"
_BLANKS = " \t\r\n"
_NO_NAME = (":", "\r", "\n", "\0")


class LastValues(dict[str, str]):
    """Headers as nats-py hands them out: of a repeated one the last value; `every` has them all."""

    def __init__(self, every: Headers) -> None:
        super().__init__(
            {name: held if isinstance(held, str) else held[-1] for name, held in every.items()}
        )
        self.every = every


def every_header(headers: dict[str, str] | None) -> Headers:
    """All values of a message's headers, as far as its client has kept them."""
    return headers.every if isinstance(headers, LastValues) else headers or {}


def parse_headers(block: bytes) -> MutableHeaders:
    """A header block as far as it can be read; its first line is the version."""
    headers: MutableHeaders = {}
    for line in block.decode(errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon and (name := name.strip(_BLANKS)):
            add_header(headers, name, value.strip(_BLANKS))
    return headers


def encode_headers(headers: Headers) -> bytes:
    """The header block that is sent; ends of lines within a value become blanks.

    Raises BadHeaderError where a name cannot be one.
    """
    lines = [_VERSION]
    for name, value in pairs_of(headers):
        name = name.strip(_BLANKS)
        if any(sign in name for sign in _NO_NAME):
            raise BadHeaderError(name)
        if name:
            value = value.replace("\r", " ").replace("\n", " ").strip(_BLANKS)
            lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "\r\n"]).encode(errors="replace")
