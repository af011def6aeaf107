"""How to connect to NATS: one value for jobs and services, built once.

Missing values come from the named context, from the environment of the `nats` command, or from its
selected context. docs/connecting.md has the order.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, model_validator

from sahool_dlq.errors import SettingsError
from sahool_dlq.jetstream.address import Server, Servers, read_address, split_servers
from sahool_dlq.jetstream.contexts import FIELDS, read_context, selected_context

_LOGIN = ("user_credentials", "nkey", "user_jwt", "user_seed", "user", "password", "token")
# Values that belong together come from one place: a password with another user is not a login.
_TOGETHER = (
    ("servers",),
    _LOGIN,
    ("ca",),
    ("cert", "key"),
    ("tls_first",),
    ("inbox_prefix",),
    ("jetstream_domain", "jetstream_api_prefix"),
)
_NAME = re.compile(r"[^\s.*>]+")
_PREFIX = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
COMPLETE = "complete"
"""Pydantic's validation context: all values are given, no other source is read."""
_TRUE = ("1", "true", "yes", "on")


class Access(BaseModel):
    """The servers, our login, the trusted CAs, and the location of JetStream's API.

    The fields are the keys of a context of the `nats` command, except `servers` (there `url`) and
    `user_credentials` (there `creds`). Files are read for each connection, because they may be
    renewed. Raises SettingsError if a value is not valid, or a context cannot be read.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)  # which may be a password

    context: str | None = None  # of the `nats` command; fills in what is not given here
    servers: Servers = Field(default_factory=lambda: [SecretStr("nats://localhost:4222")])
    user_credentials: str | None = None  # path of a NATS credentials file
    nkey: str | None = None  # path of a file with the seed of a user's NKey
    user_jwt: SecretStr | None = None  # the JWT itself; its seed is in nkey or user_seed
    user_seed: SecretStr | None = None  # the seed itself, instead of the file nkey
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    ca: str | None = None  # path: the only CAs that may sign servers' certificates
    cert: str | None = None  # path: our certificate, if a server requires one
    key: str | None = None  # path: its key
    tls_first: bool = False  # for servers with handshake_first
    inbox_prefix: str | None = None  # default _INBOX.<user>
    jetstream_domain: str | None = None
    jetstream_api_prefix: str | None = None  # of streams that another account exports

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any, info: ValidationInfo) -> Any:
        is_complete = info.context == COMPLETE or not isinstance(given, dict)
        return given if is_complete else completed(given, os.environ)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if problem := _problem(self):
            raise SettingsError(f"How to connect to NATS is not valid: {problem}.")
        return self

    @property
    def api_prefix(self) -> str:
        """The prefix of JetStream's API subjects, without the dot."""
        if self.jetstream_domain:
            return f"$JS.{self.jetstream_domain}.API"
        return (self.jetstream_api_prefix or "$JS.API").rstrip(".")

    @property
    def wants_tls(self) -> bool:
        """Whether nothing may be sent unencrypted, whatever the addresses are."""
        return bool(self.ca or self.cert or self.tls_first)


def access_elsewhere(context: str | None, server: str | None, environ: Mapping[str, str]) -> Access:
    """How to connect to another NATS than that of the settings: by a context, or an address.

    The environment's `NATS_*` belong to the other one, so nothing of them is used. Raises
    SettingsError for a context that cannot be read.
    """
    given: dict[str, Any] = {"context": context, "servers": server and split_servers(server)}
    others = {name: value for name, value in environ.items() if not name.startswith("NATS_")}
    return Access.model_validate(completed(given, others), context=COMPLETE)


def completed(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The given values, completed from the context, the environment or the selected context."""
    found = {name: value for name, value in given.items() if value is not None}
    _add_context(found, given.get("context"), environ)
    said = {key: environ[f"NATS_{key.upper()}"] for key in FIELDS if _said(environ, key)}
    if "tls_first" in said:
        _add(found, {"tls_first": said.pop("tls_first").lower() in _TRUE})
    _add(found, _as_fields(said))
    if "context" not in found and _said(environ, "context"):
        _add_context(found, environ["NATS_CONTEXT"], environ)
    elif "context" not in found and "servers" not in found:
        _add_context(found, selected_context(environ), environ)
    return found


def _add_context(found: dict[str, Any], name: str | None, environ: Mapping[str, str]) -> None:
    if name:
        found["context"] = name
        _add(found, _as_fields(read_context(name, environ)))


def _as_fields(said: Mapping[str, Any]) -> dict[str, Any]:
    fields = {FIELDS[key]: value for key, value in said.items()}
    if "servers" in fields:
        fields["servers"] = split_servers(fields["servers"])
    return fields


def _add(found: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add missing values; values that belong together only as a whole."""
    has_login = _have_login(found.get("servers", ()))
    taken = [
        name
        for together in _TOGETHER
        if not any(name in found for name in together) and not (together is _LOGIN and has_login)
        for name in together
    ]
    found.update({name: more[name] for name in taken if name in more})


def _have_login(servers: Any) -> bool:
    try:
        return any(read_address(each).login for each in servers)
    except (SettingsError, TypeError):
        return False  # the connection reports this


def _said(environ: Mapping[str, str], key: str) -> bool:
    return bool(environ.get(f"NATS_{key.upper()}"))


def _problem(access: Access) -> str | None:
    if bool(access.cert) != bool(access.key):
        return "a client certificate needs both cert and key, and one of them is missing"
    if access.user_jwt and not (access.nkey or access.user_seed):
        return "a user_jwt needs the seed of its key, as nkey or user_seed"
    if access.nkey and access.user_seed:
        return "nkey and user_seed are both given: give one of them"
    logins = {
        "creds": access.user_credentials,
        "nkey, user_jwt or user_seed": access.nkey or access.user_jwt or access.user_seed,
        "user": access.user or access.password,
        "token": access.token,
    }
    if len(several := [name for name, value in logins.items() if value]) > 1:
        return f"it has several logins ({' and '.join(several)}): give only one"
    if access.password and not access.user:
        return "there is a password but no user"
    if access.jetstream_domain and access.jetstream_api_prefix:
        return "jetstream_domain and jetstream_api_prefix are both given: give one of them"
    if access.jetstream_domain and not _NAME.fullmatch(access.jetstream_domain):
        return "jetstream_domain is not a valid subject token"
    for name in ("jetstream_api_prefix", "inbox_prefix"):
        value = getattr(access, name)
        if value and not _PREFIX.fullmatch(value.rstrip(".")):
            return f"{name} is not a valid subject prefix"
    return None


def access_to(servers: Server | Sequence[Server]) -> Access:
    """How to connect to these addresses, comma-separated or as a list."""
    several = split_servers(servers) if isinstance(servers, (str, SecretStr)) else servers
    return Access(servers=several)
