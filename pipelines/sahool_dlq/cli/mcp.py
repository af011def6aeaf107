"""`dlq mcp`."""

from sahool_dlq.cli.verb import BY, verb
from sahool_dlq.errors import MissingPackageError
from sahool_dlq.lazy import is_installed
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import CHANNEL


@verb
@BY
def command(settings: Settings, by: str) -> None:
    """Let a language model look at failures and plan redrives: an MCP server on stdin and stdout.

    Its tools are groups, show, incidents, sql and plan. They show redacted values only. All
    that it can write is a batch that waits until a person approves it (`dlq batches approve`).
    """
    if not is_installed("mcp"):
        raise MissingPackageError("dlq mcp needs: pip install 'sahool-dlq[pipelines,mcp]'.")
    from sahool_dlq.serving.tools import make_server

    CHANNEL.set("mcp")
    make_server(settings, settings.masked(by)).run()
