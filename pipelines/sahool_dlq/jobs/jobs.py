"""The jobs, whole: what a flow, a verb of `dlq` and a notebook all call.

Each puts stages together; the stages do not know each other.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import duckdb
import nats.errors
import polars as pl
import pyarrow as pa
from nats.js.errors import Error as JetStreamError

from sahool_dlq.analysis.marts.build import MARTS, build_summaries, facts
from sahool_dlq.analysis.marts.incremental_build import daily_marts, update_marts, write_marts
from sahool_dlq.analysis.marts.spark import build_marts_on_spark
from sahool_dlq.analysis.marts.views import view_statements
from sahool_dlq.analysis.report.sections import printable_frames
from sahool_dlq.analysis.report.unknowns import LOG_SQL
from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.drain.redaction_preview import Masking, masking_in_stream
from sahool_dlq.drain.run import DrainReport, drain
from sahool_dlq.drain.run import Progress as DrainProgress
from sahool_dlq.erasure.erase import ErasureReport, erase
from sahool_dlq.errors import QueryError, StreamError, UnknownNameError
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.reader import log_state
from sahool_dlq.jetstream.streams import (
    ensure_advisory_stream,
    ensure_body_store,
    ensure_streams,
)
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.maintenance import TableCare, care_for
from sahool_dlq.stores.lake.sql import (
    ask,
    connect,
    local_views,
    seal,
    show_marts,
    time_limit,
    write_views_file,
)
from sahool_dlq.stores.platform import check_owner
from sahool_dlq.stores.postgres.database import database, locking, migrate
from sahool_dlq.stores.postgres.marts import fill_marts
from sahool_dlq.stores.postgres.verifications import keep_verification
from sahool_dlq.stores.unfounded import unfounded_counts
from sahool_dlq.upkeep.compare import settled
from sahool_dlq.upkeep.regroup import Progress as RegroupProgress
from sahool_dlq.upkeep.regroup import RegroupReport, regroup
from sahool_dlq.upkeep.verify import VerifyReport, repair, verify

Frames = dict[str, pl.DataFrame]
"""Marts by name."""


@dataclass(frozen=True, slots=True)
class MartsReport:
    """The marts as they were built."""

    is_rebuilt: bool  # from all of the log, not from what came since the last run
    rows: dict[str, int]  # rows by mart
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


async def migrate_all(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Make tables and streams that are missing; returns new migrations, and streams by role."""
    done = migrate(settings.postgres_dsn.get_secret_value())
    async with connected(settings.access, "dlq migrate") as client:
        js, names = client.jetstream(), settings.stream_names
        try:
            streams = await ensure_streams(js, names)
            streams["advisories"] = await ensure_advisory_stream(js, names)
            await ensure_body_store(js)  # services need no right to make it
            return done, streams
        except (JetStreamError, nats.errors.Error) as error:
            raise StreamError(f"The streams could not be made: {error}.") from error


async def drain_log(
    settings: Settings, progress: DrainProgress | None = None, *, is_lake_adopted: bool = False
) -> DrainReport:
    """Drain the log into every sink, then say in `views.sql` which files the lake has."""
    report = await drain(settings, progress, is_lake_adopted=is_lake_adopted)
    write_views(settings)
    return report


async def masking_in_log(settings: Settings, limit: int) -> Masking:
    """What redaction masks in the last `limit` messages of the log; touches nothing."""
    async with connected(settings.access, "dlq redact") as client:
        return await masking_in_stream(client, settings, limit)


async def verify_stores(
    settings: Settings, *, is_repair: bool = False, bytes_per_second: float | None = None
) -> VerifyReport:
    """Compare stream, lake and Postgres, and read every byte of the lake, no faster than is said.

    With `is_repair`, mend first, drain what a sink lacks, and look again. What was found is kept in
    Postgres.
    """
    found = []
    if is_repair:
        found = await repair(settings)
        await drain_log(settings)
    report = await verify(settings, bytes_per_second)
    report = replace(report, findings=tuple(settled(found, report.findings)))
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        keep_verification(
            connection,
            started_at=report.started_at,
            seconds=report.seconds,
            files=report.files,
            read_bytes=report.read_bytes,
            unchecked_files=report.unchecked_files,
            findings=[finding.as_dict() for finding in report.findings],
        )
    return report


def regroup_history(
    settings: Settings, progress: RegroupProgress | None = None, *, is_dry_run: bool = False
) -> RegroupReport:
    """Recompute the groups of history in both sinks; marts follow when they are built next."""
    report = regroup(settings, progress, is_dry_run=is_dry_run)
    if not is_dry_run:
        write_views(settings)
    return report


