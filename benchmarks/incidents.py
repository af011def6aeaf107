"""How well incidents agree with the planted ones: `python benchmarks/incidents.py [seeds]`.

For each seed a month with outages, releases that fail and other planted causes, and a month in
which nothing happens. Every outage reaches three services, 35 to 45 seconds after each other. It is
to be one incident, with the services in this order. A release that fails is to be an incident of
its own. In the quiet month there is to be none.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import duckdb
import polars as pl

from sahool_dlq.analysis.marts.build import IN_POLARS, parameters
from sahool_dlq.simulation.fleet import BAD_DEPLOY, MENDED, REGRESSION, Kind, kind
from sahool_dlq.simulation.history import History, Letter
from sahool_dlq.simulation.scenario import FOLLOWERS, Scenario, time_of
from sahool_dlq.sqlfiles import read_sql

UNTIL = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
BUCKET = timedelta(minutes=1)
"""Of `failures_minutely`."""
_SERVICES = ("weather", *sorted(FOLLOWERS, key=FOLLOWERS.__getitem__))
_FAILING = "ConnectionRefusedError", "ReadTimeout", "TimeoutError"


def _group(failing: Kind) -> str:
    return hashlib.sha256(failing.name.encode()).hexdigest()[:16]


_OUTAGE = {_group(kind(*pair)) for pair in zip(_SERVICES, _FAILING, strict=True)}
_RELEASES = {_group(BAD_DEPLOY): "yield", _group(MENDED): "irrigation"}
_EXPECTED = {  # groups of the other planted sources
    _group(kind("billing", "UniqueViolation")),
    _group(kind("soil", "ValidationError")),
    _group(kind("tiles", "ClientConnectorError")),
    _group(REGRESSION),
}


class Agreement(NamedTuple):
    """Incidents beside what was planted."""

    outages: int
    found: int  # outages that are one incident, from begin to end, of their groups alone
    in_order: int  # of these, with the services in the order in which they began to fail
    deploys: int
    own: int  # releases that fail and are an incident of their own
    unplanned: int  # incidents that no planted cause explains
    largest_error: timedelta  # of beginning and end of an outage


def incidents(scenario: Scenario) -> pl.DataFrame:
    """The mart `incidents` of a history, in which each kind of failure is a group."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, frame in _tables(scenario).items():
            connection.register(name, frame.to_arrow())
        for relation, rows in parameters(scenario.until, 0.999).items():
            connection.execute(f"CREATE VIEW {relation} AS VALUES {rows}")

        def query(sql: str) -> pl.DataFrame:
            return pl.DataFrame(connection.sql(sql).to_arrow_table())

        connection.register("outbreaks", IN_POLARS["outbreaks"](query, scenario.until).to_arrow())
        return query(read_sql("marts/incidents.sql"))


def _tables(scenario: Scenario) -> dict[str, pl.DataFrame]:
    """What the marts read."""
    rows = [
        (time_of(h.at), _group(h.kind), h.kind.service, h.tenant)
        for h in History(scenario)
        if isinstance(h, Letter) and h.root is None
    ]
    columns = ("dlq_timestamp", "group_id", "service", "tenant_id")
    letters = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        root_failure_id=pl.lit(None, pl.String), dlq_date=pl.col("dlq_timestamp").dt.date()
    )
    minute = (pl.col("dlq_timestamp").dt.epoch("s") // 60).alias("minute_number")
    return {
        "dead_letters": letters,
        "failures_minutely": letters.group_by("group_id", "service", minute).agg(
            failure_count=pl.len().cast(pl.Int64),
            first_opened_at=pl.col("dlq_timestamp").min(),
            open_count=pl.lit(0),
            total_open_since_seconds=pl.lit(0),
            cured_count=pl.lit(0),
            total_closed_seconds=pl.lit(0),
        ),
        "failure_groups": letters.select("group_id", cause_id="group_id").unique(),
    }


def agreement(scenario: Scenario) -> Agreement:
    """Compare the incidents of a history with what was planted."""
    rows = incidents(scenario).to_dicts()
    outages = [(row, error) for row in rows for error in _errors(row, scenario)]
    planted = {} if scenario.is_quiet else _RELEASES
    own = [row for row in rows if planted.get(row["groups"]) == row["services"]]
    others = [row for row in rows if row["groups"] in _EXPECTED and not scenario.is_quiet]
    return Agreement(
        outages=len(scenario.outages),
        found=sum(error <= BUCKET for _, error in outages),
        in_order=sum(row["services"] == ", ".join(_SERVICES) for row, _ in outages),
        deploys=len(planted),
        own=len({row["groups"] for row in own}),
        unplanned=len(rows) - len(outages) - len(own) - len(others),
        largest_error=max((error for _, error in outages), default=timedelta(0)),
    )


def _errors(row: dict[str, Any], scenario: Scenario) -> Iterator[timedelta]:
    """How far the beginning or the end is from the outage's, if it is one."""
    if set(row["groups"].split(", ")) == _OUTAGE:
        for outage in scenario.outages:
            start, end = time_of(outage.start), time_of(outage.end)
            if abs(row["from_at"] - start) < timedelta(hours=1):
                yield max(abs(row["from_at"] - start), abs(row["until_at"] - end))


def main() -> None:
    """Print a line for each month, and the sums."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print("seed  month    outages  found  in order  deploys  own  unplanned  largest error")
    found = []
    for seed in range(1, seeds + 1):
        for month in ("planted", "quiet"):
            scenario = Scenario(UNTIL, days=30, hourly=60, seed=seed, is_quiet=month == "quiet")
            one = agreement(scenario)
            found.append(one)
            print(f"{seed:>4}  {month:<7}{_columns(one[:6])} {one[6].seconds:>12} s", flush=True)
    sums = [sum(one[place] for one in found) for place in range(6)]
    print(f" all         {_columns(sums)}")


def _columns(counts: Sequence[Any]) -> str:
    widths = (9, 7, 10, 9, 5, 11)
    return "".join(f"{count:>{width}}" for count, width in zip(counts, widths, strict=True))


if __name__ == "__main__":
    main()
