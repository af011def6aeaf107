"""Loads the part of the log to count: some failures at a time, with their whole chains of redrives.

Only the columns that are read are loaded. In a full count, repeated texts are numbered (DuckDB's
ENUM), so that joins and groups use numbers.
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

from collections.abc import Iterator, Mapping

import duckdb

from sahool_dlq.stores.lake.lake import LOG_TABLES

__all__ = [
    "WORKING",
    "counted_rows",
    "drop_words",
    "make_chains",
    "number_words",
    "parts",
    "touch",
]

WORKING = ("chains", "families", "family_edges", "touched")
"""The tables that are created here."""

# The columns of the log that views and marts read; others, especially long texts, are not loaded.
_WORDS = {
    "dead_letters": (
        *("epoch", "event_type", "original_stream", "service", "consumer_name", "tenant_id"),
        *(
            "error_class",
            "group_id",
            "parent_id",
            "cause_id",
            "template",
            "frames",
            "consumer_version",
        ),
    ),
    "case_events": ("epoch", "kind", "trigger", "consumer"),
}
"""Repeated texts, ..."""
_READ = {
    "dead_letters": (
        *("dlq_sequence", "dlq_date", "failure_id", "root_failure_id", "redrive_id"),
        *("redrive_attempt", "original_sequence", "first_attempt_at", "dlq_timestamp"),
    ),
    "case_events": (
        *("dlq_sequence", "failure_id", "redrive_id", "attempt", "not_before", "redrive_cap", "at"),
        *("parse_error", "consumer_version", "resolved_in_version"),
    ),
}
"""... and the others."""


def make_chains(connection: duckdb.DuckDBPyConnection) -> None:
    """Table `chains`: the failures of redrives, each beside its root."""
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE chains AS
        SELECT DISTINCT failure_id, root_failure_id
        FROM memory.main.dead_letters
        WHERE root_failure_id IS NOT NULL
    """)


def _make_families(connection: duckdb.DuckDBPyConnection) -> None:
    """Table `families`: one id for a whole chain, by each failure in a chain that is not plain.

    In a plain chain every failure has the same root, and that root has none, so nothing else is
    needed.
    """
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE touched AS
        SELECT c.failure_id FROM chains AS c
        SEMI JOIN chains AS r ON r.root_failure_id = c.failure_id
        UNION
        SELECT failure_id FROM chains GROUP BY failure_id HAVING COUNT(*) > 1
        UNION
        SELECT c.failure_id FROM chains AS c
        SEMI JOIN memory.main.case_events AS e USING (failure_id)
    """)
    _touch_chains(connection)
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE family_edges AS
        WITH edges AS (FROM chains SEMI JOIN touched USING (failure_id))
        SELECT failure_id AS a, root_failure_id AS b FROM edges
        UNION
        SELECT root_failure_id AS a, failure_id AS b FROM edges
    """)
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE families AS
        SELECT a AS failure_id, LEAST(a, MIN(b)) AS family FROM family_edges GROUP BY a
    """)
    while _one_step(connection):
        pass


def _one_step(connection: duckdb.DuckDBPyConnection) -> bool:
    """Give each failure the smallest family of its neighbours; returns whether that changed
    anything.
    """
    (count,) = connection.execute("""
        WITH nearer AS (
            SELECT e.a AS failure_id, MIN(f.family) AS family
            FROM family_edges AS e
            INNER JOIN families AS f ON f.failure_id = e.b
            GROUP BY e.a
        )
        UPDATE families AS f SET family = n.family
        FROM nearer AS n
        WHERE n.failure_id = f.failure_id AND n.family < f.family
    """).fetchall()[0]
    return bool(count)


def parts(connection: duckdb.DuckDBPyConnection, part_rows: int) -> Iterator[dict[str, str]]:
    """By table, the condition on `m` of each part of the log: some failures with their whole
    chains.
    """
    (rows,) = connection.execute("SELECT COUNT(*) FROM memory.main.dead_letters").fetchall()[0]
    count = rows // part_rows + 1
    if count == 1:
        yield dict.fromkeys(LOG_TABLES, "")
        return
    _make_families(connection)
    chain = {"dead_letters": "m.root_failure_id, m.failure_id", "case_events": "m.failure_id"}
    for number in range(count):
        yield {
            name: f"""
                LEFT JOIN families AS f ON f.failure_id = m.failure_id
                WHERE HASH(COALESCE(f.family, {ids})) % {count} = {number}
            """
            for name, ids in chain.items()
        }


def number_words(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the types of repeated texts, in alphabetical order."""
    for name in LOG_TABLES:
        for column in _WORDS[name]:
            connection.execute(f"""
                CREATE OR REPLACE TYPE {_word(name, column)} AS ENUM (
                    SELECT DISTINCT {column} FROM memory.main.{name}
                    WHERE {column} IS NOT NULL
                    ORDER BY {column}
                )
            """)  # noqa: S608  (our own names, bound values)


