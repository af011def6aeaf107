"""TLS with NATS: nothing is sent unencrypted if TLS is required, and each fault is one sentence.

nats-py treats `tls://` as optional: if the server does not require TLS, it sends the login
unencrypted. And if a handshake fails, it waits for ever for the end of the connection.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from sahool_dlq.errors import SettingsError
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.address import Address

_ENCRYPTED = ("tls", "wss")
_NO_TLS = (
    "offers no TLS, but its address says tls://, so nothing was sent to it: configure TLS on the"
    " server, or write nats:// if the network itself is safe."
)
_NO_TLS_FOR_FILES = (
    "offers no TLS, but a CA or certificate is given, so nothing was sent to it: configure TLS on"
    " the server, or give neither."
)
_WANTS_CERTIFICATE = (
    "requires a client certificate, and this client has none: give it and its key as cert and key"
    " (DLQ_NATS_CERT, DLQ_NATS_KEY)."
)
_SILENT = (
    "sends nothing when a client connects: if its tls block has handshake_first, set tls_first"
    " (DLQ_NATS_TLS_FIRST)."
)
_SPEAKS_FIRST = "does not begin with the TLS handshake: remove tls_first."
_MAYBE_REFUSED = "it closed the connection after the handshake"
# The alerts with which a server refuses a client's certificate.
_REFUSALS = {
    "UNKNOWN_CA": "its authority is not in the server's ca_file",
    "CERTIFICATE_EXPIRED": "it has expired",
    "BAD_CERTIFICATE": "the server does not accept it for a client",
    "UNSUPPORTED_CERTIFICATE": "it is not for clients",
    "CERTIFICATE_REVOKED": "it was revoked",
}
# OpenSSL's error numbers for certificates.
_UNKNOWN_CA = (2, 18, 19, 20, 21)
_TOO_EARLY, _EXPIRED, _WRONG_NAMES = 9, 10, (62, 64)


class TLSRefusedError(nats.errors.Error):
    """A server does not support the required TLS; nothing was sent to it. The message says why."""


class EncryptingClient(Client):
    """A client that enforces `tls://`, and that a failed handshake does not stop."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: Sequence[Address] = ()  # with the logins, which nats-py's pool has not
        self.access = Access.model_construct()
        self.tls_fault: str | None = None  # of the last handshakes: a sentence
        self._is_greeted = False  # whether the server has said INFO

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Created for each handshake, because its files may have been renewed."""
        try:
            return tls_context(self.access)
        except SettingsError as error:  # any other error than its own would end nats-py's attempts
            raise TLSRefusedError(str(error)) from None

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Called between INFO and CONNECT, of each connection."""
        server = self._current_server
        self._is_greeted = True
        # A server named by the cluster counts too: nats-py gives it the first login.
        is_named = any(each.scheme in _ENCRYPTED for each in self.addresses)
        must = is_named or self.access.wants_tls
        if initial_connection and server is not None and server.uri.scheme != "wss":
            if must and not (info.get("tls_required") or info.get("tls_available")):
                why = _NO_TLS if is_named else _NO_TLS_FOR_FILES
                raise TLSRefusedError(f"{self._server()} {why}")
            if must:
                info["tls_required"] = True  # nats-py does not know the other
            if info.get("tls_required") and info.get("tls_verify") and not self.access.cert:
                # A TLS 1.3 server refuses late, often by only ending the connection.
                raise TLSRefusedError(f"{self._server()} {_WANTS_CERTIFICATE}")
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        """Called after the handshake, of each connection."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None and writer.get_extra_info("ssl_object") is not None:
            # nats-py does not say so, and asyncio then logs a warning when the connection ends.
            protocol = writer.transport.get_protocol()
            if protocol is not None:  # else the connection has ended already
                protocol._over_ssl = True  # noqa: SLF001
        return super()._connect_command()

    async def _process_connect_init(self) -> None:
        self._is_greeted = False
        try:
            await super()._process_connect_init()
            if not self.is_connected:  # nats-py treats the end of the connection as an answer
                self._end_tasks()
                if self.access.cert and self._server_info.get("tls_verify"):
                    raise TLSRefusedError(self._refuses(_MAYBE_REFUSED))
                raise nats.errors.UnexpectedEOF
        except (OSError, nats.errors.Error) as error:
            self.tls_fault = self.read_fault(error) or self.tls_fault
            if isinstance(self._transport, TcpTransport):
                # After a failed handshake `wait_closed` never returns, so nats-py must not wait.
                self._transport.close()  # type: ignore[no-untyped-call]  # nats-py has no types here
                self._transport = None
            raise
        self.tls_fault = None

    def read_fault(self, error: Exception) -> str | None:
        """The fault of TLS, in a sentence; None if the error is about something else."""
        if isinstance(error, TLSRefusedError):
            return str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self._server()} {_certificate(error)}"
        if self.access.tls_first and self._has_spoken_first():
            return f"{self._server()} {_SPEAKS_FIRST}"
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return self._handshake_fault(str(error.reason or error))
        is_silence = isinstance(error, TimeoutError) or "expecting INFO" in str(error)
        if is_silence and not (self._is_greeted or self.access.tls_first) and self._transport:
            return f"{self._server()} {_SILENT}"
        return None

    def _handshake_fault(self, reason: str) -> str:
        if self.access.tls_first and reason == "WRONG_VERSION_NUMBER":
            return f"{self._server()} {_SPEAKS_FIRST}"
        if "CERT" in reason or "UNKNOWN_CA" in reason:
            if not self.access.cert:
                return f"{self._server()} {_WANTS_CERTIFICATE}"
            known = (why for alert, why in _REFUSALS.items() if alert in reason)
            return self._refuses(next(known, reason))
        return f"TLS with {self._server()} fails ({reason}): check the server's tls block."

    def _refuses(self, why: str) -> str:
        return (
            f"{self._server()} refuses the client certificate {self.access.cert} ({why}): use one"
            f" that is valid today and signed by an authority in its ca_file."
        )

    def _has_spoken_first(self) -> bool:
        """Whether INFO came before the handshake began: then it succeeds, and nothing follows."""
        plain = getattr(self._transport, "_bare_io_reader", None)
        return bool(plain is not None and plain._buffer)  # noqa: SLF001  # asyncio has no other way to look

    def _server(self) -> str:
        server = self._current_server
        return f"NATS at {server.uri.netloc.rpartition('@')[2]}" if server else "NATS"

    def _end_tasks(self) -> None:
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()


def tls_context(access: Access) -> ssl.SSLContext:
    """The trusted CAs, and the client certificate; SettingsError if a file is not usable."""
    try:
        context = ssl.create_default_context(cafile=access.ca)
    except ssl.SSLError:
        raise SettingsError(
            f"{access.ca} contains no CA certificate: give a PEM file with one as ca."
        ) from None
    except OSError as error:
        raise _unreadable(access.ca, error, "ca") from None
    if access.cert and access.key:
        _load_certificate(context, access.cert, access.key)
    return context


def _load_certificate(context: ssl.SSLContext, cert: str, key: str) -> None:
    for file, name in ((cert, "cert"), (key, "key")):
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            raise _unreadable(file, error, name) from None
    try:
        context.load_cert_chain(cert, key, password="")  # or OpenSSL would ask for one
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"The key {key} is not that of the certificate {cert}: give the matching one."
            ) from None
        raise SettingsError(
            f"{cert} and {key} cannot be used as client certificate and key"
            f" ({error.reason or 'no PEM'}): give PEM files, with an unencrypted key."
        ) from None
    except ValueError:  # Python's own, of an encrypted key
        raise SettingsError(f"The key {key} is encrypted: give an unencrypted one.") from None


def _unreadable(file: str | None, error: OSError, name: str) -> SettingsError:
    return SettingsError(
        f"{file} cannot be read ({error.strerror}): give a readable file as {name}."
    )


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code in _UNKNOWN_CA:
        return (
            "presents a certificate of an unknown authority: give the file with the authority's"
            " certificate as ca (DLQ_NATS_CA)."
        )
    if code == _EXPIRED:
        return (
            "presents a certificate that has expired: renew it there, or check this machine's"
            " clock."
        )
    if code == _TOO_EARLY:
        return "presents a certificate that is not valid yet: check the clocks of both machines."
    if code in _WRONG_NAMES:
        return (
            "presents a certificate for other names: connect by a name or address that it contains."
        )
    return (
        f"presents a certificate that is not valid ({error.verify_message}): install a valid one."
    )
