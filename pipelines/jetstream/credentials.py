"""NATS credentials files: a user's JWT and the seed of its key.

nats-py reads them whenever it connects: one without a JWT in a loop without end, another damage
with a traceback that ends the connection for good.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import SettingsError

_JWT = re.compile(r"BEGIN NATS USER JWT-+\s+(\S+)")
_SEED = re.compile(r"BEGIN USER NKEY SEED-+\s+(\S+)")
_SEED_BYTES = 36  # two of prefix, 32 of seed, two of checksum
_USER_SEED = b"SU"  # how each user's begins
_CREATE = "create the file anew (nsc generate creds)"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a credentials file holds."""

    jwt: str = field(repr=False)
    seed: bytes = field(repr=False)
    user: str | None  # the name in the JWT


def read_credentials(file: Path | str) -> Credentials:
    """A credentials file's content; raises SettingsError, which quotes nothing of it."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"There is no NATS credentials file {file}: name one that exists."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"The NATS credentials file {file} can not be read ({error.strerror}): let this user"
            " read it."
        ) from None
    except ValueError:
        raise _damaged(file, "is no text") from None
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None:
        raise _damaged(file, "has no user's JWT")
    if seed is None:
        raise _damaged(file, "has no seed of a user's key")
    if (fault := _seed_fault(seed[1].encode())) is not None:
        raise _damaged(file, fault)
    try:
        claims = _claims(jwt[1])
    except ValueError:
        raise _damaged(file, "has a JWT that can not be decoded") from None
    user = claims.get("name")
    return Credentials(jwt[1], seed[1].encode(), user if isinstance(user, str) else None)


def _damaged(file: Path | str, what: str) -> SettingsError:
    return SettingsError(f"The NATS credentials file {file} {what}: {_CREATE}.")


def _claims(jwt: str) -> dict[str, object]:
    header, claims, signature = jwt.split(".")
    parts = [json.loads(_decoded(each)) for each in (header, claims)]
    if not (_decoded(signature) and all(isinstance(part, dict) for part in parts)):
        raise ValueError
    return dict(parts[1])


def _decoded(part: str) -> bytes:
    padded = part + "=" * (-len(part) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)


def _seed_fault(seed: bytes) -> str | None:
    if not seed.startswith(_USER_SEED):
        return "has a seed that is not a user's"
    try:
        raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    except binascii.Error:
        return "has a seed that is no base32"
    if len(raw) != _SEED_BYTES:
        return "has a seed of another length"
    if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        return "has a seed whose checksum is wrong"
    return None
