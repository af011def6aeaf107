"""The cause of a failure: what a library raised, whoever called it and wherever it is installed."""

import importlib
import sys

import polars as pl
import pytest

from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint, fingerprint
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from support import ROOT

sys.path.append(str(ROOT / "benchmarks"))
quality = importlib.import_module("quality")

HEAD = "Traceback (most recent call last):\n"
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"
SITE = "/usr/lib/python3.12/site-packages/"


def frames(*places: str) -> str:
    """Lines of Python for `path:function`, the nearest to the exception last."""
    lines = (place.rpartition(":") for place in places)
    return "".join(f'  File "{path}", line 7, in {name}\n    x = y()\n' for path, _, name in lines)


def block(error: str, *places: str) -> str:
    return f"{HEAD}{frames(*places)}{error}\n"


def cause(trace: str | None, kind: str = "E", message: str = "") -> str:
    return fingerprint(kind, message, trace).cause_id


def last(trace: str) -> str:
    """The cause of a failure whose type and message are those in the trace's last line."""
    kind, _, message = trace.strip().rpartition("\n")[2].partition(": ")
    return cause(trace, kind, message)


REFUSED = block(
    "ConnectionRefusedError: [Errno 111] Connection refused",
    f"{SITE}redis/connection.py:connect",
    "/usr/lib/python3.12/socket.py:create_connection",
)
REDIS = (
    REFUSED
    + MEANWHILE
    + block(
        "redis.exceptions.ConnectionError: Error 111 connecting to a:6379. Connection refused.",
        "/app/a.py:load",
        f"{SITE}redis/client.py:get",
        f"{SITE}redis/connection.py:connect",
    )
)


def test_callers_wrappers_versions_and_folders_do_not_matter():
    other = REDIS.replace("/app/a.py", "C:\\b\\other.py").replace("in load", "in fetch")
    windows = "C:\\venv\\Lib\\site-packages\\"
    other = other.replace(SITE, windows).replace("line 7", "line 70").replace("a:6379", "b:6380")
    wrapped = REDIS + CAUSED + block("app.Failed: zone 7", "/app/a.py:handle")
    retried = REDIS + CAUSED + block("tenacity.RetryError: <x>", f"{SITE}tenacity/__init__.py:iter")
    assert len({last(trace) for trace in (REDIS, other, wrapped, retried)}) == 1
    assert len({fingerprint("E", "", trace).group_id for trace in (REDIS, other, wrapped)}) == 3


def test_an_operating_system_says_the_same_in_other_words():
    windows = REDIS.replace("[Errno 111] Connection refused", "[WinError 10061] No connection")
    windows = windows.replace("Error 111", "Error 10061").replace("Connection refused.", "No one.")
    cut = REDIS.partition(MEANWHILE)[2]  # only the last exception
    assert last(REDIS) == last(windows) == last(cut)


def test_another_driver_or_answer_is_another_cause():
    traces = (
        REDIS,
        REDIS.replace("redis", "pymongo"),
        REDIS.replace("ConnectionRefusedError: [Errno 111] C", "TimeoutError: c").replace(
            "Error 111 connecting to a:6379. Connection refused.", "Timeout connecting to server"
        ),
    )
    assert len({last(trace) for trace in traces}) == len(traces)


def test_a_client_of_http_is_the_driver_only_where_no_library_used_it():
    mine = block(
        "requests.exceptions.Timeout: too late for it", "/app/a.py:f", f"{SITE}requests/a.py:g"
    )
    used = mine.replace("/app/a.py", f"{SITE}stripe/api.py")
    assert last(mine) == last(mine.replace("requests", "urllib3")) != last(used)


def test_what_failed_while_our_code_handled_a_failure_is_another_cause():
    database = block(
        "psycopg.errors.UndefinedTable: relation plots does not exist",
        "/app/a.py:load",
        f"{SITE}psycopg/cursor.py:execute",
    )
    cached = block("redis.exceptions.TimeoutError: Timeout reading from socket", "/app/a.py:load",
                   f"{SITE}redis/connection.py:read")  # fmt: skip
    assert last(cached + MEANWHILE + database) == last(database)
    ours = block("app.Failed: no", "/app/a.py:handle")
    assert last(cached + MEANWHILE + ours) == last(cached)


def test_what_a_library_looks_up_in_vain_is_no_cause():
    empty = block("_queue.Empty", f"{SITE}sqlalchemy/util/queue.py:get")
    absent = block("KeyError: 'channel'", f"{SITE}kombu/utils/objects.py:__get__")
    for before in (empty, absent):
        assert last(before + MEANWHILE + REDIS) == last(REDIS)


def test_a_driver_in_c_is_known_by_the_module_of_its_type():
    one = block('psycopg2.errors.UndefinedTable: relation "plots" does not exist', "/a/b.py:f")
    other = one.replace("/a/b.py", "/c/d.py").replace("in f", "in g")
    orm = one.replace("/a/b.py", f"{SITE}sqlalchemy/engine/default.py") + CAUSED + block(
        'sqlalchemy.exc.ProgrammingError: (psycopg2.errors.UndefinedTable) relation "plots" does '
        "not exist", "/a/b.py:f", f"{SITE}sqlalchemy/engine/base.py:execute"
    )  # fmt: skip
    assert last(one) == last(other) == last(orm) == last(orm.partition(CAUSED)[2])
    raised = one.replace("    x = y()\n", "    raise UndefinedTable(name)\n")
    assert last(raised) != last(raised.replace("in f", "in g"))
    ours = one.replace("psycopg2.errors", "shop.errors").replace("/a/b.py", "/app/shop/b.py")
    assert last(ours) != last(ours.replace("in f", "in g"))


