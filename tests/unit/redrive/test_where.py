"""Conditions of `--where`: their SQL, and what is refused."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sahool_dlq.errors import QueryError, RedriveError
from sahool_dlq.redrive.choose.selection import Selection, moment
from sahool_dlq.redrive.choose.where import COLUMNS, compile_where


@pytest.mark.parametrize(
    ("text", "sql", "values"),
    [
        ("tenant_id = 'al-waha'", "f.tenant_id = %s", ["al-waha"]),
        ("error_message = 'it''s 100 %'", "f.error_message = %s", ["it's 100 %"]),
        (
            "redrive_count > 0 and not (status = 'parked' or service <> 'x')",
            ("(f.redrive_count > %s AND (NOT (f.status = %s OR service(f) <> %s)))"),
            [0, "parked", "x"],
        ),
        ("error_message NOT ILIKE '%denied%'", "f.error_message NOT ILIKE %s", ["%denied%"]),
        ("field_id IN ('a', 'b')", "((f.field_id = %s OR f.field_id = %s))", ["a", "b"]),
        ("field_id not in ('a')", "(NOT (f.field_id = %s))", ["a"]),
        ("farmer_id IS NOT NULL", "f.farmer_id IS NOT NULL", []),
        (
            "dlq_timestamp >= '2026-03-01T12:00'",
            "f.dlq_timestamp >= %s",
            [datetime(2026, 3, 1, 12, tzinfo=UTC)],
        ),
        ("data.crop = 'wheat'", "(f.original_data #>> %s) = %s", [["crop"], "wheat"]),
        ('data.a."b.c" IS NULL', "(f.original_data #>> %s) IS NULL", [["a", "b.c"]]),
        (
            "data.area_ha > 2.5",
            (
                "(jsonb_typeof(f.original_data #> %s) = %s AND f.original_data #> %s >"
                " to_jsonb(%s::numeric))"
            ),
            [["area_ha"], "number", ["area_ha"], 2.5],
        ),
        (
            "data.ok = true",
            (
                "(jsonb_typeof(f.original_data #> %s) = %s AND f.original_data #> %s ="
                " to_jsonb(%s::boolean))"
            ),
            [["ok"], "boolean", ["ok"], True],
        ),
    ],
)
def test_a_condition_becomes_sql_whose_values_are_parameters(
    text: str, sql: str, values: list[Any]
) -> None:
    found, parameters = compile_where(text)
    assert (found, parameters) == (sql, values)
    assert found.count("%s") == len(values)


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("tenant_id", "needs =, <>"),
        ("tenant_id = ", "needs a text in 'quotes' instead of the end"),
        ("tenant_id = 5", "needs a text in 'quotes' instead of '5'"),
        ("retry_count = '5'", "needs a number"),
        ("dlq_timestamp > 'yesterday'", "needs a time such as"),
        ("salary > 5", "There is no column 'salary': use service, "),
        ("data = 'x'", "There is no column 'data'"),
        ("tenant_id = 'a' service = 'b'", 'needs AND, OR or the end instead of "service'),
        ("(tenant_id = 'a'", "needs a closing parenthesis instead of the end"),
        ("tenant_id = 'a'; DROP TABLE failed_events", "is not valid at ';"),
        ("tenant_id = 'a' -- ", "is not valid at"),
        ("tenant_id = lower('A')", "needs a text in 'quotes' instead of \"lower"),
        ("exists (select 1)", "There is no column 'exists'"),
        ("not " * 40 + "tenant_id = 'a'", "nested 30 deep"),
        ("tenant_id = '" + "a" * 3_000 + "'", "2,000 characters"),
        ("retry_count like '1%'", "which is for texts"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text: str, needs: str) -> None:
    with pytest.raises(QueryError, match=re.escape(needs)) as refusal:
        compile_where(text)
    assert str(refusal.value).count("\n") == 0


PIECES = st.sampled_from(
    [
        *COLUMNS,
        *("data.a", "=", "<", "AND", "OR", "NOT", "(", ")", "'x'", "'; DROP TABLE x; --'", "1"),
        *("LIKE", "IN", "IS", "NULL", "%s", "%", ";", "--", "/*", "$1", "\\", "'"),
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_what_a_person_writes_never_reaches_the_database_as_sql(text: str) -> None:
    try:
        sql, values = compile_where(text)
    except QueryError:
        return
    known = {column.sql for column in COLUMNS.values()} | {"f.original_data"}
    rest = sql
    for part in sorted(known, key=len, reverse=True):
        rest = rest.replace(part, " ")
    words = set(re.findall(r"[A-Za-z_]+", rest.replace("%s", " ")))
    own = {"AND", "OR", "NOT", "LIKE", "IS", "NULL", "jsonb_typeof", "to_jsonb", "numeric"}
    assert words <= own
    assert not set(rest) & set(";'\"\\$-")
    assert sql.count("%s") == len(values)


def test_times_are_ago_or_iso() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert moment("90m", now) == now - timedelta(minutes=90)
    assert moment("1.5 d", now) == now - timedelta(hours=36)
    assert moment("2026-02-28T12:00", now) == datetime(2026, 2, 28, 12, tzinfo=UTC)
    for text in ("soon", "9999999d", f"{'9' * 400}h"):
        with pytest.raises(RedriveError, match="' is not a time: write 24h"):
            moment(text, now)


@pytest.mark.parametrize(
    ("subject", "pattern"),
    [
        ("sahool.analysis.*", r"^sahool[.]analysis[.][^.]+$"),
        ("sahool.>", r"^sahool[.].+$"),
        ("a.b+c", r"^a[.]b\+c$"),
    ],
)
def test_a_subject_may_be_a_filter(subject: str, pattern: str) -> None:
    assert Selection(subject=subject).condition() == ("f.original_subject ~ %s", [pattern])


@pytest.mark.parametrize("name", ["group", "service", "tenant", "event-type", "subject", "where"])
def test_a_condition_that_is_empty_is_refused_and_not_passed_over(name: str) -> None:
    field = name.replace("-", "_") + ("_id" if name in ("group", "tenant") else "")
    with pytest.raises(RedriveError, match=f"An empty {name} selects nothing"):
        Selection(error_types=("TimeoutError",), **{field: " "}).condition()
