"""Secrets inside base64: text is distinguished from other bytes by its decoded characters."""

import base64
import binascii
import re

__all__ = ["ENCODED", "ENCODED_HINT", "decoded_text", "is_login"]

# Three printable ASCII characters in base64; of random bytes one quad in fourteen looks so.
_QUAD = "[I-Za-f][C-HS-Xi-nyz0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_-]"
ENCODED = re.compile(rf"(?<![A-Za-z0-9+/_-])(?:{_QUAD}){{4,}}[A-Za-z0-9+/_-]*={{0,2}}")
ENCODED_HINT = rf"(?:{_QUAD}){{4}}"
"""For Rust, after `BEGIN` or a dot: the beginning of one."""


def decoded_text(encoded: str) -> str | None:
    """The encoded text; None if there is none."""
    digits = encoded.rstrip("=").replace("-", "+").replace("_", "/")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    try:
        text = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if re.fullmatch(r"[^\x00-\x08\x0e-\x1f\x7f]+", text) else None


def is_login(encoded: str) -> bool:
    """Whether base64 text contains `user:password`."""
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        return ":" in decoded.decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
