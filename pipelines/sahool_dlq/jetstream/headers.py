"""Reads and writes the header block of a NATS message, with every value of every header.

nats-py keeps the last value of a repeated header, and sends each header once.
"""

from nats.errors import BadHeaderError

from sahool_dlq.deadletter.headers import Headers, MutableHeaders, add_header, pairs_of

_VERSION = "NATS/1.0"
_BLANKS = " \t\r\n"
_NO_NAME = (":", "\r", "\n", "\0")


class LastValues(dict[str, str]):
    """Headers as nats-py returns them, with the last value of a repeated one; `every` has all."""

    def __init__(self, every: Headers) -> None:
        super().__init__(
            {name: held if isinstance(held, str) else held[-1] for name, held in every.items()}
        )
        self.every = every


def every_header(headers: dict[str, str] | None) -> Headers:
    """All values of a message's headers, as far as its client kept them."""
    return headers.every if isinstance(headers, LastValues) else headers or {}


def parse_headers(block: bytes) -> MutableHeaders:
    """A header block, read as far as possible; its first line is the version."""
    headers: MutableHeaders = {}
    for line in block.decode(errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon and (name := name.strip(_BLANKS)):
            add_header(headers, name, value.strip(_BLANKS))
    return headers


def encode_headers(headers: Headers) -> bytes:
    """The header block to send; line ends in a value become spaces.

    Raises BadHeaderError if a name is not valid.
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
