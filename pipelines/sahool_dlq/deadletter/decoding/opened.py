"""A body as JSON, with the way back to its bytes. Standard library only, as services read bodies
too.
"""

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["BodyError", "Opened"]


class BodyError(ValueError):
    """A body that says its format, and cannot be read; the message says why, to follow a colon."""


def _unchanged(edited: bytes) -> bytes:
    return edited


class Opened(NamedTuple):
    """A body that was opened.

    `closed` raises BodyError for an edit that its format cannot hold.
    """

    json: bytes  # for `parse_json`; any bytes if the body has no known format
    format: str | None = None  # "gzip", "msgpack", "zstd+avro"; None: the bytes are the body's own
    closed: Callable[[bytes], bytes] = _unchanged  # an edited `json` as a body
    problem: str | None = None  # why a part of it is still encoded
