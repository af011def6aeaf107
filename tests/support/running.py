"""Runs the `dlq` command on the platform of a test."""

import asyncio
from pathlib import Path

from click.testing import CliRunner, Result

from sahool_dlq.cli import _command
from sahool_dlq.settings import Settings
from support.platform_log import environment


async def dlq(settings: Settings, *arguments: str, **more: str) -> Result:
    """Run a verb to its end, in this process; `more` is added to its environment."""
    invoke, env = CliRunner().invoke, environment(settings, COLUMNS="160", **more)
    return await asyncio.to_thread(invoke, _command(), arguments, env=env, catch_exceptions=False)


def files_in(folder: Path) -> list[str]:
    """The names of the files in a folder, sorted."""
    return sorted(file.name for file in folder.iterdir())
