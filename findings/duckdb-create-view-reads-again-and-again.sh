#!/usr/bin/env bash
# DuckDB 2.0.0: CREATE VIEW opens the Parquet files below it, once for each way that leads to them.
#
# Expected: a view is a stored query, so creating it reads nothing; or it reads the columns of the views that it
# names, which are known already. With parquet_metadata_cache = true a file is surely not opened twice for them.
#
# Observed: to bind the new view, all views below it are bound again, down to read_parquet, which opens each file.
# A view that joins another view with itself doubles that: a tower of five such views over one file of one row
# opens it 2, 4, 8, 16 and 32 times, one after the other. No query has run yet.
#
# Consequence: a lake with some layers of views needs a second, or a thousand requests to an object store, before
# the first query. Put empty tables in the place of the base views while the others are created: DuckDB stores
# the text, and looks the names up again when a query runs.
source "$(dirname "$0")/lib.sh"
install duckdb==2.0.0 fsspec==2026.9.0
try "duckdb 2.0.0" <<'PYTHON'
import sys
import duckdb
from fsspec.implementations.local import LocalFileSystem

LAYERS = range(1, 6)
SELF_JOIN = "CREATE OR REPLACE VIEW v{} AS SELECT a.x FROM v{} AS a JOIN v{} AS b USING (x)"

class Counting(LocalFileSystem):
    """Local files; says how often one was opened."""
    protocol = "counting"
    opened = 0

    def _strip_protocol(self, path):
        return super()._strip_protocol(path.removeprefix("counting://"))

    def _open(self, path, *args, **kwargs):
        Counting.opened += 1
        return super()._open(path, *args, **kwargs)

def opened(connection, layer):
    before = Counting.opened
    connection.execute(SELF_JOIN.format(layer, layer - 1, layer - 1))
    return Counting.opened - before

file = f"{sys.argv[1]}/one.parquet"
with duckdb.connect() as connection:
    connection.execute(f"COPY (SELECT 1 AS x) TO '{file}'")
    connection.register_filesystem(Counting())
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute(f"CREATE VIEW v0 AS FROM read_parquet('counting://{file}')")
    plain = [opened(connection, layer) for layer in LAYERS]
    connection.execute("CREATE TEMP TABLE v0 AS FROM memory.main.v0 LIMIT 0")
    hidden = [opened(connection, layer) for layer in LAYERS]
    connection.execute("DROP TABLE temp.v0")
    rows = connection.execute("FROM v5").fetchall()
print(f"opened for each CREATE VIEW: {plain}; with an empty table in its place: {hidden}; rows: {rows}")
sys.exit(0 if (plain, hidden, rows) == ([2, 4, 8, 16, 32], [0] * 5, [(1,)]) else 1)
PYTHON
