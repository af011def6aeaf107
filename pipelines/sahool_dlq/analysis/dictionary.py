"""Descriptions of the lake's tables, read from the headers of the SQL files (pure).

A header is the comment at the top of a file: a title, the grain, and one or more lines per column.
If a header does not explain a column, `the rest as in` names where it is explained, or the log
does.
"""

# Annotations stay text: see `stores.lake.sql`.
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache

import duckdb

from sahool_dlq.analysis.marts.build import MARTS, build_marts
from sahool_dlq.analysis.marts.views import VIEWS, create_views
from sahool_dlq.errors import QueryError, UnknownNameError
from sahool_dlq.sqlfiles import read_sql, sql_folder
from sahool_dlq.stores.lake.lake import LAYOUTS
from sahool_dlq.stores.lake.sql import empty_table

__all__ = [
    "Column",
    "Relation",
    "as_markdown",
    "explained",
    "postgres_comments",
    "relation",
    "relations",
]

_BY_SUFFIX = (
    ("_seconds", "s"), ("_bytes", "bytes"), ("_at", "UTC"), ("_count", "count"),
    ("_share", "0 to 1"), ("_minute", "minutes"), ("_date", "day, UTC"), ("_sequence", "sequence"),
)  # fmt: skip
_COLUMN = re.compile(r"--   (\w+(?:, \w+)*)(?: \(([^)]*)\))?(?: +(\S.*)|)$")
_REST = re.compile(r"--   the rest  +as in `(\w+)`")
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_LOG = ("dead_letters", "cases", "failure_groups", "service_health", "redrives", "durations_daily")


@dataclass(frozen=True, slots=True)
class Column:
    """A column and its meaning."""

    name: str
    kind: str  # DuckDB's type
    unit: str  # empty where there is none
    meaning: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view or mart, as `dlq sql` names it."""

    name: str
    kind: str  # table | view | mart
    title: str
    grain: str
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class _Header:
    title: str = ""
    grain: str = ""
    meanings: dict[str, str] = field(default_factory=dict)
    rest: str | None = None  # the relation that explains the other columns


def relations() -> list[Relation]:
    """Every table, view and mart, without columns."""
    found = [_relation(name, "table") for name in LAYOUTS]
    found += [_relation(name, "view") for name in VIEWS]
    return found + [_relation(name, "mart") for name in MARTS]


def relation(name: str) -> Relation:
    """One of them, with its columns; raises UnknownNameError if there is none with this name."""
    found = {each.name: each for each in relations()}
    if each := found.get(name.lower()):
        return _with_columns(each, _types((_file(each.name),) if each.kind == "mart" else ()))
    near = get_close_matches(name.lower(), found, n=1)
    guess = [f"mart_{name.lower()}"] if name.lower() in MARTS else near
    hint = f"; did you mean {guess[0]}?" if guess else "."
    raise UnknownNameError(f"There is no table {name!r} in the lake{hint} `dlq tables` lists them.")


def explained() -> list[Relation]:
    """All of them, with their columns."""
    types = _types(MARTS)
    return [_with_columns(each, types) for each in relations()]


def _with_columns(each: Relation, types: Mapping[str, Mapping[str, str]]) -> Relation:
    columns = tuple(
        Column(
            column,
            kind.replace("TIMESTAMP WITH TIME ZONE", "timestamptz").lower(),
            _unit(column),
            _meaning(_file(each.name), column),
        )
        for column, kind in types[each.name].items()
    )
    return replace(each, columns=columns)


def as_markdown() -> str:
    """The content of docs/data.md."""
    every = explained()
    lines = [_INTRODUCTION]
    for kind, title in (("table", "Tables"), ("view", "Views"), ("mart", "Marts")):
        lines += [f"## {title}", ""]
        for each in (one for one in every if one.kind == kind):
            lines += [f"### {each.name}", "", each.title, "", f"*{each.grain}*", ""]
            lines += ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
            lines += [
                f"| `{c.name}` | {c.kind} | {c.unit} | {_cell(c.meaning)} |" for c in each.columns
            ]
            lines.append("")
    lines += ["## PostgreSQL", "", _POSTGRES, ""]
    for table, (title, columns) in postgres_comments().items():
        lines += [f"### dlq.{table}", "", title or "", ""]
        if columns:
            lines += ["| column | meaning |", "| --- | --- |"]
            lines += [f"| `{name}` | {_cell(said)} |" for name, said in columns.items()]
            lines.append("")
    return "\n".join(lines)


@cache
def postgres_comments() -> Mapping[str, tuple[str, dict[str, str]]]:
    """The COMMENTs of the migrations by table: its own, and those of its columns."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    pattern = re.compile(
        r"^COMMENT ON (TABLE|VIEW|COLUMN) (?:dlq\.)?(\w+)(?:\.(\w+))?"
        r" IS\s+((?:'(?:[^']|'')*'\s*)+);",
        re.MULTILINE,
    )
    for file in sorted((sql_folder() / "postgres" / "migrations").glob("*.sql")):
        for kind, table, column, text in pattern.findall(file.read_text(encoding="utf-8")):
            said = "".join(re.findall(r"'((?:[^']|'')*)'", text)).replace("''", "'")
            title, columns = found.get(table, ("", {}))
            if kind == "COLUMN":
                found[table] = (title, columns | {column: said})
            else:
                found[table] = (said, columns)
    return dict(sorted(found.items()))


