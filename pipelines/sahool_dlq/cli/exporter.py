"""`dlq exporter`."""

import signal
import threading

import click

from sahool_dlq.alerts.exporter import serve
from sahool_dlq.cli.output import errors, log_plainly
from sahool_dlq.cli.verb import tell, verb
from sahool_dlq.errors import SettingsError
from sahool_dlq.settings import Settings


@verb
@click.option(
    "--listen", default="127.0.0.1:9877", show_default=True, help="address and port to serve on"
)
def command(settings: Settings, listen: str) -> None:
    """Serve metrics for Prometheus on http://ADDRESS/metrics, until Ctrl-C.

    Serves the five metrics, the values of the alert rules, and the state of the pipeline. Anybody
    who reaches the address can read them, so the default is loopback.
    """
    log_plainly()
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(
            f"--listen {listen} is not an address and port, such as 127.0.0.1:9877."
        )
    try:
        server = serve(settings, host.strip("[]"), int(port))
    except OSError as error:
        raise SettingsError(f"--listen {listen} cannot be used: {error.strerror}.") from error
    where = f"http://{host}:{server.server_port}/metrics"
    tell({"url": where}, lambda _: errors.print(f"[dim]Metrics at {where}. Ctrl-C stops.[/dim]"))
    stop = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: stop.set())
    stop.wait()
    server.shutdown()
    server.server_close()
