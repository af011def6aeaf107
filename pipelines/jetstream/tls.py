"""TLS with NATS: nothing in clear where an address says `tls://`, and a sentence for each fault.

nats-py takes `tls://` for a wish: where the server does not demand TLS, it sends the login in
clear. And where a handshake fails, it waits for ever for the connection's end.
"""

import ssl
from collections.abc import Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from pipelines.jetstream.address import Address

_ENCRYPTED = ("tls", "wss")
_NO_TLS = (
    "offers no TLS, and its address says tls://, so nothing was sent to it: set TLS up there, or"
    " write nats:// where the network itself is safe."
)
_WANTS_CERTIFICATE = (
    "wants a client certificate, and this client has none: let users log in by password or"
    " credentials file (without `verify` in its tls block)."
)
# OpenSSL's numbers of what is wrong with a certificate.
_UNKNOWN_CA = (2, 18, 19, 20, 21)
_TOO_EARLY, _EXPIRED, _WRONG_NAMES = 9, 10, (62, 64)


class TLSRefusedError(nats.errors.Error):
    """What a server announces can not do, so it was sent nothing; the message says why."""


class EncryptingClient(Client):
    """A client that keeps to `tls://`, and that a failed handshake does not stop."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: Sequence[Address] = ()  # with the logins, which nats-py's pool has not
        self.tls_fault: str | None = None  # of the last handshakes: a sentence

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Called between INFO and CONNECT, of each connection."""
        server = self._current_server
        # A server that the cluster named counts as well: nats-py gives it the first login.
        must = any(each.scheme in _ENCRYPTED for each in self.addresses)
        if initial_connection and server is not None and server.uri.scheme != "wss":
            if must and not (info.get("tls_required") or info.get("tls_available")):
                raise TLSRefusedError(f"{self._server()} {_NO_TLS}")
            if must:
                info["tls_required"] = True  # nats-py does not know the other
            if info.get("tls_required") and info.get("tls_verify"):
                # A TLS 1.3 server refuses late, and often by just ending the connection.
                raise TLSRefusedError(f"{self._server()} {_WANTS_CERTIFICATE}")
        await super()._process_info(info, initial_connection)

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
            if not self.is_connected:  # nats-py takes the connection's end for an answer
                self._end_tasks()
                raise nats.errors.UnexpectedEOF
        except (OSError, nats.errors.Error) as error:
            self.tls_fault = self.read_fault(error) or self.tls_fault
            if isinstance(self._transport, TcpTransport):
                # After a failed handshake nobody tells `wait_closed`, so nats-py must not wait.
                self._transport.close()  # type: ignore[no-untyped-call]
                self._transport = None
            raise
        self.tls_fault = None

    def read_fault(self, error: Exception) -> str | None:
        """What is wrong with TLS, in a sentence; None where the error is about something else."""
        if isinstance(error, TLSRefusedError):
            return str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self._server()} {_certificate(error)}"
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            if "CERT" in str(error.reason) or "UNKNOWN_CA" in str(error.reason):
                return f"{self._server()} {_WANTS_CERTIFICATE}"
            reason = error.reason or error
            return f"TLS with {self._server()} fails ({reason}): see the server's tls block."
        return None

    def _server(self) -> str:
        server = self._current_server
        return f"NATS at {server.uri.netloc.rpartition('@')[2]}" if server else "NATS"

    def _end_tasks(self) -> None:
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code in _UNKNOWN_CA:
        return (
            "shows a certificate of an authority that is unknown here: name the file with the"
            " authority's certificate in SSL_CERT_FILE."
        )
    if code == _EXPIRED:
        return "shows a certificate that has expired: renew it there, or see this machine's clock."
    if code == _TOO_EARLY:
        return "shows a certificate that is not valid yet: see the clocks of both machines."
    if code in _WRONG_NAMES:
        return "shows a certificate that is for other names: use a name or address that it is for."
    return f"shows a certificate that does not hold ({error.verify_message}): put in a valid one."
