"""The marts on Spark: the same SQL files, translated, on the lake's live files.

The parts in Polars are also done in Polars here, from Spark's results. The lake's log is read with
deltalake, so Spark does not need Delta's package. The extra `spark` and Java are loaded and started
on use.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa

from sahool_dlq.analysis.marts.build import (
    FACTS,
    IN_POLARS,
    parameters,
    plain,
    wanted_marts,
    with_sources,
)
from sahool_dlq.analysis.marts.views import VIEWS, view_sql
from sahool_dlq.errors import MissingPackageError, QueryError
from sahool_dlq.sqlfiles import read_sql
from sahool_dlq.stores.lake.lake import LAYOUTS, Lake

__all__ = ["build_marts_on_spark", "translated"]

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.mergeSchema": "true",  # files of an older version lack columns
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.constraintPropagation.enabled": "false",  # a cached frame may not notice changes
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_NAMES = {
    "EPOCH_US": "UNIX_MICROS",
    "ARG_MAX_NULL": "MAX_BY",  # DuckDB skips NULLs here, Spark returns them
    "ARG_MIN_NULL": "MIN_BY",
    "ROW": "STRUCT",
}
_TYPES = {pl.String: "STRING", pl.Int64: "BIGINT", pl.Date: "DATE", pl.Datetime: "TIMESTAMP"}


def build_marts_on_spark(
    lake: Lake,
    now: datetime,
    names: Sequence[str] | None = None,
    *,
    slo: float = 0.999,
) -> dict[str, pa.Table]:
    """The marts `names`, or all, as of `now` (aware): the same as `build_marts` on DuckDB.

    Spark uses its own configuration (`SPARK_CONF_DIR`), and runs locally without one. Raises
    MissingPackageError without the extra or Java, QueryError with the mart or view that failed.
    """
    wanted = wanted_marts(names)
    with _session() as spark:
        for name in LAYOUTS:
            _show_table(spark, lake, name)
        for relation, rows in parameters(now, slo).items():
            name, columns = relation.split(" ", 1)
            _run(spark, name, f"SELECT * FROM (VALUES {rows}) AS t {columns}")  # noqa: S608  (our own names, bound values)
        for name in VIEWS:
            _run(spark, name, view_sql(name), is_kept=name in FACTS)
        tables = {}
        for name in with_sources(wanted):
            tables[name] = _build(spark, now, name)
            spark.createDataFrame(tables[name]).createOrReplaceTempView(name)
        return {name: tables[name] for name in wanted}


@contextmanager
def _session() -> Iterator[Any]:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingPackageError(
            "The marts on Spark need its package: pip install 'sahool-dlq[spark]'."
        ) from error
    if shutil.which("java") is None:
        raise MissingPackageError("Spark needs Java 17 or newer: install it, or set PATH to it.")
    builder = SparkSession.builder.appName("dlq marts")
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    try:
        yield spark
    finally:
        spark.stop()


def _show_table(spark: Any, lake: Lake, name: str) -> None:
    """A table of the lake as a view over its live files, with its columns."""
    schema = LAYOUTS[name].schema
    columns = ", ".join(f"`{column}` {_TYPES[type(dtype)]}" for column, dtype in schema.items())
    reader = spark.read.schema(columns).option("basePath", lake.path(name))
    files = lake.files(name)
    frame = reader.parquet(*files) if files else spark.createDataFrame([], columns)
    frame.select(*schema).createOrReplaceTempView(name)


def _run(spark: Any, name: str, sql: str, *, is_kept: bool = False) -> None:
    """Create a view for one relation; stored ones are computed now, once."""
    try:
        frame = _frame(spark, sql)
        if is_kept:
            frame = _kept(frame)
        frame.createOrReplaceTempView(name)
    except _spark_errors() as error:
        raise QueryError(f"The view {name} failed on Spark: {_first_line(error)}") from error


def _build(spark: Any, now: datetime, name: str) -> pa.Table:
    def query(sql: str) -> pl.DataFrame:
        return pl.DataFrame(plain(_frame(spark, sql).toArrow()))

    try:
        if name in IN_POLARS:
            frame = IN_POLARS[name](query, now)
            return plain(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
        return plain(_frame(spark, read_sql(f"marts/{name}.sql")).toArrow())
    except _spark_errors() as error:
        raise QueryError(f"The mart {name} failed on Spark: {_first_line(error)}") from error


def _frame(spark: Any, sql: str) -> Any:
    """The rows of one SELECT in DuckDB's dialect."""
    import sqlglot

    query = sqlglot.parse_one(sql, read="duckdb")
    clause = query.args.get("with_")
    if clause is not None and clause.args.get("recursive"):
        for part in clause.expressions:
            _materialise(spark, part.alias, part.this)
        query.set("with_", None)
    return spark.sql(translated(query))