def _word(name: str, column: str) -> str:
    return f"memory.main.{name}_{column}"


def drop_words(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop the types of `number_words`."""
    for name in LOG_TABLES:
        for column in _WORDS[name]:
            connection.execute(f"DROP TYPE IF EXISTS {_word(name, column)}")


def counted_rows(
    connection: duckdb.DuckDBPyConnection, name: str, *, is_whole: bool = False
) -> str:
    """The SELECT of a table's rows (`m`) within the reach; unused columns are null.

    In a full count all rows are within it, and their texts are numbered.
    """

    def read(column: str, kind: str) -> str:
        if column in _WORDS[name] and is_whole:
            return f"CAST(m.{column} AS {_word(name, column)}) AS {column}"
        if column in (*_WORDS[name], *_READ[name]):
            return f'm."{column}"'
        return f'CAST(NULL AS {kind}) AS "{column}"'

    columns = connection.execute(f"DESCRIBE memory.main.{name}").fetchall()
    listed = [read(column, kind) for column, kind, *_ in columns]
    rows = f"SELECT {', '.join(listed)} FROM memory.main.{name} AS m"  # noqa: S608  (our own names, bound values)
    if is_whole:
        return rows
    return f"""{rows}
        INNER JOIN reach AS r
            ON r.name = '{name}' AND r.epoch = m.epoch AND m.dlq_sequence <= r.sequence_now
    """


def touch(connection: duckdb.DuckDBPyConnection, sources: Mapping[str, str]) -> None:
    """Table `touched`: the failures that messages beyond the reach are about, with whole chains."""
    named = " UNION ".join(
        f"""
        SELECT m.failure_id
        FROM {sources[name]} AS m
        INNER JOIN reach AS r
            ON r.name = '{name}' AND r.epoch = m.epoch AND m.dlq_sequence > r.sequence_before
        """  # noqa: S608  (our own names, bound values)
        for name in LOG_TABLES
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE touched AS
        SELECT failure_id FROM ({named}) WHERE failure_id IS NOT NULL
    """)  # noqa: S608  (our own names, bound values)
    _touch_chains(connection)


def _touch_chains(connection: duckdb.DuckDBPyConnection) -> None:
    """Touch all failures of chains with a touched failure."""
    while _touch_neighbours(connection):
        pass


def _touch_neighbours(connection: duckdb.DuckDBPyConnection) -> bool:
    """Touch the next failures of the chains; returns whether there were new ones."""
    (count,) = connection.execute("""
        INSERT INTO touched
        SELECT c.root_failure_id FROM chains AS c SEMI JOIN touched AS t USING (failure_id)
        UNION
        SELECT c.failure_id FROM chains AS c
        SEMI JOIN touched AS t ON t.failure_id = c.root_failure_id
        EXCEPT
        SELECT failure_id FROM touched
    """).fetchall()[0]
    return bool(count)
