"""The jobs, whole: what a flow, a verb of `dlq` and a notebook all call.

Each puts stages together; the stages do not know each other.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import nats.errors
import polars as pl
from nats.js.errors import Error as JetStreamError

from pipelines.analysis.marts import MARTS, build_marts, view_statements
from pipelines.drain.run import DrainReport, drain
from pipelines.drain.run import Progress as DrainProgress
from pipelines.errors import StreamError
from pipelines.jetstream.connection import connected
from pipelines.jetstream.streams import ensure_streams
from pipelines.redrive.plan import Plan, Selection, freeze, plan
from pipelines.redrive.run import Progress as RedriveProgress
from pipelines.redrive.run import RedriveReport, run_batch, unfinished_batches
from pipelines.settings import Settings
from pipelines.stores.database import database, migrate
from pipelines.stores.lake import Lake
from pipelines.stores.lake_sql import base_views, connect, mart_views, write_views_file
from pipelines.stores.mart_tables import replace_marts


@dataclass(frozen=True, slots=True)
class MartsReport:
    """The marts as they were built."""

    rows: dict[str, int]  # rows by mart
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


async def migrate_all(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Make tables and streams that are missing; returns new migrations, and streams by role."""
    done = migrate(settings.postgres_dsn.get_secret_value())
    async with connected(settings.nats_url, settings.nats_creds, "dlq migrate") as client:
        try:
            return done, await ensure_streams(client.jetstream(), settings.stream_names)
        except (JetStreamError, nats.errors.Error) as error:
            raise StreamError(f"The streams could not be made: {error}.") from error


async def drain_log(settings: Settings, progress: DrainProgress | None = None) -> DrainReport:
    """Drain the log into every sink, then say in `views.sql` which files the lake has."""
    report = await drain(settings, progress)
    write_views(settings)
    return report


def build_all_marts(settings: Settings, names: Sequence[str] | None = None) -> MartsReport:
    """Compute the marts from the lake, write them to the lake and to Postgres."""
    started = time.monotonic()
    lake = Lake(settings.lake)
    with connect(lake) as connection:
        tables = build_marts(
            connection, datetime.now(UTC), names, redrive_cap=settings.redrive_cap
        )
    frames = {name: pl.DataFrame(table) for name, table in tables.items()}
    for name, frame in frames.items():
        lake.overwrite(f"marts/{name}", frame)
    with database(settings.postgres_dsn.get_secret_value()) as postgres:
        replace_marts(postgres, frames)
    write_views(settings)
    rows = {name: frame.height for name, frame in frames.items()}
    return MartsReport(rows, round(time.monotonic() - started, 3))


def compute_mart(settings: Settings, name: str) -> pl.DataFrame:
    """One mart as of now, from the lake, written nowhere."""
    with connect(Lake(settings.lake)) as connection:
        table = build_marts(
            connection, datetime.now(UTC), [name], redrive_cap=settings.redrive_cap
        )[name]
    return pl.DataFrame(table)


def write_views(settings: Settings) -> str | None:
    """Write `views.sql` beside a local lake; returns its path."""
    lake = Lake(settings.lake)
    statements = [
        *base_views(lake).values(),
        *(f"{view.rstrip().rstrip(';')};" for view in view_statements(settings.redrive_cap)),
        *mart_views(lake, list(MARTS)).values(),
    ]
    file = write_views_file(lake, statements)
    return str(file) if file else None


def preview_redrive(settings: Settings, selection: Selection) -> Plan:
    """What a redrive of this selection would publish; touches nothing."""
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        return plan(connection, selection, settings.redrive_cap)


async def redrive(
    settings: Settings,
    selection: Selection,
    *,
    trigger: str,
    requested_by: str,
    reason: str,
    progress: RedriveProgress | None = None,
) -> RedriveReport | None:
    """Drain, plan, publish and follow, drain again; None where nothing was to be redriven.

    A batch that an earlier run left unfinished is finished first.
    """
    await drain_log(settings)
    dsn = settings.postgres_dsn.get_secret_value()
    with database(dsn) as connection:
        left_over = unfinished_batches(connection)
    for batch in left_over:
        await run_batch(settings, batch, progress)
    if left_over:
        await drain_log(settings)
    with database(dsn) as connection:
        planned = plan(connection, selection, settings.redrive_cap)
        if not planned.count:
            return None
        batch = freeze(
            connection,
            planned,
            selection,
            trigger=trigger,
            requested_by=requested_by,
            reason=reason,
        )
    report = await run_batch(settings, batch, progress)
    await drain_log(settings)
    return report


def transient_selection(settings: Settings) -> Selection:
    """What the scheduled redrive takes."""
    return Selection(error_types=tuple(settings.transient_error_types))
