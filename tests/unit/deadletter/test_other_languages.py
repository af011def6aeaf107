"""Failures of other languages and runtimes: what keeps a group, what splits it, and its cost."""

import importlib
import json
import sys
import time

import polars as pl
import pytest

from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint, fingerprint
from sahool_dlq.deadletter.fingerprint.stack_trace import FrameRules, marked, read_trace
from sahool_dlq.deadletter.fingerprint.template import template, templates
from sahool_dlq.deadletter.fingerprint.template_steps import STAGES
from sahool_dlq.deadletter.fingerprint.traces.bundles import is_bundle, without_hash
from support import ROOT

sys.path.append(str(ROOT / "benchmarks"))
quality = importlib.import_module("quality")
languages = importlib.import_module("other_languages")
ROWS = quality.rows_of(ROOT / "benchmarks" / "runtime_traces.jsonl")
PARTS = quality.PARTS


# Traces


@pytest.mark.parametrize("row", ROWS, ids=[row["label"] for row in ROWS])
def test_a_trace_keeps_its_group_in_other_deploys_and_logs_and_loses_it_elsewhere(row):
    def of(trace):
        return fingerprint(row["error_type"], row["error_message"], trace)

    expected = of(row["stack_trace"])
    assert expected.frames
    assert read_trace(row["stack_trace"]).language == row["runtime"]
    for name, trace in languages.kept(row).items():
        assert of(trace).group_id == expected.group_id, name
    for name, trace in languages.split(row).items():
        assert of(trace).group_id != expected.group_id, name


@pytest.mark.parametrize("part", PARTS)
def test_traces_and_messages_by_column_are_as_one_by_one(part):
    traces = list(languages.runtime_traces(part))[::3]
    failures = traces + list(languages.foreign_messages(part))[::3]
    frame = pl.DataFrame(
        [failure[1:] for failure in failures],
        schema=dict.fromkeys(("error_type", "error_message", "stack_trace"), pl.String),
        orient="row",
    )
    expected = [fingerprint(*failure[1:]).group_id for failure in failures]
    assert add_fingerprint(frame)["group_id"].to_list() == expected


@pytest.mark.parametrize("part", PARTS)
def test_other_languages_are_grouped_as_a_person_would(part):
    for measured in (quality.other_messages(part), quality.other_traces(part)):
        assert measured.precision >= 0.97
        assert measured.recall >= 0.95


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/dist/main.8f3c2d1a.js", "/srv/dist/main.js"),
        ("/srv/dist/chunk-ABCD1234.js", "/srv/dist/chunk.js"),
        ("/srv/dist/chunk-WXYZABCD.mjs", "/srv/dist/chunk.mjs"),
        ("/srv/assets/index-DiwrgTda.js", "/srv/assets/index.js"),
        ("/srv/dist/vendors~main.20260301.chunk.js", "/srv/dist/vendors~main.chunk.js"),
        ("https://cdn.example.com/app.9c41e07bd2f0.min.js?v=3", None),
        ("/_next/static/chunks/4521.js", "/_next/static/chunks/<hash>.js"),
        ("/srv/dist/17.chunk.js", "/srv/dist/<hash>.chunk.js"),
    ],
)
def test_the_name_of_a_bundle_loses_its_hash(path, expected):
    assert is_bundle(path)
    assert without_hash(path) == (expected or "https://cdn.example.com/app.min.js")


@pytest.mark.parametrize(
    "name", ["main", "price-book", "oauth2client", "worker10", "base64", "user_service", "order.v2"]
)
def test_a_name_without_a_hash_stays(name):
    assert not is_bundle(f"/srv/app/src/{name}.js")


def test_what_was_asked_for_with_a_file_is_no_part_of_its_name():
    at = "TypeError: x\n    at load (https://farm.example/src/app.js{}:1:22)\n"
    assert (
        read_trace(at.format("?dpl=1a2b"))
        == read_trace(at.format("?v=3"))
        == read_trace(at.format(""))
    )


def java(*frames):
    calls = "".join(f"\tat {frame}(A.java:1)\n" for frame in frames)
    return f"java.lang.IllegalStateException: x\n{calls}"


