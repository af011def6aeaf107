"""NKeys: Ed25519 keys in the format of NATS, base32 with a prefix and a CRC16 checksum.

nats-py uses the package `nkeys` for this, which has no wheel; `cryptography` has one and can sign.
"""

import base64
import binascii
from typing import Any

from sahool_dlq.errors import MissingPackageError

_SEED_BYTES = 36  # two of prefix, 32 of seed, two of checksum
_USER_SEED = "SU"  # how each user's begins
_USER = 20 << 3  # the prefix of a user's public key: the letter U


def seed_fault(seed: str) -> str | None:
    """The problem of a user's seed; None if it is valid."""
    if not seed.startswith(_USER_SEED):
        return "has a seed that is not a user's"
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        return "has a seed that is not valid base32"
    if len(raw) != _SEED_BYTES:
        return "has a seed of the wrong length"
    if _checksum(raw[:-2]) != raw[-2:]:
        return "has a seed whose checksum is wrong"
    return None


def sign(seed: str, nonce: str) -> bytes:
    """The signature of a server's nonce in base64, as nats-py's `signature_cb` returns it.

    Raises MissingPackageError without `cryptography`; the seed must be valid.
    """
    return base64.b64encode(_private_key(seed).sign(nonce.encode()))


def public_key(seed: str) -> str:
    """The user's public key, `U…`; raises as `sign` does."""
    raw = bytes([_USER]) + _private_key(seed).public_key().public_bytes_raw()
    return base64.b32encode(raw + _checksum(raw)).decode().rstrip("=")


def _checksum(raw: bytes) -> bytes:
    return binascii.crc_hqx(raw, 0).to_bytes(2, "little")


def check_installed() -> None:
    """Raise MissingPackageError if no package here can sign."""
    _ed25519()


def _private_key(seed: str) -> Any:
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    return _ed25519().Ed25519PrivateKey.from_private_bytes(raw[2:-2])


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingPackageError(
            "A login by NKey, JWT or credentials file needs the package cryptography:"
            " pip install 'sahool-dlq[nkeys]'."
        ) from None
    return ed25519
