"""Addresses of NATS servers: parsed in one place, and printed without their logins.

nats-py takes a login from an address without decoding it, and `/`, `?` and `#` end it. So it gets
addresses without logins, and the logins separately.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, Field, SecretStr

from sahool_dlq.errors import SettingsError

_SCHEMES = ("nats", "tls", "ws", "wss")
_PORT = 4222  # of the schemes that are no web sockets
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+)(?::(\d{0,5}))?")
_EXAMPLE = "nats://user:password@host:4222"

Server = str | SecretStr
"""An address as given; it may contain a password."""


def _hidden(servers: Sequence[Server]) -> Sequence[Server]:
    return [SecretStr(server) if isinstance(server, str) else server for server in servers]


Servers = Annotated[Sequence[Server], AfterValidator(_hidden), Field(repr=False)]
"""Addresses as a field of settings: printing, dumping or logging them shows no password."""


@dataclass(frozen=True, slots=True)
class Address:
    """One server's address; `str` of it has no login."""

    scheme: str
    host: str  # with the port, where one is given or usual
    path: str = field(default="", repr=False)  # of a web socket; it may hold secrets, too
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address for nats-py, without a login."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def login(self) -> dict[str, str]:
        """The login as nats-py's options `user`, `password` and `token`; empty if there is none."""
        login = {"user": self.user, "password": self.password, "token": self.token}
        return {name: value for name, value in login.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


def read_address(server: Server) -> Address:
    """An address: `nats://user:password@host:4222`, or `token@host`, with or without the scheme.

    In a user, password or token, percent-encoded characters are decoded and all others are literal;
    a `:` in a user must be encoded. Raises SettingsError, without a part of the text, if it is not
    valid.
    """
    text = revealed(server).strip()
    known = _SCHEME.match(text)
    scheme = known[1].lower() if known else "nats"
    rest = text[known.end() :] if known else text
    login, at, place = rest.rpartition("@")  # a host has no @, so the last ends the login
    host, path = _split(place)
    found = _HOST.fullmatch(host)
    if scheme not in _SCHEMES or found is None or int(found[2] or 0) > 65_535:
        raise SettingsError(
            f"The NATS address is not valid: write {_EXAMPLE}, and percent-encode special"
            f" characters in the password (%40 for @)."
        )
    is_web_socket = scheme in ("ws", "wss")
    port = found[2] or ("" if is_web_socket else _PORT)
    host = f"{found[1]}:{port}" if port else found[1]
    user, colon, password = login.partition(":")
    return Address(
        scheme,
        host,
        path if is_web_socket else "",
        user=_decoded(user) if colon else None,
        password=_decoded(password) if colon else None,
        token=_decoded(login) if at and not colon else None,
    )


def split_servers(text: Server) -> list[SecretStr]:
    """The addresses in a comma-separated setting.

    Raises SettingsError if a comma may belong to a password.
    """
    servers = [each.strip() for each in revealed(text).split(",")]
    if any("@" in each and "://" not in each for each in servers[1:]):
        raise SettingsError(
            f"The list of NATS addresses is ambiguous: write each as {_EXAMPLE}, and %2C for a"
            f" comma"
            " in a password."
        )
    return [SecretStr(each) for each in servers if each]


def shown(servers: Sequence[Server]) -> str:
    """Addresses for display, without logins."""
    return ", ".join(str(read_address(server)) for server in servers)


def revealed(server: Server) -> str:
    """An address with its login, for connecting."""
    return server.get_secret_value() if isinstance(server, SecretStr) else server


def _split(place: str) -> tuple[str, str]:
    end = min((at for mark in "/?#" if (at := place.find(mark)) >= 0), default=len(place))
    return place[:end], place[end:]


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text  # not an encoded character: it is literal
