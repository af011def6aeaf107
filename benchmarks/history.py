"""Makes a lake of any size quickly, by column, from many copies of one simulated history.

Each copy has its own ids and is one minute later than the copy before, so that chains of redrives
stay complete and days are as full as in a long history. Texts that no mart reads (tracebacks,
headers, bodies) are left out.
"""

import json
import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl

from measure import status
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario
from sahool_dlq.stores.epoch_ids import epoch_id
from sahool_dlq.stores.lake.lake import LAYOUTS, LOG_TABLES, Lake
from sahool_dlq.stores.lake.sql import connect

NOW = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
"""When the history ends."""

_DAYS, _HOURLY, _SEED = 60, 10, 7
_STEP_SECONDS = 61
_KINDS = 5  # copies of a group that are groups of their own: some sixty groups in all
_TIMES = (
    "published_at",
    "dlq_timestamp",
    "first_attempt_at",
    "last_attempt_at",
    "at",
    "not_before",
)
_IDS = ("failure_id", "root_failure_id", "redrive_id")
_UNREAD = {"stack_trace": "NULL", "attempts": "NULL", "original_headers": "NULL", "body": "'{}'"}
_EPOCH = epoch_id("SAHOOL_DLQ", NOW - timedelta(days=_DAYS), 0)


def history(folder: Path, letters: int, held_back: int) -> Path:
    """A folder with a lake of about this many dead letters and their case events; made once.

    The last `held_back` messages are not in the lake but next to it: see `drain_held_back`.
    """
    done = folder / f"history-{letters}-{held_back}"
    if not (done / "rows.json").exists():
        shutil.rmtree(done, ignore_errors=True)
        base = _base(folder)
        with status(f"Writing a lake of {letters:,} dead letters"):
            _multiply(base, done, letters, held_back)
    return done


def rows_of(made: Path) -> int:
    """The number of dead letters in the lake of `history`."""
    return int(json.loads((made / "rows.json").read_text())["dead_letters"])


def working_copy(made: Path, place: Path) -> Lake:
    """A copy of the lake of `history`; its data files are shared, since nothing changes them."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(made / "lake", place, copy_function=os.link)
    return Lake(str(place))


def drain_held_back(made: Path, lake: Lake) -> int:
    """Append the messages that were held back, as a drain does; return their number."""
    count = 0
    for name in LOG_TABLES:
        frame = pl.read_parquet(made / f"{name}.parquet")
        lake.table(name).append(frame, _EPOCH, 1 << 60)
        count += frame.height
    return count


def _base(folder: Path) -> Lake:
    place = folder / "base"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        with status(f"Simulating {_DAYS} days"):
            settings = Settings(home=place, lake_uri=str(place / "lake"))
            into_lake(settings, Scenario(NOW, _DAYS, _HOURLY, _SEED))
        (place / "done").touch()
    return Lake(str(place / "lake"))


def _multiply(base: Lake, done: Path, letters: int, held_back: int) -> None:
    lake = Lake(str(done / "lake"))
    tables = {name: lake.table(name) for name in LAYOUTS}
    with connect(base) as connection:
        (known,) = connection.sql("SELECT count(*) FROM dead_letters").fetchall()[0]
        copies = max(1, round(letters / known))
        for name in LOG_TABLES:
            connection.execute(
                f"CREATE TEMP TABLE base_{name} AS FROM {name} ORDER BY published_at"
            )
        sequence = rows = 0
        for number in range(_DAYS + 1):
            day = (NOW - timedelta(days=_DAYS - number)).date()
            frames = {name: _day(connection, name, copies, day) for name in LOG_TABLES}
            frames, sequence = _numbered(frames, sequence)
            if number == _DAYS:
                is_late = pl.col("dlq_sequence") > sequence - held_back
                for name, frame in frames.items():
                    frame.filter(is_late).write_parquet(done / f"{name}.parquet")
                frames = {name: frame.filter(~is_late) for name, frame in frames.items()}
            rows += frames["dead_letters"].height
            for name, frame in frames.items():
                for part in frame.iter_slices(100_000):
                    tables[name].append(part, _EPOCH, part["dlq_sequence"][-1])
        totals = pl.DataFrame(connection.sql("FROM service_totals").to_arrow_table())
        tables["service_totals"].append(
            totals.select(*LAYOUTS["service_totals"].schema), "totals", 1
        )
    (done / "rows.json").write_text(json.dumps({"dead_letters": rows}))


def _day(connection: duckdb.DuckDBPyConnection, name: str, copies: int, day: date) -> pl.DataFrame:
    """The messages of all copies of one day, in order of time; sequences are assigned later."""
    schema = LAYOUTS[name].schema
    changed = {column: f"b.{column} + c.shift" for column in _TIMES}
    changed |= {column: f"CAST(CAST(md5(b.{column} || c.k) AS UUID) AS VARCHAR)" for column in _IDS}
    changed |= _UNREAD | {
        "epoch": f"'{_EPOCH}'",
        "original_sequence": "b.original_sequence + c.k * 1000000000",
        "group_id": f"left(md5(b.group_id || c.k % {_KINDS}), 16)",
        "dlq_date": f"DATE '{day}'",
    }
    columns = ", ".join(
        f'{changed.get(column, f"b.{chr(34)}{column}{chr(34)}")} AS "{column}"' for column in schema
    )
    start, most = f"TIMESTAMPTZ '{day} 00:00:00Z'", f"INTERVAL {copies * _STEP_SECONDS} SECOND"
    frame = connection.sql(
        f"""
        SELECT {columns}
        FROM (
            FROM base_{name}
            WHERE published_at >= {start} - {most} AND published_at < {start} + INTERVAL 1 DAY
        ) AS b
        INNER JOIN (
            SELECT k, to_seconds(k * {_STEP_SECONDS}) AS shift FROM range({copies}) AS r (k)
        ) AS c
            ON b.published_at + c.shift >= {start}
            AND b.published_at + c.shift < {start} + INTERVAL 1 DAY
            AND b.published_at + c.shift < TIMESTAMPTZ '{NOW.isoformat()}'
        ORDER BY published_at
        """  # noqa: S608  (our own names, bound values)
    )
    return pl.DataFrame(frame.to_arrow_table()).select(
        pl.col(column).cast(dtype) for column, dtype in schema.items()
    )


def _numbered(frames: dict[str, pl.DataFrame], after: int) -> tuple[dict[str, pl.DataFrame], int]:
    """The day's messages, numbered together in the order of time; and the last number."""
    order = pl.concat(
        frame.select("published_at", row=pl.int_range(pl.len()), name=pl.lit(name))
        for name, frame in frames.items()
    ).sort("published_at", "name", maintain_order=True)
    order = order.with_columns(dlq_sequence=after + 1 + pl.int_range(pl.len(), dtype=pl.Int64))
    numbered = {
        name: frame.with_columns(order.filter(name=name).sort("row")["dlq_sequence"])
        for name, frame in frames.items()
    }
    return numbered, after + order.height
