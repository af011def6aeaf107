#!/usr/bin/env bash
# DuckDB 2.0.0: a PIVOT whose columns come from the data is no SELECT, and leaves a type behind each time.
#
# One would guess: PIVOT t ON kind USING sum(n) is a query. Like DESCRIBE, SUMMARIZE and UNPIVOT,
# extract_statements calls it a SELECT, a WHERE around it takes a parameter, and it leaves nothing behind.
#
# What happens: its type is MULTI, also where the PIVOT stands within a SELECT: DuckDB first makes an ENUM
# of the values, then asks. CREATE TABLE … AS PIVOT is MULTI, too. Parameters are refused. The temporary
# ENUM is never dropped: after a hundred such queries a connection has a hundred types, named
# __pivot_enum_…. With the values written out (ON kind IN ('x', 'y')) none of this is so.
#
# Why it matters: a tool that lets people read, and takes SELECT only, refuses a PIVOT; one that takes MULTI
# lets a CREATE TABLE through. A service that answers pivots on one connection gathers types for ever: ask on
# a cursor that is closed afterwards (the type is its own), or write the values out.
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
