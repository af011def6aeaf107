"""Failure groups: what keeps a group, what splits it, and the quality on real failures."""

import importlib
import re
import sys

import duckdb
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.fingerprint.fingerprint import (
    FINGERPRINT_VERSION,
    add_fingerprint,
    fingerprint,
)
from sahool_dlq.deadletter.fingerprint.stack_trace import read_trace
from sahool_dlq.deadletter.fingerprint.template import MESSAGE_LIMIT, template, templates
from sahool_dlq.deadletter.fingerprint.template_languages import SIGNS
from sahool_dlq.deadletter.fingerprint.template_steps import STAGES
from sahool_dlq.deadletter.record import FINGERPRINT_COLUMNS
from support import ROOT

sys.path.append(str(ROOT / "benchmarks"))
quality = importlib.import_module("quality")
variations = importlib.import_module("variations")
FRESH = quality.rows_of(quality.FRESH_TRACES)

corpus = pytest.mark.skipif(
    not quality.corpus_folder().is_dir(), reason="the corpus is not here (set DLQ_CORPUS)"
)

REFUSED = (
    "HTTPConnectionPool(host='weather', port=80): Max retries exceeded with url: /v1/7 (Caused by "
    "NewConnectionError('<urllib3.connection.HTTPConnection object at 0x7f5a>: Failed to establish "
    "a new connection: [Errno 111] Connection refused'))"
)
TRACE = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.11/site-packages/urllib3/connection.py", line 174, in _new_conn
    conn = connection.create_connection(
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ConnectionRefusedError: [Errno 111] Connection refused

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/app/main.py", line 12, in run
    handle(event)
  File "/srv/app/fields/handler.py", line 40, in handle
    forecast = weather.fetch(event.field)
  File "/srv/app/fields/weather.py", line 88, in fetch
    return session.get(url)
  File "/srv/venv/lib/python3.11/site-packages/requests/sessions.py", line 602, in get
    return self.request("GET", url, **kwargs)
requests.exceptions.ConnectionError: HTTPConnectionPool(host='weather', port=80): no
"""
JAVA = """java.lang.IllegalStateException: Cannot save field 17
\tat org.sahool.fields.Store.save(Store.java:41)
\tat org.sahool.fields.Handler.lambda$handle$3(Handler.java:18)
\tat java.base/java.util.ArrayList.forEach(ArrayList.java:1511)
\tat org.sahool.Worker.run(Worker.java:77)
Caused by: java.sql.SQLException: deadlock
\tat org.sahool.db.Pool.execute(Pool.java:9)
\t... 3 more
"""
NODE = """TypeError: Cannot read properties of undefined (reading 'area')
    at area (/srv/app/src/fields.js:10:15)
    at async Object.handle [as onEvent] (file:///srv/app/src/handler.js:4:3)
    at /srv/app/src/worker.js:1:2
    at node:internal/process/task_queues:95:5
    at next (/srv/app/node_modules/express/lib/router.js:1:1)
"""


def group(message: str = REFUSED, trace: str | None = TRACE, kind: str = "ConnectionError") -> str:
    return fingerprint(kind, message, trace).group_id


# What keeps a group


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(r"line \d+", "line 999", id="shifted line numbers"),
        pytest.param("/srv/venv/lib/python3.11", "/opt/x/lib/python3.13", id="another venv"),
        pytest.param("/srv/app/", "/home/ci/build-7/checkout/", id="another checkout"),
        pytest.param(
            '  File "/srv/venv/lib/python3.11/site-packages/requests/sessions.py"',
            '  File "/srv/venv/lib/python3.11/site-packages/otel/wrap.py", line 3, in wrapped\n'
            "    return call()\n"
            '  File "/srv/venv/lib/python3.11/site-packages/requests/sessions.py"',
            id="added library frame",
        ),
        pytest.param(
            '  File "/srv/app/main.py"',
            '  File "/srv/venv/bin/worker", line 8, in <module>\n  File "/srv/app/main.py"',
            id="added launcher script",
        ),
        pytest.param("host='weather', port=80.: no", "host='other', port=1): no", id="message"),
    ],
)
def test_what_is_incidental_in_a_trace_keeps_the_group(old, new):
    changed = re.sub(old, new, TRACE)
    assert changed != TRACE
    assert group() == group(trace=changed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (REFUSED, REFUSED.replace("0x7f5a", "0xdeadbeef").replace("/v1/7", "/")),
        (REFUSED, REFUSED.replace("'weather', port=80", "'10.0.0.1', port=8080")),
        (REFUSED, REFUSED.replace("'))", "',))")),
        ("order 17 not found", "order 18000 not found"),
        ("user 4b0a7c1e-58f7-4b43-9f0c-0d5f6f0d9f11", "user 11111111-2222-3333-4444-555555555555"),
        ("no reply from ali@example.com", "no reply from sara.k@farm.example.org"),
        ("late since 2024-05-01T10:00:00Z", "late since 2025-12-31 23:59:59.123+03:00"),
        ("late since Wed, 01 May 2024 10:00:00 GMT", "late since Thu, 02 Jan 2025 01:02:03 GMT"),
        ("connect to 10.0.0.1:5432 failed", "connect to db.prod.internal:6432 failed"),
        ("connect to fe80::1 failed", "connect to 2001:db8::8a2e:370:7334 failed"),
        ("cannot read /data/a.csv", "cannot read /mnt/b/c.parquet"),
        ("timed out after 30 seconds", "timed out after 1.5s"),
        ("bad value in ids: 1, 2, 3", "bad value in ids: 7"),
        ("device X7f3a9 offline", "device b81Q2 offline"),
        ("tile 9f86d081884c7d65 is gone", "tile 62805496260343bf is gone"),
        ("tile 9f86d081884c7d65 is gone", "tile 6280549626034312 is gone"),
        ("no access: arn:aws:s3:::farm", "no access: arn:aws:iam::123456789012:role/x"),
        ("reset by ['a', 'b']", "reset by ['c']"),
        (
            'duplicate key value violates unique constraint "k"\nDETAIL:  Key (id)=(1) exists.',
            'duplicate key value violates unique constraint "k"\nDETAIL:  Key (id)=(2) exists.',
        ),
        (
            'connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  too many clients',
            "FATAL:  too many clients",
        ),
        ("Object of type date is not JSON", "Object of type 'date' is not JSON"),
        ("write to [redacted:email:0123456789ab]", "write to [redacted:email:ffff56789ab0]"),
    ],
)
def test_variables_of_a_message_keep_the_group(one, other):
    assert template(one) == template(other)


# What splits it


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("in fetch", "in fetch_all", id="function of the top frame"),
        pytest.param("weather.py", "climate.py", id="module of the top frame"),
        pytest.param("^ConnectionRefusedError", "TimeoutError", id="root cause"),
    ],
)
def test_another_origin_splits_the_group(old, new):
    changed = re.sub(old, new, TRACE, flags=re.MULTILINE)
    assert changed != TRACE
    assert group() != group(trace=changed)


def test_another_type_splits_the_group():
    assert group() != group(kind="TimeoutError")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (REFUSED, REFUSED.replace("[Errno 111]", "[Errno 113]")),
        ("Error -2 connecting to a:1.", "Error -3 connecting to a:1."),
        ("404 Client Error: x for url: http://a", "403 Client Error: x for url: http://a"),
        ("503 Service Unavailable", "502 Service Unavailable"),
        ("rejected with status code 401", "rejected with status code 403"),
        ('(1062, "no")', '(1213, "no")'),
        ("died with exit status 1", "died with exit status 137"),
        ("nats: err_code=10059", "nats: err_code=10148"),
        ("'NoneType' object has no attribute 'get'", "'NoneType' object has no attribute 'set'"),
        ("'NoneType' object is not iterable", "'int' object is not iterable"),
        ('violates unique constraint "a"', 'violates unique constraint "b"'),
        ('relation "fields" does not exist', 'relation "farms" does not exist'),
        ("when calling the PutObject operation", "when calling the GetObject operation"),
        (
            "unsupported operand for +: 'int' and 'str'",
            "unsupported operand for +: 'int' and 'list'",
        ),
        ("'user_id'", "'email'"),
        ("Expecting ',' delimiter: line 1", "Expecting ':' delimiter: line 1"),
    ],
)
def test_codes_and_names_of_code_split_the_group(one, other):
    assert template(one) != template(other)


# Traces


def test_python_chain_runs_from_root_cause_to_raised_and_frames_from_the_raise_outwards():
    trace = read_trace(TRACE)
    assert trace.chain == ("ConnectionRefusedError", "ConnectionError")
    assert trace.frames == ("fields.weather:fetch", "fields.handler:handle", "main:run")


def test_java_chain_frames_and_lambdas_are_read():
    trace = read_trace(JAVA)
    assert trace.chain == ("SQLException", "IllegalStateException")
    assert trace.frames == (
        "org.sahool.db.Pool:execute",
        "org.sahool.fields.Store:save",
        "org.sahool.fields.Handler:lambda$handle",
        "org.sahool.Worker:run",
    )


def test_what_java_suppressed_is_no_cause():
    trace = read_trace("""org.acme.OuterException: x
\tat org.acme.A.a(A.java:1)
\tSuppressed: java.io.IOException: close
\t\tat org.acme.R.close(R.java:3)
\tCaused by: java.lang.IllegalStateException: y
\t\tat org.acme.B.b(B.java:2)
Caused by: java.sql.SQLException: z
\tat org.acme.C.c(C.java:3)
\t... 12 common frames omitted
""")
    assert trace.chain == ("SQLException", "OuterException")
    assert trace.frames == ("org.acme.C:c", "org.acme.A:a")


def test_node_causes_run_from_root_cause_to_raised():
    trace = read_trace("""Error: cannot save
    at Promise.all (index 0)
    at save (/srv/app/src/store.js:10:15) {
  [cause]: TypeError: fetch failed
      at async load (/srv/app/src/load.js:3:1) {
    [cause]: RangeError: connect ECONNREFUSED 127.0.0.1:80
        at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1595:16) {
      errno: -111
    }
  }
}""")
    assert trace.chain == ("RangeError", "TypeError", "Error")
    assert trace.frames == ("load:load", "store:save")


def test_node_frames_are_read_without_packages_and_internals():
    trace = read_trace(NODE)
    assert trace.chain == ("TypeError",)
    assert trace.frames == ("fields:area", "handler:Object.handle", "worker:<anonymous>")


def test_members_of_an_exception_group_are_its_causes():
    trace = read_trace("""  + Exception Group Traceback (most recent call last):
  |   File "/srv/app/main.py", line 3, in main
  |     async with asyncio.TaskGroup() as tg:
  | ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/app/jobs.py", line 9, in load
    |     raise ValueError(1)
    | ValueError: 1
    +---------------- 2 ----------------
    | Traceback (most recent call last):
    |   File "/srv/app/jobs.py", line 9, in load
    |     raise ValueError(2)
    | ValueError: 2
    +------------------------------------
""")
    assert trace.chain == ("ValueError", "ExceptionGroup")
    assert trace.frames == ("jobs:load", "main:main")


def test_recursion_counts_once():
    frame = '  File "/srv/app/tree.py", line 5, in walk\n    walk(child)\n'
    head = 'Traceback (most recent call last):\n  File "/srv/app/main.py", line 1, in run\n    x\n'
    end = "RecursionError: maximum recursion depth exceeded\n"
    deep = read_trace(head + frame * 900 + "  [Previous line repeated 77 more times]\n" + end)
    assert deep == read_trace(head + frame + end)


def test_five_frames_nearest_the_raise_count_and_where_it_was_wrapped_has_a_seat():
    def block(names, error):
        frames = "".join(f'  File "/srv/app/a.py", line 1, in {n}\n    x\n' for n in names)
        return f"Traceback (most recent call last):\n{frames}{error}: no\n"

    plain = read_trace(block("gfedcba", "KeyError"))
    assert plain.frames == ("a:a", "a:b", "a:c", "a:d", "a:e")
    cause = "\nThe above exception was the direct cause of the following exception:\n\n"
    wrapped = read_trace(block("gfedcba", "KeyError") + cause + block("zy", "ValueError"))
    assert wrapped.frames == ("a:a", "a:b", "a:c", "a:d", "a:y")


def test_library_frames_stand_in_where_no_code_is_ours():
    trace = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.11/site-packages/nats/aio/client.py", line 9, in request
    raise TimeoutError
nats.errors.TimeoutError: nats: timeout
"""
    assert read_trace(trace).frames == ("nats.aio.client:request",)
    assert read_trace(trace) == read_trace(trace.replace("/srv/venv", "/x"))


def test_parent_is_the_place_with_a_trace_and_the_type_without():
    assert fingerprint("a.B", "x 1", TRACE).parent_id == fingerprint("a.C", "y", TRACE).parent_id
    bare, other = fingerprint("a.B", "x", None), fingerprint("c.B", "y", "")
    assert bare.parent_id == other.parent_id
    assert bare.group_id != other.group_id
    assert re.fullmatch("[0-9a-f]{16}", bare.group_id)
    assert (bare.error_class, bare.frames) == ("B", ())


def of(row):
    return fingerprint(row["error_type"], row["error_message"], row["stack_trace"])


@pytest.mark.parametrize("row", FRESH, ids=[row["label"] for row in FRESH])
def test_a_trace_keeps_its_group_in_other_runs_releases_and_places(row):
    expected = of(row).group_id
    assert {of(other).group_id for other in variations.kept(row).values()} == {expected}


@pytest.mark.parametrize("row", FRESH, ids=[row["label"] for row in FRESH])
def test_another_type_or_top_frame_splits_the_group_of_a_trace(row):
    others = variations.split(row)
    assert len(others) == (2 if row["top"] else 1)
    groups = {of(row).group_id, *(of(other).group_id for other in others.values())}
    assert len(groups) == 1 + len(others)


# Columns

_fragments = st.sampled_from(
    [
        *REFUSED.split(" "),
        *["[Errno 2]", "'a'", '"b c"', "0x1f", "10.0.0.1:80", "::1", "a@b.co", "https://x/y?z=1"],
        *["/a/b", "k=v,", "k={'a': 1}", "2024-05-01T10:00:00Z", "10:11:12", "id: order", "17"],
        *["5MB", "30 seconds", "constraint", "column", "Error -2", "status code 503"],
        *["\n", "\t", "\nDETAIL: x", "\x01", "\x85", "ſ", "K", "é", "٣", "حقل", "<n>", "(1, 'x')"],
        "Traceback (most recent call last):\n",
        '\n  File "/a/b.py", line 3, in c\n    pass\n',
        "\nValueError: x\n",
        "\tat a.b.C.d(C.java:1)\n",
        "    at f (/a/b.js:1:2)\n",
        "\nCaused by: java.lang.X: y\n",
    ]
)
texts = st.lists(_fragments | st.text(max_size=4), max_size=12).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts, st.none() | texts), min_size=1, max_size=12))
def test_columns_and_scalars_agree(rows):
    frame = pl.DataFrame(
        [(*row, i) for i, row in enumerate(rows * 2)],
        schema={
            "error_type": pl.String,
            "error_message": pl.String,
            "stack_trace": pl.String,
            "row": pl.Int64,
        },
        orient="row",
    )
    added = add_fingerprint(frame)
    assert added.select(frame.columns).equals(frame)
    assert list(FINGERPRINT_COLUMNS) == added.columns[4:]
    for row in added.iter_rows(named=True):
        f = fingerprint(row["error_type"], row["error_message"], row["stack_trace"])
        assert f.group_id == row["group_id"]
        assert f.parent_id == row["parent_id"]
        assert f.error_class == row["error_class"]
        assert f.template == row["template"]
        assert " < ".join(f.frames) == row["frames"]
        assert row["fingerprint_version"] == FINGERPRINT_VERSION
        assert row["fingerprint_rules"] is None


