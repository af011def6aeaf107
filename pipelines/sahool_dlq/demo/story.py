"""The whole demo once: services fail, the log is drained and explained, redrives succeed, and a bug
is mended in a new version, which cures its failures.

It uses its own servers on loopback, real failures, and the flows as Prefect runs them.
"""

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats.js.errors
import polars as pl

from sahool_dlq.analysis.report.section import as_markdown
from sahool_dlq.analysis.report.sections import as_json
from sahool_dlq.connections import find_log, open_nats, open_postgres
from sahool_dlq.demo.checks import Check, check_all
from sahool_dlq.demo.fleet import fleet
from sahool_dlq.demo.last_act import deployed, deploys, reproduce_and_mend
from sahool_dlq.demo.platform import open_servers
from sahool_dlq.demo.rights import check_rights
from sahool_dlq.demo.secured import open_secured_servers
from sahool_dlq.demo.services import SERVICES
from sahool_dlq.demo.traffic import GATEWAY, events, gateway, publish
from sahool_dlq.demo.upstreams import Upstreams
from sahool_dlq.demo.working_copy import MENDED_VERSION, check_out
from sahool_dlq.embedded import PrefectServer
from sahool_dlq.errors import DLQError
from sahool_dlq.jobs.deploys import Deploy
from sahool_dlq.jobs.drain import migrate_all
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.report import Report, make_report
from sahool_dlq.settings import Settings, environment_of
from sahool_dlq.sqlfiles import sql_folder
from sahool_dlq.stores.lake.lake import Lake

_SETTLE_SECONDS = 60
_PUBLISHED_AT_ONCE = 64
_MARKER = ".dlq-demo"
_OTHER_FLOWS = ("alert", "maintain-lake", "verify", "watch-runs")


@dataclass(frozen=True, slots=True)
class Story:
    """The results of the demo."""

    seconds: float
    published: int
    flows: dict[str, str]  # flow run: its state message
    trials: list[dict[str, Any]]  # reports of `dlq try`, before and after the fix
    deploys: list[Deploy]  # versions of the service that was mended
    report: Report
    checks: list[Check]
    places: dict[str, str]

    @property
    def is_sound(self) -> bool:
        """Whether every invariant holds."""
        return all(check.is_met for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "seconds": self.seconds,
            "published": self.published,
            "is_sound": self.is_sound,
            "flows": self.flows,
            "trials": self.trials,
            "deploys": self.deploys,
            "checks": [{"name": c.name, "is_met": c.is_met, "found": c.found} for c in self.checks],
            "report": as_json(self.report.frames, self.report.now),
            "places": self.places,
        }


Say = Callable[[str], None]


