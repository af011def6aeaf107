"""Missing permissions are reported at once, in one sentence; nats-py would only wait.

The server reports a missing permission with an error that names the subject, in a separate protocol
line. nats-py only logs it, and the request times out, as in an outage.
"""

import asyncio
import re
from collections import deque
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.protocol.command import hpub_cmd

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.acks import ACKS, all_of_consumer
from sahool_dlq.jetstream.headers import encode_headers
from sahool_dlq.jetstream.login import Login
from sahool_dlq.jetstream.tls import EncryptingClient

_VIOLATION = re.compile(r"'?permissions violation for (publish|subscription) to \"([^\"]+)\"")
_VERBS = {"publish": "publish to", "subscription": "subscribe to"}
# Errors with which a server ends a connection whose login was valid at first.
_RENEWABLE = (
    "user authentication expired",
    "user authentication revoked",
    "account authentication expired",
)
_MOST_SENT = 2_000  # messages whose subjects are remembered until the server may refuse them
_MOST_REFUSALS = 100


class PlainSpokenClient(EncryptingClient):
    """A client whose requests raise NotPermittedError if a right is missing.

    A header that it publishes may have a list of values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sent: deque[tuple[str, str]] = deque(maxlen=_MOST_SENT)  # inbox, subject
        self._refused: dict[str, NotPermittedError] = {}  # by subject
        self._deaf: tuple[int, NotPermittedError] | None = None  # since which reconnect, and why
        self.login: Login | None = None

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, Any] | None = None,
    ) -> None:
        """As nats-py; raises NotPermittedError for a request whose answer could not be received."""
        if self._deaf and self._deaf[0] == self.stats["reconnects"] and self._token(reply):
            raise self._deaf[1]
        self._sent.append((reply, subject))
        await super().publish(subject, payload, reply, headers)

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes,
        payload_size: int,
        headers: dict[str, Any] | None,
    ) -> None:
        """As nats-py, but a header may have several values, and any name that NATS accepts."""
        if not headers:
            await super()._send_publish(subject, reply, payload, payload_size, None)
            return
        command = hpub_cmd(subject, reply, encode_headers(headers), payload)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(command)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    def check_permitted(self, *subjects: str) -> None:
        """Raise NotPermittedError if the server has recently refused one of these subjects."""
        found = [self._refused.pop(each, None) for each in subjects]
        for error in filter(None, found):
            raise error

    async def _process_pong(self) -> None:
        # In nats-py the answer to a ping without a waiter ends the read loop.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.Future()
        await super()._process_pong()

    def _connect_command(self) -> bytes:
        """With the login of the server's own address; servers named by the cluster get the first
        login.
        """
        server = self._current_server
        logins = {each.host: each.login for each in self.addresses if each.login}
        is_of_address = self.login is None or not (self.access.user or self.access.token)
        if logins and server is not None and is_of_address:
            login = logins.get(server.uri.netloc) or next(iter(logins.values()))
            self.options.update({"user": None, "password": None, "token": None} | login)
        if self.login is not None and self.login.nkey is not None:
            self._public_nkey = self.login.nkey()
        self._auth_configured = self._auth_configured or self._signature_cb is not None
        return super()._connect_command()

    def jetstream(self, **options: Any) -> JetStreamContext:
        """JetStream at its API: in a domain, or with another account's prefix."""
        return super().jetstream(**{"prefix": self.access.api_prefix, **options})

    async def _process_err(self, err_msg: str) -> None:
        if self.is_connected and any(each in err_msg for each in _RENEWABLE):
            # nats-py would stop permanently; but the files are read again, and may have been
            # renewed.
            ended = nats.errors.Error(f"nats: {err_msg.strip(chr(39))}")
            await self._error_cb(ended)
            await self._process_op_err(ended)
            return
        violation = _VIOLATION.match(err_msg)
        if violation is None:
            await super()._process_err(err_msg)
            return
        verb, refused = violation.groups()
        error, requests = self._refusal(verb, refused)
        self._err = error
        waiting = [self._resp_map[token] for token in requests if token in self._resp_map]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
        if not waiting:
            await self._error_cb(error)

    def _refusal(self, verb: str, refused: str) -> tuple[NotPermittedError, list[str]]:
        """The error, and the tokens of the affected requests."""
        # nats-py has converted the server's text to lower case.
        if verb == "publish":
            about = [(inbox, sent) for inbox, sent in self._sent if sent.lower() == refused]
            subject = about[-1][1] if about else refused
            error = self._error("publish to", subject)
            requests = [self._token(inbox) for inbox, _ in about]
        else:
            subjects = (sub.subject for sub in self._subs.values())
            subject = next((each for each in subjects if each.lower() == refused), refused)
            error = self._error("subscribe to", subject)
            requests = []
            if self._token(subject) == "*":
                self._deaf = self.stats["reconnects"], error
                requests = list(self._resp_map)
        if len(self._refused) >= _MOST_REFUSALS:
            self._refused.clear()
        self._refused[subject] = error
        return error, requests

    def _token(self, inbox: str) -> str:
        """The part of an inbox that identifies a request on this connection; empty for other
        subjects.
        """
        prefix = bytes(self._resp_sub_prefix or b"").decode()
        return inbox[len(prefix) :] if prefix and inbox.startswith(prefix) else ""

    def _error(self, what: str, subject: str) -> NotPermittedError:
        inbox = self._inbox_prefix.decode()
        if subject.startswith(ACKS):  # each message's own is another
            subject = all_of_consumer(subject)
        elif subject.startswith(f"{inbox}."):
            subject = f"{inbox}.>"
        user = self.options.get("user") or "this user"
        return NotPermittedError(
            f"NATS does not permit {user} to {what} {subject}: grant it, or use a user whose role"
            " has that right (docs/security.md)."
        )


def check_permitted(connection: Client, *subjects: str) -> None:
    """Raise NotPermittedError if the server has recently refused one of these subjects.

    A client that is not ours remembers only its last error.
    """
    if isinstance(connection, PlainSpokenClient):
        connection.check_permitted(*subjects)
    elif refused := _VIOLATION.search(str(connection.last_error)):
        for subject in subjects:
            if subject.lower() == refused[2].lower():
                raise NotPermittedError(
                    f"NATS does not permit this user to {_VERBS[refused[1]]} {subject}: grant it"
                    " (docs/security.md)."
                )


async def check_heard(connection: Client, *subjects: str) -> None:
    """Wait until the server knows these subscriptions; raises NotPermittedError as above."""
    for _ in range(2):  # nats-py's first ping may overtake what it has not written yet
        await connection.flush()
    check_permitted(connection, *subjects)
