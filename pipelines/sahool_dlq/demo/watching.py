"""Reports which of the fleet's services stopped: the process, or only a consumer."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import nats.errors
from nats.js.errors import APIError

from sahool_dlq.connections import open_nats
from sahool_dlq.demo.fleet import FLEET_LOG
from sahool_dlq.demo.services import SERVICES
from sahool_dlq.embedded.process import GuardedProcess
from sahool_dlq.errors import DLQError
from sahool_dlq.jetstream.reach import Lookout
from sahool_dlq.settings import Settings

__all__ = ["watch"]

_SECONDS = 10.0  # between two looks
_STARTING_LOOKS = 4  # after this time a service that never worked counts as stopped


async def watch(
    home: Path, settings: Settings, services: GuardedProcess, say: Callable[[str], None]
) -> None:
    """Check the services for ever, and report once what stopped and what is back."""
    well, stopped = set[str](), set[str]()  # services that worked once, and that do not now
    looks = 0
    log = home / FLEET_LOG
    while services.is_running:
        await asyncio.sleep(_SECONDS)
        try:
            problems = await _problems(settings)
        except (DLQError, nats.errors.Error, APIError):  # NATS is down; its watcher reports this
            continue
        looks += 1
        well |= SERVICES.keys() - (problems.keys() if looks < _STARTING_LOOKS else set())
        problems = {service: why for service, why in problems.items() if service in well}
        for service in sorted(problems.keys() - stopped):
            if services.is_running:
                say(f"{service} stopped: {problems[service]}; see {log}")
        for service in sorted(stopped - problems.keys()):
            say(f"{service} works again")
        stopped = set(problems)
    say(f"The six services ended: see {log}; Ctrl-C and another dlq up start them again")


async def _problems(settings: Settings) -> dict[str, str]:
    """Why a service gets no events, by its name."""
    async with open_nats(settings, "dlq up") as client:
        wanted = {
            service: (f"{settings.events_stream}/{service}", f"sahool.{subject}", False)
            for service, subject in SERVICES.items()
        }
        reaches = await Lookout(client.jetstream()).reaches(wanted.values())
        return {
            service: problem for service, key in wanted.items() if (problem := reaches[key].problem)
        }
