"""The text in a body's bytes, as an event handler may read it, and the way back to bytes.

Standard library only, because every service that consumes events imports it.
"""

import codecs
import gzip
import io
import json
import zlib
from typing import NamedTuple

__all__ = ["LARGEST_INFLATED", "Form", "InflateError", "inflated", "text_of"]

LARGEST_INFLATED = 8 * 1024 * 1024
"""Maximum bytes of a body after decompression; larger ones are not read."""

_GZIP = b"\x1f\x8b\x08"  # no text begins with this, so no header is needed
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)


class InflateError(ValueError):
    """A gzip body that is damaged, or larger than LARGEST_INFLATED after decompression."""


class Form(NamedTuple):
    """The encoding of a text in bytes."""

    bom: bytes
    charset: str
    is_gzip: bool

    def bytes_of(self, text: str) -> bytes:
        """The text, encoded in this form."""
        data = self.bom + text.encode(self.charset, "surrogatepass")
        return gzip.compress(data, mtime=0) if self.is_gzip else data


def text_of(data: bytes) -> tuple[str, Form]:
    """The text that Python's `json.loads` would read in a body, decompressed first if it is gzip.

    Raises InflateError, or ValueError if the bytes are not text.
    """
    is_gzip = data.startswith(_GZIP)
    if is_gzip:
        data = inflated(data)
    bom, charset = next((each for each in _BOMS if data.startswith(each[0])), (b"", ""))
    form = Form(bom, charset or json.detect_encoding(data), is_gzip)
    return data[len(bom) :].decode(form.charset, "surrogatepass"), form


def inflated(data: bytes) -> bytes:
    """The content of a gzip body; raises InflateError."""
    try:
        found = gzip.GzipFile(fileobj=io.BytesIO(data)).read(LARGEST_INFLATED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InflateError(f"its gzip is broken: {error}") from None
    if len(found) > LARGEST_INFLATED:
        raise InflateError(f"it inflates to more than {LARGEST_INFLATED:,} bytes")
    return found