def _materialise(spark: Any, name: str, query: Any) -> None:
    """One part of a WITH RECURSIVE as a view.

    Spark would compute a recursive part again for each of its steps and each use. So the recursion
    is a loop here, whose steps read the rows of the previous step.
    """
    from sqlglot import exp

    is_recursive = any(table.name == name for table in query.find_all(exp.Table))
    if not is_recursive:
        _kept(spark.sql(translated(query))).createOrReplaceTempView(name)
        return
    fresh = _kept(spark.sql(translated(query.this)))
    step = translated(query.expression)
    columns = [f"CAST(`{field.name}` AS {field.dataType.simpleString()})" for field in fresh.schema]
    names, found = fresh.columns, [fresh]
    while not fresh.isEmpty():
        fresh.createOrReplaceTempView(name)
        fresh = _kept(spark.sql(step).selectExpr(*columns).toDF(*names))
        found.append(fresh)
    whole = found[0]
    for part in found[1:]:
        whole = whole.unionAll(part)
    _kept(whole).createOrReplaceTempView(name)


def _kept(frame: Any) -> Any:
    """The frame, computed now and stored by the executors, without its query plan."""
    return frame.localCheckpoint()


def translated(query: Any) -> str:
    """The query in Spark's dialect, with corrections where sqlglot's translation does not run on
    Spark.
    """
    from sqlglot import exp

    def spark_of(node: Any) -> Any:
        name = node.sql_name() if isinstance(node, exp.Func) else ""
        if isinstance(node, exp.Anonymous):
            name = node.name.upper()
        if name in _NAMES:
            return exp.Anonymous(this=_NAMES[name], expressions=node.expressions)
        if isinstance(node, exp.Literal) and not node.is_string and "." in node.this:
            return exp.Literal(this=f"{node.this}D", is_string=False)  # else DECIMAL, and rounded
        if isinstance(node, exp.Log):  # of base 10 or 2: not as a quotient, which is less exact
            return exp.Anonymous(this=f"LOG{node.this}", expressions=[node.expression])
        if isinstance(node, exp.DateDiff):  # in seconds: DuckDB counts those that begin between
            later, earlier = (
                f"UNIX_SECONDS({at.sql('spark')})" for at in (node.this, node.expression)
            )
            return exp.maybe_parse(f"({later} - {earlier})", dialect="spark")
        if isinstance(node, exp.GroupConcat):
            return _joined(node.this)
        if name == "GROUPING" and len(node.expressions) > 1:
            bits = [f"GROUPING({part.sql('spark')})" for part in node.expressions]
            worth = [f"{bit} * {1 << place}" for place, bit in enumerate(reversed(bits))]
            return exp.maybe_parse(f"({' + '.join(worth)})", dialect="spark")
        return node

    query = query.copy()
    for node in reversed(list(query.walk())):  # parts before the whole
        if (new := spark_of(node)) is not node:
            node.replace(new)
    return str(query.sql("spark"))


def _joined(ordered: Any) -> Any:
    """STRING_AGG(DISTINCT x, ', ' ORDER BY x), or STRING_AGG(x, ', ' ORDER BY a, b)."""
    from sqlglot import exp

    if isinstance(ordered.this, exp.Distinct):
        value = ordered.this.expressions[0].sql("spark")
        names = f"SORT_ARRAY(COLLECT_SET({value}))"
    else:
        value = ordered.this.sql("spark")
        keys = ", ".join(key.this.sql("spark") for key in ordered.expressions)
        rows = f"SORT_ARRAY(COLLECT_LIST(STRUCT({keys}, {value} AS value)))"
        names = f"TRANSFORM({rows}, row -> row.value)"
    text = f"IF(COUNT({value}) > 0, ARRAY_JOIN({names}, ', '), NULL)"
    return exp.maybe_parse(text, dialect="spark")


def _spark_errors() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return PySparkException, Py4JError


def _first_line(error: Exception) -> str:
    """The error without Java's trace in its message."""
    return str(error).partition("\n\tat ")[0].replace("\n", " ")[:500]