async def tell(home: Path, count: int, seed: int, say: Say, *, is_secured: bool = False) -> Story:
    """Run the demo with `count` events in `home`, which is emptied first.

    With `is_secured`, connections to NATS use TLS, and each part has its own login and rights.
    Raises DLQError if a server cannot be started or a step takes too long.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        say("Starting NATS and PostgreSQL" + (", with logins for each part" if is_secured else ""))
        _empty(home)
        platform = stack.enter_context((open_secured_servers if is_secured else open_servers)(home))
        observer = platform.observer
        await migrate_all(platform.operator)
        prefect = PrefectServer(home, database_dsn=platform.prefect_dsn)
        stack.callback(prefect.stop)
        starting = asyncio.create_task(asyncio.to_thread(prefect.start))
        async with Upstreams() as upstreams:
            with fleet(home, platform.services, platform.farm_dsn, upstreams):
                try:
                    say(f"Six services at work; publishing {count:,} events")
                    published = await _publish(platform.services[GATEWAY], count, seed)
                    say("Waiting for the services to finish, retry and give up")
                    await _settled(observer, len(published))
                finally:
                    say("Starting Prefect")
                    await starting
                stack.enter_context(_environment(platform.worker, prefect))
                chapters = _Chapters(say)
                await chapters.play("drain-dlq")
                await chapters.play("build-marts")
                say("The tile server is quick again, the forecast service is back")
                await upstreams.heal()
                await chapters.play("redrive-transient")
                trials = await reproduce_and_mend(platform.reader, check_out(home), say)
            say(f"The services start again, yield-service in {MENDED_VERSION}")
            with fleet(home, platform.services, platform.farm_dsn, upstreams):
                await deployed(observer)
                await chapters.play("drain-dlq", f"drain-dlq, with {MENDED_VERSION}")
                await chapters.play(
                    "redrive-transient", f"redrive-transient, with {MENDED_VERSION}"
                )
            if is_secured:
                say("Other scheduled flows, with the rights of the worker")
                for name in _OTHER_FLOWS:
                    await chapters.play(name)
            say("Services stopped; draining what they said last")
            await chapters.play("drain-dlq", "last drain-dlq")
            await chapters.play("build-marts", "last build-marts")
        say("Checking that nothing was lost or doubled")
        checks = await _checks(observer, published)
        if platform.authority is not None:
            say("Checking that no part needs or has more rights")
            checks += await check_rights(home, platform)
        report = make_report(observer, datetime.now(UTC))
        page = home / "report.html"
        report.write_page(page)
        text = as_markdown(report.sections, report.now, report.headline)
        page.with_suffix(".md").write_text(text, encoding="utf-8")
        return Story(
            seconds=round(time.monotonic() - started, 1),
            published=len(published),
            flows=chapters.messages,
            trials=trials,
            deploys=deploys(observer),
            report=report,
            checks=checks,
            places={
                "lake": observer.lake,
                "report": str(page),
                "queries of the analyses": str(sql_folder()),
                "tables for a DuckDB shell": f"{observer.lake}/views.sql",
            },
        )


@dataclass(slots=True)
class _Chapters:
    """Flow runs, in this warm process; each is a run that Prefect's UI shows."""

    say: Say
    messages: dict[str, str] = field(default_factory=dict)

    async def play(self, name: str, label: str | None = None) -> None:
        # Imported here: Prefect reads its settings when it is imported.
        from sahool_dlq.orchestration.entrypoints import load_flows

        self.say(f"Prefect flow {label or name}")
        flow: Any = load_flows()[name]
        state = await flow(return_state=True)
        if not state.is_completed():
            raise DLQError(f"The flow {name} ended as {state.name}: {state.message}")
        self.messages[label or name] = state.message or ""
        self.say(f"  {state.message}")


async def _publish(access: Mapping[str, Any], count: int, seed: int) -> set[str]:
    traffic = events(range(count), random.Random(seed))  # noqa: S311  (a demo's events, no secret)
    published: set[str] = set()
    async with gateway(access) as publisher:
        while batch := list(itertools.islice(traffic, _PUBLISHED_AT_ONCE)):
            published.update(await publish(publisher, batch))
    return published


async def _settled(settings: Settings, published: int) -> None:
    """Wait until every consumer has finished with every event."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    async with open_nats(settings, "dlq demo") as client:
        js = client.jetstream()
        while time.monotonic() < deadline:
            done = 0
            with contextlib.suppress(nats.js.errors.NotFoundError):
                for service in SERVICES:
                    info = await js.consumer_info(settings.events_stream, service)
                    waiting = (info.num_pending or 0) + (info.num_ack_pending or 0)
                    done += 0 if waiting else 1
            if done == len(SERVICES):
                return
            await asyncio.sleep(0.2)
    raise DLQError(f"The services did not finish {published:,} events in {_SETTLE_SECONDS} s.")


async def _checks(settings: Settings, published: set[str]) -> list[Check]:
    async with open_nats(settings, "dlq demo") as client:
        log = await find_log(client, settings)
    totals: pl.DataFrame = query(settings, "SELECT sum(succeeded)::BIGINT FROM service_traffic")
    cases = query(settings, "SELECT failure_id, status FROM cases")
    with open_postgres(settings) as postgres:
        succeeded = totals.item() or 0
        return check_all(published, succeeded, log, Lake(settings.lake), cases, postgres)


@contextlib.contextmanager
def _environment(settings: Settings, prefect: PrefectServer) -> Iterator[None]:
    """The variables with which the flows find the servers; the previous ones are restored."""
    before = dict(os.environ)
    os.environ.update(environment_of(settings))
    for name in settings.model_fields_set:
        if name.startswith("redrive_"):
            os.environ[f"DLQ_{name.upper()}"] = str(getattr(settings, name))
    os.environ.update(prefect.environment)
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _empty(home: Path) -> None:
    """Remove the files of an earlier demo; never another folder."""
    if home.exists() and any(home.iterdir()):
        if not (home / _MARKER).exists():
            raise DLQError(f"{home} holds something else than a demo: give another --home.")
        shutil.rmtree(home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / _MARKER).touch()
