"""Decompresses a body of gzip or zstd, up to a size, and compresses it again."""

import gzip
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from sahool_dlq.deadletter.body import LARGEST_INFLATED, inflated
from sahool_dlq.deadletter.decoding.opened import BodyError

__all__ = ["COMPRESSIONS", "Compression", "library"]

_FED = 64  # compressed bytes at once: four of them can be 128 KiB


class Compression(NamedTuple):
    """One kind of compression."""

    name: str  # as in Content-Encoding
    magic: bytes  # no JSON begins with it, so no header is needed
    expand: Callable[[bytes], bytes]  # raises BodyError
    compress: Callable[[bytes], bytes]


def library(name: str) -> Any:
    """A module of the extra `decoders`; raises BodyError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("google", "protobuf")
        raise BodyError(
            f"{package} is not installed: pip install 'sahool-dlq[decoders]'"
        ) from error


def _gunzipped(data: bytes) -> bytes:
    try:
        return inflated(data)
    except ValueError as error:
        raise BodyError(str(error)) from error


def _gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _unzstd(data: bytes) -> bytes:
    zstandard = library("zstandard")
    found = bytearray()
    try:
        while data:
            frame = zstandard.ZstdDecompressor().decompressobj()
            position = 0
            while position < len(data) and not frame.eof:
                found += frame.decompress(data[position : position + _FED])
                position += _FED
                if len(found) > LARGEST_INFLATED:
                    raise BodyError(f"it inflates to more than {LARGEST_INFLATED:,} bytes")
            if not frame.eof:
                raise BodyError("its zstd is broken: it ends too early")
            data = frame.unused_data + data[position:]
    except zstandard.ZstdError as error:
        raise BodyError(f"its zstd is broken: {error}") from error
    return bytes(found)


def _zstd(data: bytes) -> bytes:
    return bytes(library("zstandard").compress(data))


COMPRESSIONS = (
    Compression("gzip", b"\x1f\x8b\x08", _gunzipped, _gzipped),
    Compression("zstd", b"\x28\xb5\x2f\xfd", _unzstd, _zstd),
)
