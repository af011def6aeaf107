"""The login of a connection for nats-py, and the reason if a server refuses it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import DEFAULT_INBOX_PREFIX

from sahool_dlq.deadletter.subjects import subject_token
from sahool_dlq.errors import SettingsError
from sahool_dlq.jetstream import nkeys
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.address import Address
from sahool_dlq.jetstream.credentials import (
    Credentials,
    credentials,
    read_credentials,
    read_seed,
)

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Login:
    """A login; its files are read anew for each connection."""

    user: str | None  # the name in its inboxes; none for a token or a certificate
    options: dict[str, Any]  # nats-py's
    nkey: Callable[[], str] | None  # the public key that is sent, where no JWT says it
    fault: Callable[[], str]  # if a server refuses it: the reason, as far as known


def login_of(access: Access, addresses: Sequence[Address]) -> Login:
    """The login in `access`, else that of the addresses.

    Raises SettingsError for a missing or damaged file, MissingPackageError if no package here can
    sign.
    """
    if file := access.user_credentials:
        return _by_jwt(read_credentials, file, f"of {file}")
    if access.user_jwt:
        return _by_jwt(_jwt_and_seed, access, "by user_jwt")
    if access.nkey or access.user_seed:
        return _by_nkey(access)
    user, password = access.user, access.password
    if user:
        secret = password.get_secret_value() if password else ""
        fault = f"of user {user}: check the user and the password"
        return Login(user, {"user": user, "password": secret}, None, lambda: fault)
    if access.token:
        options = {"token": access.token.get_secret_value()}
        return Login(None, options, None, lambda: "by token: check the token")
    users = next((each.user for each in addresses if each.user), None)
    options = next((each.login for each in addresses if each.login), {})
    return Login(users, options, None, lambda: _by_address(access, options))


def inbox_prefix(access: Access, login: Login) -> str:
    """The prefix of a user's reply subjects: `_INBOX.<user>`, so that rights can be limited to it.

    Whoever may subscribe to `_INBOX.>` gets the server's replies to others, such as the drain's
    dead letters. The user is that of the login (for an NKey its public key); without one the prefix
    is `_INBOX`.
    """
    if access.inbox_prefix:
        return access.inbox_prefix.rstrip(".")
    default = DEFAULT_INBOX_PREFIX.decode()
    return f"{default}.{subject_token(login.user)}" if login.user else default


def _by_jwt(function: Callable[[Any], Credentials], source: Any, whose: str) -> Login:
    nkeys.check_installed()
    first = function(source)
    read = partial(_read, function, source)

    def fault() -> str:
        found = read()
        user = f" for user {found.user}" if found.user else ""
        return f"{whose}{user}: {found.fault(datetime.now(UTC)) or _UNKNOWN_JWT}"

    options = {
        "user_jwt_cb": lambda: read().jwt.encode(),
        "signature_cb": lambda nonce: nkeys.sign(read().seed, nonce),
    }
    return Login(first.user, options, None, fault)


_UNKNOWN_JWT = (
    "check that the server knows its account and signer and has not revoked it, or use another"
)


def _by_nkey(access: Access) -> Login:
    nkeys.check_installed()
    first = nkeys.public_key(_seed(access))
    read = partial(_read, _seed, access)
    options = {"signature_cb": lambda nonce: nkeys.sign(read(), nonce)}

    def fault() -> str:
        key = nkeys.public_key(read())
        return f"by NKey {key}: add this key to the server's users, or use another seed"

    return Login(first, options, lambda: nkeys.public_key(read()), fault)


def _by_address(access: Access, login: dict[str, str]) -> str:
    if login:
        return "in the address: check its user and password (DLQ_NATS_URL)"
    if access.cert:
        return f"by the certificate {access.cert}: check to which user the server maps it"
    return (
        "because none was given: give a user and password, creds, an NKey or a token"
        " (docs/connecting.md)"
    )


def _seed(access: Access) -> str:
    if access.nkey:
        return read_seed(access.nkey)
    assert access.user_seed is not None
    seed = access.user_seed.get_secret_value().strip()
    if (fault := nkeys.seed_fault(seed)) is not None:
        raise SettingsError(f"NATS user_seed {fault}: give a user's seed (nk -gen user).")
    return seed


def _jwt_and_seed(access: Access) -> Credentials:
    assert access.user_jwt is not None
    try:
        return credentials(access.user_jwt.get_secret_value().strip(), _seed(access))
    except ValueError:
        raise SettingsError(
            "NATS user_jwt cannot be decoded: give a user's JWT (nsc describe user --raw)."
        ) from None


class UnreadableError(nats.errors.Error):
    """A file of a login cannot be read now; the message says why."""


def _read(function: Callable[[Any], Read], source: Any) -> Read:
    """For nats-py, which stops trying to connect after any error that is not its own."""
    try:
        return function(source)
    except SettingsError as error:
        raise UnreadableError(str(error)) from None