def test_errors_of_the_interpreter_are_told_by_the_librarys_function_too():
    one = block("TypeError: a bytes-like object is required, not 'str'", f"{SITE}lib/a.py:read")
    assert last(one) == last(one.replace("lib/a.py", "lib/b/c.py"))
    assert last(one) != last(one.replace("in read", "in write"))


def test_a_librarys_own_type_tells_a_short_message():
    one = block("aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected",
                "/app/a.py:f", f"{SITE}aiohttp/streams.py:read")  # fmt: skip
    old = one.replace(": Server disconnected", "").replace("in read", "in _wait")
    assert last(one) == last(old) != last(old.replace("Disconnected", "Shut"))


def test_without_a_library_it_is_our_nearest_function_type_and_template():
    one = block("ValueError: no zone 7", "/app/main.py:run", "/app/zones.py:find")
    same = block("ValueError: no zone 8", "/x/y/other.py:call", "/src/zones.py:find")
    assert last(one) == last(same)
    wrapped = one + CAUSED + block("app.Failed: event 9", "/app/main.py:handle")
    assert last(one) == last(wrapped)
    for old, new in (("in find", "in seek"), ("ValueError", "LookupError"), ("no zone", "a zone")):
        assert last(one) != last(one.replace(old, new))
    late = block("TimeoutError", "/app/a.py:f", "/usr/lib/python3.12/asyncio/tasks.py:wait_for")
    assert last(late) != last(late.replace("in f", "in g"))


def test_without_a_trace_it_is_type_and_template():
    assert cause(None, "a.E", "zone 7 is locked") == cause("", "b.E", "zone 18 is locked")
    assert cause(None, "E", "zone 7 is locked") != cause(None, "F", "zone 7 is locked")
    assert cause("no trace at all", "E", "boom") == cause(None, "E", "boom")


def test_a_member_of_an_exception_group_is_the_cause():
    group = "  + Exception Group " + HEAD + frames("/app/a.py:main").replace("  File", "  |   File")
    group += "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n"
    group += "  +-+---------------- 1 ----------------\n"
    group += "".join(f"    | {line}\n" for line in REDIS.splitlines())
    group += "    +------------------------------------\n"
    assert cause(group, "ExceptionGroup", "unhandled errors in a TaskGroup") == last(REDIS)


JAVA = """org.acme.{} : cannot save
\tat org.acme.{}.save(Store.java:41)
Caused by: redis.clients.jedis.exceptions.JedisConnectionException: Failed to connect to a:6379
\tat redis.clients.jedis.Connection.connect(Connection.java:204)
\tat org.acme.{}.save(Store.java:39)
\t... 3 more
"""
GO = """dial tcp 10.0.0.1:4222: connect: connection refused
github.com/nats-io/nats.go.(*Conn).connect
\t/root/go/pkg/mod/github.com/nats-io/nats.go@v1.31.0/nats.go:2101
{}
\t/src/app/main.go:12
runtime.main
\t/usr/local/go/src/runtime/proc.go:267
"""
DOTNET = """Shop.{} : cannot save
 ---> Npgsql.NpgsqlException (0x80004005): Failed to connect to 10.0.0.1:5432
   at Npgsql.Internal.NpgsqlConnector.Connect(NpgsqlTimeout timeout)
   at Shop.{}.Save()
   --- End of inner exception stack trace ---
   at Shop.{}.Run()
"""


@pytest.mark.parametrize(
    ("trace", "one", "other"),
    [
        pytest.param(JAVA, "StoreException", "LedgerError", id="Java"),
        pytest.param(GO, "main.load", "main.(*Ledger).store", id="Go"),
        pytest.param(DOTNET, "StoreException", "Ledger", id="NET"),
    ],
)
def test_runtimes_with_wrapped_errors_have_the_drivers_as_their_cause(trace, one, other):
    given = [trace.replace("{}", name) for name in (one, other)]
    assert cause(given[0], "E", "cannot save") == cause(given[1], "E", "cannot save")
    assert cause(given[0], "E", "cannot save") != cause(
        given[0].replace("onnect", "lose"), "E", "no"
    )
    groups = {fingerprint("E", "cannot save", text).group_id for text in given}
    assert len(groups) == 2


def test_the_users_rules_say_what_is_a_library():
    trace = block("acme.Busy: no answer at all", "/app/a.py:f", "/app/acme/client.py:call")
    frame = pl.DataFrame(
        {
            "error_type": "Busy",
            "error_message": "no answer at all",
            "stack_trace": [trace, trace.replace("in call", "in ask")],
        }
    )
    assert add_fingerprint(frame)["cause_id"].n_unique() == 2
    rules = GroupingRules(library_code=("/acme/",))
    assert add_fingerprint(frame, rules)["cause_id"].n_unique() == 1


def test_a_column_has_the_causes_of_its_rows():
    failures = quality.raised_causes()
    columns = ("error_type", "error_message", "stack_trace")
    rows = [failure[1:] for failure in failures]
    wrapped = [(kind, text, f'{{"log": {trace!r}}}') for kind, text, trace in rows[:9]]
    frame = pl.DataFrame(rows + wrapped, schema=dict.fromkeys(columns, pl.String), orient="row")
    expected = [fingerprint(*row).cause_id for row in rows + wrapped]
    assert add_fingerprint(frame)["cause_id"].to_list() == expected


def test_what_libraries_raise_has_one_cause_in_all_programs():
    measured = quality.raised("cause_id")
    assert measured.failures >= 300
    assert measured.labels >= 50
    assert measured.precision >= 0.98
    assert measured.recall >= 0.95
    assert quality.raised("group_id").recall < 0.2
