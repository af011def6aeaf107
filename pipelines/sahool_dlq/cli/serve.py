"""`dlq serve`."""

import ipaddress
import signal
import socket
import ssl
from pathlib import Path

import click

from sahool_dlq.cli.output import errors, log_plainly
from sahool_dlq.cli.verb import tell, verb
from sahool_dlq.errors import MissingPackageError, SettingsError
from sahool_dlq.lazy import is_installed
from sahool_dlq.settings import Settings

_FILE = click.Path(path_type=Path, dir_okay=False)


@verb
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=9878, show_default=True, help="0: any free"
)
@click.option("--tls-cert", type=_FILE, help="PEM file of the certificate")
@click.option("--tls-key", type=_FILE, help="PEM file of its key")
@click.option("--behind-proxy", is_flag=True, help="a proxy before it does TLS")
def command(
    settings: Settings,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
) -> None:
    """Serve the jobs over HTTP until Ctrl-C: look, plan, approve, run, decide.

    Every request needs a token: `dlq tokens add NAME --role ROLE`. Its name is the actor in the
    audit. /docs shows all requests, /openapi.json describes them. A batch that runs here is paused
    at the end.
    """
    if not is_installed("fastapi_offline", "uvicorn"):
        raise MissingPackageError("dlq serve needs: pip install 'sahool-dlq[pipelines,serve]'.")
    if (tls_cert is None) != (tls_key is None):
        raise SettingsError("Give --tls-cert and --tls-key together.")
    if tls_cert:
        _check_certificate(tls_cert, tls_key)
    if not (tls_cert or behind_proxy or _is_loopback(host)):
        raise SettingsError(
            f"On {host}, tokens would go over the network in clear text: give --tls-cert and"
            " --tls-key, or --behind-proxy if a proxy does TLS."
        )
    import uvicorn

    from sahool_dlq.serving.app import make_app

    log_plainly()
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise SettingsError(f"{host}:{port} cannot be used: {error.strerror}.") from error
    with listening:
        config = uvicorn.Config(
            make_app(settings),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=200,
            timeout_graceful_shutdown=10,
            ssl_certfile=tls_cert,
            ssl_keyfile=tls_key,
        )
        scheme, shown = "https" if tls_cert else "http", f"[{host}]" if ":" in host else host
        url = f"{scheme}://{shown}:{listening.getsockname()[1]}"
        told = {"url": url, "docs": f"{url}/docs"}
        tell(told, lambda _: errors.print(f"[dim]Requests: {url}/docs. Ctrl-C stops.[/dim]"))
        for sign in (signal.SIGINT, signal.SIGTERM):  # which uvicorn raises again at its end
            signal.signal(sign, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listening])


def _check_certificate(certificate: Path, key: Path | None) -> None:
    """Raises SettingsError for files that are no certificate and its key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"--tls-cert {certificate} and --tls-key {key} cannot be used: {reason}. They must be"
            " PEM files, and the key must not be encrypted."
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