# What a message must hold to be taken for lines of a trace, or to hide some.
_PIECES = st.sampled_from(
    [
        *(
            "boom",
            "E",
            "E: ",
            ": ",
            "\n",
            "\r\n",
            "\t",
            " ",
            "Caused by: X",
            "at a.b.C.m(C.java:1)",
        ),
        *(
            "at fn (/a/b.js:1:2)",
            " at f (x)",
            'File "/app/a.py", line 3, in f',
            "    | ",
            "Traceback",
        ),
        *(
            "Traceback (most recent call last)",
            "During handling",
            "Exception in thread",
            "ValueError",
        ),
    ]
)


_TEXTS = st.lists(_PIECES, max_size=5).map("".join)


@settings(max_examples=120, deadline=None)
@example("at a.b.C.m(C.java:1)", "", "", "E: ")
@example('x\n  File "/app/a.py", line 3, in f', "Traceback (most recent call last):\n", "", "E: ")
@example("f", "Traceback (most recent call last):\n", "", '  File "/app/a.py", line 3, in ')
@given(
    _TEXTS,
    st.sampled_from(["", "Traceback (most recent call last):\n"]),
    _TEXTS,
    st.sampled_from(["E: ", "E", "", '  File "/app/a.py", line 3, in ']),
)
def test_a_message_that_ends_its_trace_is_read_like_any_other(message, header, before, last):
    trace = f"{header}{before}\n{last}{message}\n"
    frame = pl.DataFrame({"error_type": "E", "error_message": message, "stack_trace": trace})
    found, expected = add_fingerprint(frame).row(0, named=True), fingerprint("E", message, trace)
    assert found["group_id"] == expected.group_id
    assert found["frames"] == " < ".join(expected.frames)


