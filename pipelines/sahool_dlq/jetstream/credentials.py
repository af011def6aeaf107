"""Logins in files: a JWT, and the seed of the user's key.

nats-py reads credentials files at each connection: without a JWT in it, it loops for ever; other
damage raises an error that ends the connection permanently.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sahool_dlq.errors import SettingsError
from sahool_dlq.jetstream.nkeys import public_key, seed_fault

_JWT = re.compile(r"BEGIN NATS USER JWT-+\s+(\S+)")
_SEED = re.compile(r"BEGIN USER NKEY SEED-+\s+(\S+)")
_BARE_SEED = re.compile(r"^\s*(S[A-Z2-7]{20,})\s*$", re.MULTILINE)  # as `nk -gen user` writes it
_CREATE = "create the file again (nsc generate creds)"
_CREATE_SEED = "write a user's seed into it (nk -gen user)"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's JWT, and the seed of its key."""

    jwt: str = field(repr=False)
    seed: str = field(repr=False)
    user: str | None  # the name in the JWT
    key: str | None = None  # the public key in the JWT
    expires: datetime | None = None

    def fault(self, now: datetime) -> str | None:
        """Why no server accepts these; None if a server may."""
        if self.expires is not None and self.expires <= now:
            return f"the JWT has expired at {self.expires:%Y-%m-%d %H:%M} UTC: renew it"
        if self.key is not None and self.key != public_key(self.seed):
            return "the seed does not belong to the key in the JWT: use the matching seed"
        return None


def read_credentials(file: Path | str) -> Credentials:
    """The content of a credentials file; raises SettingsError, without a part of it."""
    kind = "credentials file"
    text = _text(file, kind, _CREATE)
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None:
        raise _damaged(kind, file, "has no user's JWT", _CREATE)
    if seed is None:
        raise _damaged(kind, file, "has no seed of a user's key", _CREATE)
    if (fault := seed_fault(seed[1])) is not None:
        raise _damaged(kind, file, fault, _CREATE)
    try:
        return credentials(jwt[1], seed[1])
    except ValueError:
        raise _damaged(kind, file, "has a JWT that cannot be decoded", _CREATE) from None


def credentials(jwt: str, seed: str) -> Credentials:
    """A JWT and its seed; raises ValueError if the JWT cannot be decoded."""
    claims = _claims(jwt)
    user, key, expires = claims.get("name"), claims.get("sub"), claims.get("exp")
    return Credentials(
        jwt,
        seed,
        user if isinstance(user, str) else None,
        key if isinstance(key, str) else None,
        datetime.fromtimestamp(expires, UTC) if isinstance(expires, int) and expires else None,
    )


def read_seed(file: Path | str) -> str:
    """The seed in a file with only a seed, or in a credentials file.

    Raises SettingsError, without a part of it.
    """
    kind = "seed file"
    text = _text(file, kind, _CREATE_SEED)
    found = _SEED.search(text) or _BARE_SEED.search(text)
    if found is None:
        raise _damaged(kind, file, "has no seed of a user's key", _CREATE_SEED)
    if (fault := seed_fault(found[1])) is not None:
        raise _damaged(kind, file, fault, _CREATE_SEED)
    return found[1]


def _text(file: Path | str, kind: str, remedy: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(f"There is no NATS {kind} {file}: name one that exists.") from None
    except OSError as error:
        raise SettingsError(
            f"The NATS {kind} {file} cannot be read ({error.strerror}): let this user read it."
        ) from None
    except ValueError:
        raise _damaged(kind, file, "is no text", remedy) from None


def _damaged(kind: str, file: Path | str, what: str, remedy: str) -> SettingsError:
    return SettingsError(f"The NATS {kind} {file} {what}: {remedy}.")


def _claims(jwt: str) -> dict[str, object]:
    header, claims, signature = jwt.split(".")
    parts = [json.loads(_decoded(each)) for each in (header, claims)]
    if not (_decoded(signature) and all(isinstance(part, dict) for part in parts)):
        raise ValueError
    return dict(parts[1])


def _decoded(part: str) -> bytes:
    padded = part + "=" * (-len(part) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)