async def erase_tenant(
    settings: Settings,
    tenant: str,
    *,
    actor: str,
    reason: str,
    tell: Callable[[str], object] = lambda _: None,
) -> ErasureReport:
    """Erase what there is of a tenant, and compute the marts anew; see `drain.erase`."""
    build = partial(build_all_marts, settings)
    return await erase(settings, tenant, build, actor=actor, reason=reason, tell=tell)


@dataclass(frozen=True, slots=True)
class MaintainReport:
    """What was done to the lake."""

    tables: tuple[TableCare, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def maintain_lake(settings: Settings) -> MaintainReport:
    """Expire, compact and vacuum the lake; drains may run meanwhile."""
    started, now = time.monotonic(), datetime.now(UTC)
    done = care_for(Lake(settings.lake), now, settings.lake_kept_since(now), list(MARTS))
    write_views(settings)
    return MaintainReport(tuple(done), round(time.monotonic() - started, 3))


def build_all_marts(
    settings: Settings, engine: str = "duckdb", *, is_rebuild: bool = False
) -> MartsReport:
    """Bring the marts of the lake up to date, the summaries also to Postgres.

    `engine` is `duckdb`, which counts what came since the last run, or all where `is_rebuild`; or
    `spark`, which needs the extra of that name and always computes all.
    """
    started = time.monotonic()
    lake, now = Lake(settings.lake), datetime.now(UTC)
    dsn = settings.postgres_dsn.get_secret_value()
    with database(dsn) as postgres, locking(dsn, "marts", is_shared=True) as lock:
        check_owner(postgres, lake)
        # An erasure must not meet what was read before it.
        lock.wait("The building of marts")
        if engine == "spark":
            built = write_marts(lake, build_marts_on_spark(lake, now))
        else:
            built = update_marts(lake, now, is_rebuild=is_rebuild)
        lock.check()
        fill_marts(postgres, built.summaries)
    write_views(settings)
    return MartsReport(built.is_rebuilt, built.rows, round(time.monotonic() - started, 3))


def compute_marts(settings: Settings, names: Sequence[str], now: datetime) -> Frames:
    """Some marts as of `now`, from the lake, written nowhere; texts are printable.

    To them comes `log`, one row about what of the log the lake holds.
    """
    lake = Lake(settings.lake)
    with connect(lake) as connection, daily_marts(connection, lake, is_written=False):
        tables = build_summaries(connection, now, names)
        tables["log"] = connection.sql(LOG_SQL).to_arrow_table()
    return printable_frames({name: pl.DataFrame(table) for name, table in tables.items()})


def stored_marts(settings: Settings, names: Sequence[str]) -> Frames:
    """Some marts as they were built last; `log` and the texts as in `compute_marts`."""
    lake = Lake(settings.lake)
    frames = {name: lake.read(f"marts/{name}") for name in names}
    with connect(lake) as connection:
        frames["log"] = pl.DataFrame(connection.sql(LOG_SQL).to_arrow_table())
    return printable_frames(frames)


def write_views(settings: Settings) -> str | None:
    """Write `views.sql` beside a local lake; returns its path, None for an object store."""
    lake = Lake(settings.lake)
    if not lake.is_local:
        return None
    tables, marts = local_views(lake, list(MARTS))
    views = [f"{view.rstrip().rstrip(';')};" for view in view_statements()]
    return str(write_views_file(lake, [*tables, *views, *marts]))


def answer(
    settings: Settings, statement: str, limit: int | None = None, seconds: float = 300
) -> pa.Table:
    """The first rows, or all, of one statement over the lake that reads, and can change nothing.

    Names may repeat, and intervals are Arrow's. Raises QueryError for any other statement, where
    DuckDB refuses it, and where it takes longer; UnknownNameError where there is no such table.
    """
    lake = Lake(settings.lake)
    with connect(lake, is_sealed=True) as connection:
        try:
            for view in view_statements():
                connection.execute(view)
            show_marts(connection, lake, list(MARTS))
            with time_limit(connection, seconds), _facts_of(connection, statement):
                seal(connection)
                return ask(connection, statement, limit)
        except duckdb.CatalogException as error:
            if "Table with name" in str(error):
                raise UnknownNameError(_no_table(str(error))) from error
            raise QueryError(f"DuckDB refused the statement: {error}") from error
        except duckdb.Error as error:
            raise QueryError(f"DuckDB refused the statement: {error}") from error


def _facts_of(
    connection: duckdb.DuckDBPyConnection, statement: str
) -> AbstractContextManager[None]:
    """The views that stand on each other, computed once, where a statement may ask them."""
    is_asked = re.search(r"\b(failures|openings|cases|groups|redrives)\b", statement, re.IGNORECASE)
    return facts(connection) if is_asked else nullcontext()


def _no_table(said: str) -> str:
    """DuckDB's own words, and where the names stand."""
    name = re.search(r"Table with name (\S+)", said)
    guess = re.search(r'Did you mean "([^"]+)"', said)
    asked = f"There is no table {name[1] if name else ''} in the lake"
    if name and name[1].removeprefix("mart_") in MARTS:
        return f"{asked} yet: `dlq marts` makes it."
    return f"{asked}{f'; did you mean {guess[1]}?' if guess else '.'} `dlq tables` lists them."


def query(
    settings: Settings, statement: str, limit: int | None = None, seconds: float = 300
) -> pl.DataFrame:
    """See `answer`; for statements whose columns have names of their own, and no intervals."""
    return pl.DataFrame(answer(settings, statement, limit, seconds))


def case_history(settings: Settings, failure_id: str) -> list[tuple[Any, ...]]:
    """What happened to a case, in order: at, what, by whom, reason; each time it failed, too.

    What names a redrive that the log does not know is there, and its reason says so.
    """
    if not is_uuid(failure_id):
        raise QueryError(f"{failure_id!r} is no failure id.")
    with connect(Lake(settings.lake)) as connection:
        return connection.execute(_HISTORY, {"id": failure_id, "doubt": _UNFOUNDED}).fetchall()


_UNFOUNDED = "changes nothing: the log has no redrive.published with its id"
_HISTORY = """
WITH announced AS (
    SELECT redrive_id, attempt FROM case_events
    WHERE failure_id = $id AND kind = 'redrive.published' AND parse_error IS NULL
),
said AS (
    SELECT "at", kind, actor, reason, redrive_id, attempt, kind = 'redrive.succeeded'
        OR (starts_with(kind, 'triage.') AND redrive_id IS NOT NULL) AS is_claim
    FROM case_events WHERE failure_id = $id
    UNION ALL
    SELECT dlq_timestamp, CASE WHEN failure_id = $id THEN 'failed' ELSE 'redrive.failed_again' END,
        service, error_type, redrive_id, redrive_attempt, failure_id <> $id
            AND redrive_id IS NOT NULL
    FROM dead_letters WHERE $id IN (failure_id, root_failure_id)
)
SELECT "at", kind, actor, CASE
    WHEN is_claim AND NOT EXISTS (
        SELECT 1 FROM announced AS a
        WHERE a.redrive_id = said.redrive_id AND a.attempt = said.attempt
    ) THEN concat_ws('; ', reason, $doubt) ELSE reason END AS reason
FROM said ORDER BY "at"
"""


@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """Where everything stands."""

    stream: str
    messages: int
    first_sequence: int
    last_sequence: int
    sinks: dict[str, int]  # last sequence that each holds
    failures: dict[str, int]  # failed_events by status
    redrives: dict[str, int]  # by state
    unfounded: dict[str, int]  # outcomes of redrives that the log does not know, by kind
    gaps: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


async def platform_status(settings: Settings) -> PlatformStatus:
    """Stream, sinks, failures, redrives and gaps, as of now."""
    async with connected(settings.access, "dlq status") as client:
        state = await log_state(client, settings.dlq_stream, settings.subjects.log)
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        row = connection.execute(
            "SELECT epoch, last_sequence FROM drain_checkpoints WHERE stream = %s", [state.stream]
        ).fetchone()
        epoch, checkpoint = row or ("", 0)
        failures = dict(
            connection.execute(
                "SELECT status, count(*) FROM failed_events GROUP BY 1 ORDER BY 2 DESC"
            ).fetchall()
        )
        redrives = dict(
            connection.execute(
                "SELECT state, count(*) FROM redrives GROUP BY 1 ORDER BY 2 DESC"
            ).fetchall()
        )
        unfounded = unfounded_counts(connection)
        gaps = connection.execute(
            "SELECT CASE WHEN is_certain THEN 'Lost' ELSE 'Possibly lost' END || ': '"
            " || CASE count(*) WHEN 1 THEN '' ELSE sum(last_sequence - first_sequence + 1)"
            " || ' messages in ' || count(*) || ' runs, ' END || 'sequences '"
            " || min(first_sequence) || ' to ' || max(last_sequence) || ' of ' || epoch"
            " || '; ' || reason FROM stream_gaps"
            " GROUP BY epoch, is_certain, reason, date_trunc('minute', found_at)"
            " ORDER BY max(found_at) DESC LIMIT 10"
        ).fetchall()
    lake = Lake(settings.lake)
    sinks = {"postgres": checkpoint} | {
        f"lake {name}": lake.watermark(name, epoch) for name in ("dead_letters", "case_events")
    }
    return PlatformStatus(
        state.stream,
        state.message_count,
        state.first_sequence,
        state.last_sequence,
        sinks,
        failures,
        redrives,
        unfounded,
        [gap for (gap,) in gaps],
    )
