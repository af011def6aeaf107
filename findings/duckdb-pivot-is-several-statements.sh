#!/usr/bin/env bash
# DuckDB 2.0.0: a PIVOT with columns from the data is not a SELECT, and leaves a type behind each time.
#
# Expected: PIVOT t ON kind USING sum(n) is a query, like DESCRIBE, SUMMARIZE and UNPIVOT:
# extract_statements calls it a SELECT, a WHERE around it accepts a parameter, and nothing remains.
#
# Observed: its statement type is MULTI, even if the PIVOT is inside a SELECT. DuckDB first creates an ENUM
# of the values, then runs the query. CREATE TABLE … AS PIVOT is MULTI too. Parameters are refused. The
# temporary ENUM is never dropped: after a hundred such queries, a connection has a hundred types named
# __pivot_enum_…. If the values are written out (ON kind IN ('x', 'y')), none of this happens.
#
# Consequence: a tool that accepts only SELECT, so that people cannot change data, refuses a PIVOT. A tool
# that accepts MULTI also accepts CREATE TABLE. A service that runs pivots on one connection collects types
# without limit. Use a cursor that is closed afterwards (the type belongs to it), or write the values out.
source "$(dirname "$0")/lib.sh"
install duckdb==2.0.0
try "DuckDB 2.0.0" <<'PYTHON'
import sys
import duckdb

connection = duckdb.connect()
connection.execute("CREATE TABLE t AS FROM (VALUES ('a', 'x', 1), ('a', 'y', 2)) v(service, kind, n)")

def kind(statement):
    [only] = connection.extract_statements(statement)
    return only.type.name

def takes_a_parameter(query):
    try:
        return connection.execute(f"FROM ({query}) WHERE service = ?", ["a"]).fetchall() == [("a", 1, 2)]
    except duckdb.InvalidInputException as error:
        print("   ", error)
        return False

def types_left():
    return connection.execute("SELECT count(*) FROM duckdb_types() WHERE type_name LIKE '%pivot_enum%'").fetchone()[0]

def look(query):
    found = {
        "alone": kind(query),
        "in a SELECT": kind(f"SELECT * FROM ({query})"),
        "in a CREATE TABLE": kind(f"CREATE TABLE u AS {query}"),
        "takes a parameter": takes_a_parameter(query),
    }
    before = types_left()
    for _ in range(100):
        connection.execute(query).fetchall()
    return {**found, "types left by 100 queries": types_left() - before}

from_data = look("PIVOT t ON kind USING sum(n) GROUP BY service")
written = look("PIVOT t ON kind IN ('x', 'y') USING sum(n) GROUP BY service")
print("DuckDB", duckdb.__version__)
print("values from the data:", from_data)
print("values written out:  ", written)
sys.exit(
    list(from_data.values()) != ["MULTI", "MULTI", "MULTI", False, 100]
    or list(written.values()) != ["SELECT", "SELECT", "CREATE", True, 0]
)
PYTHON
