"""The marts on Spark have the same rows and types as on DuckDB."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import sqlglot
from odd_log import add_odd_rows
from polars.testing import assert_frame_equal

from sahool_dlq.analysis.marts.build import MARTS, build_marts
from sahool_dlq.analysis.marts.spark import build_marts_on_spark, translated
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect

ZONE = "Europe/Berlin"
NOW = datetime(2026, 10, 25, 1, 20, 7, 654321, tzinfo=UTC)
"""In the hour that comes twice there."""
Tables = dict[str, pa.Table]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Tables]:
    """All marts of one simulated month and of unusual rows, by DuckDB and by Spark."""
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
    resolve_in_versions(lake, 30)
    add_odd_rows(lake, NOW)
    with connect(lake) as connection:
        by_duckdb = build_marts(connection, NOW)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(os.environ, "SPARK_CONF_DIR", str(folder))
        patched.setitem(os.environ, "TZ", ZONE)  # of Java, too
        time.tzset()
        by_spark = build_marts_on_spark(lake, NOW)
    time.tzset()
    return by_duckdb, by_spark


def resolve_in_versions(lake: Lake, count: int) -> None:
    """Let a person say of this number of cases which version repairs them."""
    letters, events = lake.read("dead_letters"), lake.read("case_events")
    roots = letters.filter(pl.col("root_failure_id").is_null())
    cases = roots.unique("failure_id").sort("failure_id").head(count)
    last = max(letters["dlq_sequence"].max(), events["dlq_sequence"].max())
    said = (
        events.filter(pl.col("redrive_id").is_null())
        .head(1)
        .select(pl.exclude("failure_id", "dlq_sequence", "resolved_in_version"))
        .join(cases.select("failure_id"), how="cross")
        .with_columns(
            pl.lit("triage.resolved").alias("kind"),
            pl.lit(NOW).alias("at"),
            pl.lit(NOW).alias("published_at"),
            pl.lit(NOW.date()).alias("dlq_date"),
            (pl.lit(last) + 1 + pl.int_range(pl.len())).alias("dlq_sequence"),
            pl.format("2.7.{}", pl.int_range(pl.len()) % 3).alias("resolved_in_version"),
        )
        .select(events.columns)
    )
    lake.table("case_events").append(said, said["epoch"][0], said["dlq_sequence"][-1])


def fail_anew(lake: Lake, count: int) -> None:
    """Let this number of closed cases fail again, the day after the last message."""
    letters, events = lake.read("dead_letters"), lake.read("case_events")
    kinds = ["triage.resolved", "triage.discarded", "redrive.succeeded"]
    closed = events.filter(pl.col("kind").is_in(kinds))["failure_id"].unique().sort()
    last = max(letters["dlq_sequence"].max(), events["dlq_sequence"].max())
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


def test_cases_that_failed_again_are_among_them(engines: tuple[Tables, Tables]) -> None:
    for tables in engines:
        assert pl.DataFrame(tables["failure_groups"])["reopened_count"].sum() == 20


@pytest.mark.parametrize("name", MARTS)
def test_a_mart_has_the_same_rows(name: str, engines: tuple[Tables, Tables]) -> None:
    expected, found = (_sorted(tables[name]) for tables in engines)
    assert expected.height > 0
    assert_frame_equal(found, expected, rel_tol=1e-9)


def test_an_empty_lake_has_empty_marts(tmp_path: Path) -> None:
    tables = build_marts_on_spark(Lake(str(tmp_path)), NOW, ["failure_groups", "spikes"])
    assert {name: table.num_rows for name, table in tables.items()} == {
        "failure_groups": 0,
        "spikes": 0,
    }


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("0.2 * n / 86400.0", "0.2D * n / 86400.0D"),  # a DECIMAL would be rounded
        ("POWER(0.5, LOG2(n + 1.0))", "POWER(0.5D, LOG2(n + 1.0D))"),
        ("LOG10(0.1 * n)", "LOG10(0.1D * n)"),
        ("ARG_MAX_NULL(n, ROW(a, 1.5))", "MAX_BY(n, STRUCT(a, 1.5D))"),
        ("EPOCH_US(MAX(n)) / 1e6", "UNIX_MICROS(MAX(n)) / 1e6"),
        ("'86400.0'", "'86400.0'"),
        (
            "STRING_AGG(DISTINCT n, ', ' ORDER BY n)",
            "IF(COUNT(n) > 0, ARRAY_JOIN(SORT_ARRAY(COLLECT_SET(n)), ', '), NULL)",
        ),
        (
            "STRING_AGG(n, ', ' ORDER BY at, n)",
            (
                "IF(COUNT(n) > 0, ARRAY_JOIN(TRANSFORM(SORT_ARRAY(COLLECT_LIST(STRUCT(at AS at,"
                " n AS n, n AS value))), row -> row.value), ', '), NULL)"
            ),
        ),
    ],
)
def test_what_differs_is_translated_wherever_it_stands(said: str, meant: str) -> None:
    assert translated(sqlglot.parse_one(f"SELECT {said}", dialect="duckdb")) == f"SELECT {meant}"


def _sorted(table: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(table)
    return frame.sort(frame.columns)
