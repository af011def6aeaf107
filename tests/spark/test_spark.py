"""The marts on Spark are those on DuckDB, row by row."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from pipelines.analysis.marts import MARTS, build_marts
from pipelines.analysis.spark import build_marts_on_spark
from pipelines.settings import Settings
from pipelines.simulation.run import into_lake
from pipelines.simulation.scenario import Scenario
from pipelines.stores.lake import Lake
from pipelines.stores.lake_sql import connect

NOW = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
Tables = dict[str, pa.Table]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Tables]:
    """All marts of one simulated month, by DuckDB and by Spark."""
    folder = tmp_path_factory.mktemp("spark")
    (folder / "spark-defaults.conf").write_text(
        "spark.master local[2]\nspark.sql.shuffle.partitions 2\nspark.driver.memory 1g\n"
        "spark.ui.enabled false\n"
        # To compile code for each query costs more here than the rows do.
        "spark.sql.codegen.wholeStage false\nspark.sql.codegen.factoryMode NO_CODEGEN\n"
    )
    settings = Settings(home=folder, lake_uri=str(folder / "lake"))
    into_lake(settings, Scenario(NOW, days=29, hourly=4, seed=5))
    lake = Lake(settings.lake)
    fail_anew(lake, 20)
    with connect(lake) as connection:
        by_duckdb = build_marts(connection, NOW)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(os.environ, "SPARK_CONF_DIR", str(folder))
        return by_duckdb, build_marts_on_spark(lake, NOW)


def fail_anew(lake: Lake, count: int) -> None:
    """So many closed cases fail again, the day after the last message."""
    letters, events = lake.read("dead_letters"), lake.read("case_events")
    kinds = ["triage.resolved", "triage.discarded", "redrive.succeeded"]
    closed = events.filter(pl.col("kind").is_in(kinds))["failure_id"].unique().sort()
    last = max(letters["dlq_sequence"].max(), events["dlq_sequence"].max())  # type: ignore[type-var]
    again = (
        letters.filter(
            pl.col("failure_id").is_in(closed.implode()), pl.col("root_failure_id").is_null()
        )
        .unique("failure_id")
        .sort("failure_id")
        .head(count)
        .with_columns(
            pl.lit(NOW).alias(name)
            for name in ("published_at", "first_attempt_at", "last_attempt_at", "dlq_timestamp")
        )
        .with_columns(
            dlq_sequence=pl.lit(last) + 1 + pl.int_range(pl.len()), dlq_date=pl.lit(NOW.date())
        )
    )
    assert again.height == count
    epoch, sequence = again["epoch"][0], again["dlq_sequence"][-1]
    lake.table("dead_letters").append(again, epoch, sequence)


def test_cases_that_failed_anew_are_among_them(engines: tuple[Tables, Tables]) -> None:
    for tables in engines:
        assert pl.DataFrame(tables["failure_groups"])["reopened_count"].sum() == 20


@pytest.mark.parametrize("name", MARTS)
def test_a_mart_has_the_same_rows(name: str, engines: tuple[Tables, Tables]) -> None:
    expected, found = (_comparable(tables[name]) for tables in engines)
    assert expected.height > 0
    assert_frame_equal(found, expected, rel_tol=1e-9, check_row_order=False)


def test_an_empty_lake_has_empty_marts(tmp_path: Path) -> None:
    tables = build_marts_on_spark(Lake(str(tmp_path)), NOW, ["failure_groups", "spikes"])
    assert {name: table.num_rows for name, table in tables.items()} == {
        "failure_groups": 0,
        "spikes": 0,
    }


def _comparable(table: pa.Table) -> pl.DataFrame:
    """Integers and decimals alike, since engines choose them differently; rows in one order."""
    frame: Any = pl.DataFrame(table)
    frame = frame.with_columns(
        pl.col(name).cast(pl.Decimal(38, 0))
        for name, dtype in frame.schema.items()
        if dtype.is_integer() or dtype.is_decimal()
    )
    return frame.sort(frame.columns)
