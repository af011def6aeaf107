"""MessagePack and CBOR: bytes as JSON text, and an edited text as bytes again.

Each `decode_…` returns both; it may raise anything that its library raises.
"""

from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import msgspec

from sahool_dlq.deadletter.decoding.compression import library
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.deadletter.decoding.values import reversible

__all__ = ["Decoded", "decode_cbor", "decode_msgpack"]

Decoded = tuple[str, Callable[[str], bytes]]
"""A body as JSON text, and the function that encodes an edited text."""

# Not by cbor2: references, with which a few bytes can be any size, regular expressions, and MIME.
_LEFT_AS_TAGS = (25, 28, 29, 35, 36, 256)


def decode_msgpack(data: bytes) -> Decoded:
    """A body in MessagePack."""
    return reversible(msgspec.msgpack.decode(data), msgspec.msgpack.encode)


def decode_cbor(data: bytes) -> Decoded:
    """A body in CBOR; it may begin with the tag that describes itself."""
    cbor2, file = library("cbor2"), BytesIO(data)
    value = cbor2.CBORDecoder(file, semantic_decoders=_semantic_decoders()).decode()
    if rest := len(file.read()):
        raise BodyError(f"{rest:,} bytes follow its value")
    mark = data[:3] if data.startswith(b"\xd9\xd9\xf7") else b""
    return reversible(value, lambda edited: bytes(mark + cbor2.dumps(edited)))


@cache
def _semantic_decoders() -> dict[int, Any]:
    cbor2 = library("cbor2")

    def tag(number: int) -> Callable[[Any, bool], Any]:
        return lambda value, _is_immutable: cbor2.CBORTag(number, value)

    return {number: tag(number) for number in _LEFT_AS_TAGS}
