"""Tokens of `dlq serve`: who a program or person is, and what they may do.

The file holds a SHA-256 of each token, never the token. A token has 256 random bits, so a slow hash
would protect nothing more. The file is read for each request: a removed token ends at once.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sahool_dlq.embedded.private import write_private
from sahool_dlq.errors import SettingsError, UnknownNameError
from sahool_dlq.settings import Settings

__all__ = ["RIGHTS", "Token", "Tokens"]

RIGHTS: dict[str, frozenset[str]] = {
    "analyst": frozenset({"read"}),
    "planner": frozenset({"read", "plan"}),
    "redriver": frozenset({"read", "plan", "act"}),
    "alerts": frozenset({"read", "acknowledge"}),
    "auditor": frozenset({"audit"}),
}
"""The rights of each role, see docs/security.md."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret."""

    name: str  # the actor in the audit
    roles: tuple[str, ...]
    sha256: str
    created_at: str  # ISO 8601

    @property
    def rights(self) -> frozenset[str]:
        """All rights of its roles."""
        return frozenset[str]().union(*(RIGHTS[role] for role in self.roles))

    def as_dict(self) -> dict[str, Any]:
        """For people: without the hash."""
        return {"name": self.name, "roles": list(self.roles), "created_at": self.created_at}


class Tokens:
    """The tokens of one file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.file: Path = settings.tokens_file or settings.home / "tokens.json"

    def all(self) -> list[Token]:
        """Every token; none if there is no file. Raises SettingsError for a file that is not valid,
        or that others may change.
        """
        try:
            if self.file.stat().st_mode & 0o022:
                raise SettingsError(
                    f"Other users may change {self.file}, and so give themselves rights: chmod"
                    " go-w it."
                )
            return [_token(each) for each in json.loads(self.file.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SettingsError(f"{self.file} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(
                f"{self.file} is not a file of `dlq tokens` ({error}): repair it, or delete it and"
                " create the tokens again."
            ) from error

    def holder(self, secret: str) -> Token | None:
        """Whose token this is; every token is compared, each in constant time."""
        digest, found = _digest(secret), None
        for token in self.all():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def add(self, name: str, roles: Iterable[str]) -> str:
        """Create a token; returns its secret, which is stored nowhere."""
        roles = tuple(dict.fromkeys(roles))
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{name[:80]!r} is not a name of a token: letters, digits and . _ -, at most 64."
            )
        if self._settings.masked(name) != name:
            raise SettingsError(
                f"{name!r} looks like a secret, which the audit would mask: give another name."
            )
        if not roles:
            raise SettingsError(f"Say what the token may do: --role {', '.join(RIGHTS)}.")
        known = self.all()
        if any(token.name == name for token in known):
            raise SettingsError(
                f"There is a token {name} already: remove it first (`dlq tokens remove {name}`)."
            )
        secret = f"dlq_{secrets.token_urlsafe(32)}"
        made = Token(name, roles, _digest(secret), datetime.now(UTC).isoformat(timespec="seconds"))
        self._write([*known, made])
        return secret

    def remove(self, name: str) -> Token:
        """Remove a token: it is refused from now on. Raises UnknownNameError if there is none."""
        known = self.all()
        for token in known:
            if token.name == name:
                self._write([each for each in known if each is not token])
                return token
        raise UnknownNameError(f"There is no token {name!r}: `dlq tokens` lists them.")

    def _write(self, tokens: list[Token]) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_private(self.file, json.dumps([asdict(each) for each in tokens], indent=2) + "\n")
        except OSError as error:
            raise SettingsError(f"{self.file} cannot be written: {error.strerror}.") from error


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(stored: dict[str, Any]) -> Token:
    token = Token(**{**stored, "roles": tuple(stored["roles"])})
    if unknown := set(token.roles) - set(RIGHTS):
        raise ValueError(f"no role {', '.join(sorted(unknown))}")
    if not _NAME.fullmatch(token.name) or not re.fullmatch("[0-9a-f]{64}", token.sha256):
        raise ValueError(f"the token {token.name!r} is not valid")
    return token