def test_who_called_a_library_that_no_list_knows_has_a_seat():
    deep = [f"net.unknown.lib.C{number}.run" for number in range(7)]
    prices, stocks = (
        read_trace(java(*deep, f"com.acme.shop.{name}.find", "com.acme.shop.Main.main"))
        for name in ("Prices", "Stocks")
    )
    assert prices.frames == (
        *("net.unknown.lib.C0:run", "net.unknown.lib.C1:run"),
        *("net.unknown.lib.C2:run", "net.unknown.lib.C3:run", "com.acme.shop.Prices:find"),
    )
    assert prices != stocks
    # Of one package the nearest count, and of two there is one of each.
    assert read_trace(java(*deep)).frames[-1] == "net.unknown.lib.C4:run"
    assert read_trace(java("org.a.A.x", *deep)).frames[-1] == "net.unknown.lib.C3:run"


COLOR_EYRE = """Error:
   0: failed to load config
   1: No such file or directory (os error 2)

Location:
   src/config.rs:42

  ━━━━━━━━━━━━━━━━━━━ BACKTRACE ━━━━━━━━━━━━━━━━━━━
                ⋮ 7 frames hidden ⋮
   8: shop::config::load::h0123456789abcdef
      at /srv/shop/src/config.rs:42
   9: shop::main::hfedcba9876543210
      at /srv/shop/src/main.rs:12
"""


def test_a_report_of_color_eyre_is_read_with_and_without_its_frames():
    trace = read_trace(COLOR_EYRE)
    assert (trace.language, trace.frames) == ("rust", ("shop::config:load", "shop:main"))
    short = COLOR_EYRE.partition("  ━")[0]
    assert read_trace(short).frames == ("config:panic",)
    other = short.replace("src/config.rs:42", "src/prices.rs:7")
    assert fingerprint("Error", "x", short).group_id != fingerprint("Error", "x", other).group_id
    crashed = "The application panicked (crashed).\nMessage:  bad\nLocation: src/main.rs:5\n"
    assert read_trace(crashed).frames == ("main:panic",)


@pytest.mark.parametrize("row", ROWS, ids=[row["label"] for row in ROWS])
def test_lines_that_are_frames_are_told_ours_or_not(row):
    told = list(marked(row["stack_trace"], FrameRules()))
    assert "".join(f"{line}\n" for line, _ in told).strip() == row["stack_trace"].strip()
    assert not {True, False}.isdisjoint(is_ours for _, is_ours in told)


@pytest.mark.parametrize(
    ("compiled", "written"),
    [
        ("Shop.Price.<LookupAsync>d__7.MoveNext()", "Shop.Price.LookupAsync(String id)"),
        ("Shop.Price+<Lookup>d__7`1[T].MoveNext ()", "Shop.Price.Lookup(String id)"),
        ("Shop.Price.<Lookup>c__Iterator0.MoveNext()", "Shop.Price.Lookup()"),
        ("Shop.Price.<>c.<.ctor>b__3_0(String x)", "Shop.Price.<>c.<.ctor>b__9_2(String x)"),
        ("A.<>c__DisplayClass3_0.<<Run>b__1>d.MoveNext()", "A.<>c.<<Run>b__4_0>d__2.MoveNext()"),
        ("Program.<<Main>$>g__Local|0_1(String x)", "Program.<<Main>$>g__Local|0_4(String x)"),
        ("Program.<<Main>$>d__0.MoveNext()", "Program.<Main>$(String[] args)"),
        (
            "Shop.Price.VB$StateMachine_3_LookupAsync.MoveNext()",
            "Shop.Price.LookupAsync(String id)",
        ),
        ("A._Closure$__3-0._Lambda$__0(String x)", "A._Closure$__._Lambda$__R2-1(String x)"),
        ("A._Closure$__3-0.VB$StateMachine___Lambda$__0.MoveNext()", "A._Lambda$__4()"),
    ],
)
def test_a_method_of_dotnet_is_the_same_compiled_and_written(compiled, written):
    def of(call):
        return read_trace(f"System.Exception: x\n   at {call}\n   at Shop.Worker.Run()\n").frames

    assert of(compiled) == of(written)
    assert "$" not in "".join(of(compiled))


def test_type_parameters_in_those_of_another_are_left_out_of_a_go_function():
    trace = "goroutine 1 [running]:\nmain.{}(0x1)\n\t/app/m.go:1 +0x1\n"
    one, other = (trace.format(f"Map[go.shape.struct {{ A []{t}; B [4]int }}]") for t in ("a", "b"))
    assert read_trace(one).frames == read_trace(other).frames == ("main:Map",)


def test_a_trace_in_the_message_of_python_is_not_taken_for_the_trace():
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/app/a.py", line 3, in call\n    x\n'
        "RemoteError: java.lang.X: no\n\tat org.acme.B.b(B.java:1)\n"
    )
    assert read_trace(trace)[:3] == (("RemoteError",), ("a:call",), "python")