def _relation(name: str, kind: str) -> Relation:
    header = _header(name)
    return Relation(f"mart_{name}" if kind == "mart" else name, kind, header.title, header.grain)


def _file(name: str) -> str:
    return name.removeprefix("mart_")


@cache
def _header(name: str) -> _Header:
    for folder in ("views", "marts", "lake"):
        try:
            return _parsed(read_sql(f"{folder}/{name}.sql"))
        except QueryError:
            continue
    raise QueryError(f"No SQL file describes {name}: reinstall sahool-dlq.")


def _parsed(sql: str) -> _Header:
    lines = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line)
    title, _, rest = "\n".join(lines).partition("\n--\n")
    texts: dict[str, list[str]] = {}
    grain: list[str] = []
    named: list[str] = []
    is_in_columns, source = False, None
    for line in rest.splitlines():
        if told := _REST.match(line):
            source, is_in_columns, named = told[1], True, []
        elif found := _COLUMN.match(line):
            is_in_columns, named = True, found[1].split(", ")
            for name in named:
                texts[name] = [part for part in (found[2], found[3]) if part]
        elif line == "--":
            if is_in_columns:
                break  # what follows are remarks on how it is computed
        elif is_in_columns:
            for name in named:
                texts[name].append(line.removeprefix("--").strip())
        elif not line.startswith("-- Owner:"):
            grain.append(line.removeprefix("--").strip())
    meanings = {name: " ".join(parts) for name, parts in texts.items()}
    return _Header(
        " ".join(line.removeprefix("--").strip() for line in title.splitlines()),
        _sentence(" ".join(grain).removeprefix("Grain: ")),
        meanings,
        source,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _meaning(name: str, column: str) -> str:
    header = _header(name)
    if said := header.meanings.get(column):
        return said
    for other in (header.rest, *_LOG):
        if other and other != name and (said := _header(other).meanings.get(column)):
            return said
        further = _header(other).rest if other else None
        if further and (said := _header(further).meanings.get(column)):
            return said
    return ""


def _unit(column: str) -> str:
    return next((unit for suffix, unit in _BY_SUFFIX if column.endswith(suffix)), "")


@cache
def _types(marts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The columns of tables, views and these marts by relation, with DuckDB's types."""
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in LAYOUTS:
            connection.execute(empty_table(table))
        create_views(connection)
        for mart, built in build_marts(connection, _SOME_TIME, marts).items() if marts else ():
            connection.register(f"mart_{mart}", built)
        names = [*LAYOUTS, *VIEWS, *(f"mart_{mart}" for mart in marts)]
        return {name: _described(connection, name) for name in names}


def _described(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, str]:
    rows = connection.execute(f"DESCRIBE {name}").fetchall()
    return {column: kind for column, kind, *_ in rows}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


_INTRODUCTION = """# The data: tables, views, marts and their columns

*`dlq tables --markdown` prints this page, from the headers of the SQL files and the COMMENTs of the
migrations; a test compares them.*

`dlq tables` lists them, `dlq tables NAME` explains one, `dlq sql` queries them (DuckDB). Drains
write the **tables**. A **view** is computed when it is queried. `dlq marts` writes the **marts**,
so they are as old as its last run. Times are UTC; a name ends with its unit: `_seconds`, `_bytes`,
`_at`, `_count`. All texts are redacted.

Begin with [`failures`](#failures): one row per failure, with status, message, body and age.
"""

_POSTGRES = """\
The schema `dlq` has the current state; in psql `\\d+ dlq.failed_events` shows the same texts.
The current marts are there too (`dlq.mart_…`), with the columns above. For a row `f` of
`failed_events`, `dlq.service(f)` is the service that failed, and `dlq.is_open(f)` says whether it
is open."""
