"""Operators, accounts and users as `nsc` makes them, and a server's configuration of them."""

import base64
import binascii
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_SEED = 18 << 3


def _encoded(raw: bytes) -> str:
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


class Key:
    """A key of one kind, as NATS writes it."""

    def __init__(self, kind: str) -> None:
        raw, number = os.urandom(32), _KINDS[kind]
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public = _encoded(bytes([number]) + self._key.public_key().public_bytes_raw())
        self.seed = _encoded(bytes([_SEED | number >> 5, (number & 31) << 3]) + raw)

    def token(
        self,
        of: "Key",
        name: str,
        kind: str,
        seconds: float | None = None,
        permissions: dict[str, Any] | None = None,
    ) -> str:
        """The JWT of another key, signed by this one."""
        nats: dict[str, object] = {"type": kind, "version": 2}
        if kind == "account":
            size = 0 if name == "system" else -1  # no JetStream there
            limits = {"mem_storage": size, "disk_storage": size, "streams": size, "consumer": size}
            nats["limits"] = {"subs": -1, "data": -1, "payload": -1, "conn": -1, **limits}
        elif kind == "user":
            nats |= {"subs": -1, "data": -1, "payload": -1, **(permissions or {})}
        now = int(time.time())
        claims: dict[str, Any] = {"jti": name, "iat": now, "iss": self.public, "name": name}
        claims |= {"sub": of.public, "nats": nats}
        if seconds is not None:
            claims["exp"] = int(time.time() + seconds)
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        parts = [_part(json.dumps(each).encode()) for each in (header, claims)]
        return ".".join([*parts, _part(self._key.sign(".".join(parts).encode()))])


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Operator:
    """An operator whose servers know `account`, with JetStream, and the system account."""

    def __init__(self) -> None:
        self._key, self.account, self._system = map(Key, ("operator", "account", "account"))

    def config(self) -> str:
        """Lines of a server's configuration, with all JWTs in memory."""
        known = (
            f"{each.public}: {self._key.token(each, name, 'account')}"
            for name, each in (("dlq", self.account), ("system", self._system))
        )
        return (
            f"operator: {self._key.token(self._key, 'O', 'operator')}\nresolver: MEMORY\n"
            f"system_account: {self._system.public}\nresolver_preload: {{ {', '.join(known)} }}"
        )

    def user(
        self,
        user: Key,
        name: str,
        seconds: float | None = None,
        *,
        publish: Sequence[str] = (),
        subscribe: Sequence[str] = (),
    ) -> str:
        """A user's JWT, valid for so many seconds, or without limit.

        With `publish` or `subscribe`, it may use these subjects only.
        """
        allowed = {"pub": {"allow": list(publish)}, "sub": {"allow": list(subscribe)}}
        permissions = allowed if publish or subscribe else None
        return self.account.token(user, name, "user", seconds, permissions)


def creds(jwt: str, seed: str) -> str:
    """A credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
