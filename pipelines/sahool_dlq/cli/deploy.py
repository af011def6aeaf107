"""`dlq deploy`."""

import asyncio
import os
from typing import Any

import click

from sahool_dlq.cli.output import console
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.settings import Settings

SECRETS = ("DLQ_NATS_URL", "DLQ_POSTGRES_DSN", "DLQ_REDACTION_KEY", "DLQ_ALERT_URLS")


@verb
@click.option(
    "--pool",
    envvar="DLQ_WORK_POOL",
    default="local",
    show_default=True,
    help="work pool; created with type process if missing",
)
@click.option(
    "--secrets",
    "has_secrets",
    is_flag=True,
    help=f"keep {', '.join(SECRETS)} of this environment as Secret blocks, for every worker",
)
def command(settings: Settings, pool: str, has_secrets: bool) -> Answer[dict[str, Any]]:  # noqa: ARG001  (signature of all verbs)
    """Send deployments, work queues and automations to the Prefect server of PREFECT_API_URL.

    Run it again after each upgrade: it updates what exists.
    """
    from sahool_dlq.orchestration.deploy import deploy  # Prefect takes its time to load

    given = {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
    return Answer(asyncio.run(deploy(pool, given if has_secrets else {})), _show)


def _show(done: dict[str, Any]) -> None:
    for kind, names in done.items():
        shown = names if isinstance(names, str) else ", ".join(names)
        console.print(f"  [cyan]{kind:<12}[/cyan] {shown or '–'}", soft_wrap=True)
