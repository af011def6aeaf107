"""All settings of the Prefect server: pool, queues, secrets, deployments, automations.

Idempotent: existing ones are updated. Only the pool's type and other settings by people are kept.
"""

import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import httpx
from prefect import get_client
from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from sahool_dlq.embedded.worker import deployments_folder, run_there
from sahool_dlq.errors import DLQError

RETIRED = ("dlq: a run without heartbeat has crashed",)
"""Automations of older versions. `watch-runs` replaced this one, which marked every run as dead
after an outage of the server.
"""

QUEUES: dict[str, tuple[int, int | None]] = {
    "drain": (1, None),
    "analysis": (2, 2),
    "redrive": (3, 2),
}
"""Priority (1 is first) and maximum runs at once, by work queue."""


async def deploy(pool: str, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Create or update all of it; returns the names by kind.

    `secrets` become Secret blocks, and variables with their names in the environment of the pool's
    jobs, which workers read at the start of a run: nothing else has them. Raises DLQError if the
    server cannot be reached or refuses.
    """
    url = get_current_settings().api.url
    if not url:
        raise DLQError("No Prefect server is set: give its address in PREFECT_API_URL.")
    try:
        async with get_client() as client:
            await _pool(client, pool, secrets)
            await _queues(client, pool)
            _deployments(pool)
            return {
                "pool": pool,
                "queues": list(QUEUES),
                "secrets": sorted(secrets),
                "deployments": sorted(d.name for d in await client.read_deployments()),
                "automations": await _automations(client),
            }
    except httpx.TransportError as error:
        raise DLQError(f"Prefect at {url} cannot be reached: {error}.") from error
    except PrefectHTTPStatusError as error:
        raise DLQError(f"Prefect at {url} refused: {error}.") from error


async def _pool(client: PrefectClient, name: str, secrets: Mapping[str, str]) -> None:
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        template = await get_default_base_job_template_for_infrastructure_type("process")
        pool = await client.create_work_pool(
            WorkPoolCreate(name=name, type="process", base_job_template=template or {})
        )
    if not secrets:
        return
    environment = {}
    for variable, value in secrets.items():
        block = variable.lower().replace("_", "-")
        await Secret(value=value).asave(block, overwrite=True)
        environment[variable] = f"{{{{ prefect.blocks.secret.{block} }}}}"
    template = pool.base_job_template
    given = template["variables"]["properties"]["env"]
    given["default"] = {**(given.get("default") or {}), **environment}
    await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


async def _queues(client: PrefectClient, pool: str) -> None:
    for name, (priority, limit) in QUEUES.items():
        try:
            queue = await client.read_work_queue_by_name(name, work_pool_name=pool)
        except ObjectNotFound:
            queue = await client.create_work_queue(name, work_pool_name=pool)
        await client.update_work_queue(queue.id, priority=priority, concurrency_limit=limit)


def _deployments(pool: str) -> None:
    folder = deployments_folder()
    words = run_there(
        "prefect",
        *("--no-prompt", "deploy", "--all", "--prefect-file", str(folder / "prefect.yaml")),
        environment={
            "DLQ_FLOWS_FOLDER": str(folder),
            **os.environ,
            "DLQ_WORK_POOL": pool,
            "DLQ_VERSION": version("sahool-dlq"),
        },
    )
    if words:
        raise DLQError(f"Prefect refused: {words}")


async def _automations(client: PrefectClient) -> list[str]:
    """The names of all automations, after those of older versions are deleted."""
    for name in RETIRED:
        for automation in await client.read_automations_by_name(name):
            await client.delete_automation(automation.id)
    return sorted(automation.name for automation in await client.read_automations())