# Messages


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_step_says_to_look_for_stands_in_all_that_it_matches(stage):
    rows = [r["error_message"] for r in quality.rows_of(quality.FRESH_MESSAGES)]
    messages = [template(row) for row in rows] + rows
    for step in stage:
        found = pl.Series(messages).filter(pl.Series(messages).str.contains(step.pattern))
        assert all(step.sign in message for message in found), step


def test_one_message_may_hold_several_scripts():
    one = "Ошибка 订单１２３: «alpha» / 'ali@example.com' 3 марта 2026 г."
    other = "Ошибка 订单٩٩: „beta“ / 'анна@пример.рф' 1 мая 2025 г."
    assert template(one) == template(other)
    assert templates(pl.Series([one, other])).n_unique() == 1


# Cost

PIECES = """
a at~ at~a. at~a.b( at~a~( ~~~at~A.B( ~~~bei~A.b(C~d)~in~ ^at~a.b.C(D.java:1) ~~File~" Traceback
#0~ #0~a(1):~ #0~a(1):~b->c( a~in~b:1~ ~in~ ~in~a: in~:1 goroutine~1~[ a.go: a.go:1~ ^a.go:1~+0x1
|~ ||||^ ~ ^ thread~'main'~panicked~at~ 0:~a::b~ stack~backtrace: < a:1:in~` a:1:in~`b':~ from~
**~( **~(A) (a~1)~b.ex:1:~ a.ex:1:~ {a,b,1,[{file," {a,b,[ {a,b,[x], ,[{file, in~function~ --->
--->~A ---~a~--- Caused~by:~ A:~ A. \\n \\\\ \\n\\t #012 {" {"a": [[ [" 1 1: 12:00:00~at~
Uncaught~ [object]~( ( ) $$Lambda $1 <>c `1 [[] at~a[b]`1. :: a:: a# / a/ /gems/ あ
""".split()  # noqa: SIM905  (a list is longer to read)
HEADS = {
    "": "",
    "python": '  File "a.py", line 1, in f\n',
    "go": "goroutine 1 [running]:\n",
    "php": "#0 {main}\n",
    "rust": "thread 'a' panicked at x\n",
    "ruby": "a.rb:1:in `b'\n",
    "elixir": " a.ex:1: x\n",
    "java": "\tat a.B.c(D.java:1)\n",
    "dotnet": "   at A.B()\n",
    "javascript": "    at f (/a.js:1:2)\n",
}


@pytest.mark.parametrize("language", HEADS)
def test_repeats_of_how_frames_begin_take_linear_time(language):
    """A quadratic pattern would take minutes for twenty times the text."""
    started = time.process_time()
    for end in ("", "\n"):
        for piece in PIECES:
            text = piece.replace("~", " ").replace("^", "\t") + end
            read_trace(HEADS[language] + text * (20_000 // len(text)))
    assert time.process_time() - started < 15


NAMED_FRAMES = [
    "   at A.{}b(String a)",
    "  at A.{}b () [0x0] in <a>:0",
    "goroutine 1 [running]:\na.{}b(0)\n\t/a/b.go:1",
    "\tat a.{}b(A.java:1)",
    "    at {} (/a.js:1:2)",
    "    at f (/a/{}.js:1:2)",
    "** (E) x\n    a.ex:1: A.{}b/1",
    "thread 'a' panicked at a\n   0: a::{}b",
    "a.rb:1:in `{}b'",
    "#0 /a.php(1): {}b()\n#1 {{main}}",
    '  File "/a.py", line 1, in {}',
]
IN_NAMES = "< << <a> <a>b__1 > [ [[] ] ( () @1 @1-1 $ $$Lambda $1 ` `1[ + - -1 / :: { # |".split()  # noqa: SIM905  (a list is longer to read)


@pytest.mark.parametrize("frame", NAMED_FRAMES)
def test_a_hostile_name_of_a_frame_takes_linear_time(frame):
    """Each takes a fraction of a second; a quadratic pattern would take nine seconds or more."""
    for piece in IN_NAMES:
        started = time.process_time()
        read_trace(frame.format(piece * (100_000 // len(piece))))
        assert time.process_time() - started < 3, piece


def test_deeply_nested_and_broken_json_is_read_as_text():
    deep = '{"a": ' * 50_000 + "1" + "}" * 50_000
    for text in (deep, "[" * 100_000, '{"a": "  at ', json.dumps({"a": ["  at x"] * 9})):
        assert read_trace(text).frames == ()