def test_an_empty_batch_gets_the_columns():
    frame = pl.DataFrame(
        schema={"error_type": pl.String, "error_message": pl.String, "stack_trace": pl.String}
    )
    assert add_fingerprint(frame).columns[3:] == list(FINGERPRINT_COLUMNS)


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, min_size=1, max_size=12))
def test_python_polars_and_duckdb_make_the_same_templates(messages):
    assert_engines_agree(messages)


def test_every_engine_makes_the_same_templates_of_fresh_messages():
    assert_engines_agree([row["error_message"] for row in quality.rows_of(quality.FRESH_MESSAGES)])


def assert_engines_agree(messages):
    expected = [template(message) for message in messages]
    assert templates(pl.Series(messages, dtype=pl.String)).to_list() == expected
    expression, patterns = "text", {}
    for stage in STAGES:
        before = expression
        for step in stage:
            i = len(patterns)
            patterns |= {f"p{i}": step.pattern, f"p{i + 1}": step.replacement}
            expression = f"regexp_replace({expression}, $p{i}, $p{i + 1}, 'g')"
        if stage is SIGNS:
            expression = f"if(is_ascii, {before}, {expression})"
    texts = [message[:MESSAGE_LIMIT] for message in messages]
    given = {"texts": texts, "ascii": [text.isascii() for text in texts]}
    rows_of = "SELECT unnest($texts) AS text, unnest($ascii) AS is_ascii"
    query = f"SELECT trim({expression}, ' ') FROM ({rows_of})"
    with duckdb.connect() as connection:
        rows = connection.execute(query, patterns | given).fetchall()
    assert [text for (text,) in rows] == expected


# Real failures


def test_messages_of_libraries_are_grouped_as_a_person_would():
    measured = quality.library_messages()
    assert measured.precision >= 0.98
    assert measured.f1 >= 0.97


def test_fresh_messages_are_grouped_as_a_person_would():
    measured = quality.fresh_messages("seen")
    assert measured.precision >= 0.98
    assert measured.f1 >= 0.95


@corpus
def test_real_messages_are_grouped_like_people_would():
    measured = quality.github_errors(quality.corpus_folder())
    assert measured.precision >= 0.98
    assert measured.f1 >= 0.95


@corpus
def test_distinct_real_crashes_stay_distinct():
    measured = quality.jvm_crashes(quality.corpus_folder())
    assert measured.precision >= 0.98
    assert measured.groups >= 0.97 * measured.labels
