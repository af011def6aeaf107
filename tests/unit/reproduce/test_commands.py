"""An event as a command line and as a program, checked with a shell and Python."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import QueryError
from sahool_dlq.reproduce.commands import check_subject, nats_line, python_program
from sahool_dlq.reproduce.raw import RawEvent, Source

ID = "0190c7a2-0000-5000-8000-000000000001"
STUB = """#!/bin/sh
# What a program named nats is given: its arguments, each ended by NUL, and its input.
printf '%s\\0' "$@" > arguments
case "$1" in *) if [ ! -t 0 ]; then cat > input; fi ;; esac
"""


def event(
    body: bytes, subject: str = "sahool.analysis.ndvi", **headers: str | list[str]
) -> RawEvent:
    return RawEvent(ID, subject, body, headers, "stream", stream="SAHOOL_EVENTS", sequence=7)


def in_shell(line: str, folder: Path, raw: bytes = b"") -> tuple[list[str], bytes]:
    """Run a line with recording stand-ins for `nats` and `dlq`; the arguments of `nats`."""
    for name, text in (("nats", STUB), ("dlq", "#!/bin/sh\ncat raw\n")):
        file = folder / name
        file.write_text(text)
        file.chmod(0o755)
    (folder / "raw").write_bytes(raw)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=True,
        stdin=subprocess.DEVNULL,
    )
    arguments = (folder / "arguments").read_bytes().decode().split("\0")[:-1]
    return arguments, (folder / "input").read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        b'{"field": "a b", "note": "it\'s $HOME `x` \\"y\\" \\\\ !"}',
        b"",
        "Gänse".encode(),
        b"-1",
        b"@/etc/passwd",
        b'{"template": "{{ Count }}"}',
    ],
)
def test_a_shell_gives_nats_the_body_as_it_was(body: bytes, tmp_path: Path) -> None:
    line = nats_line(event(body, trace="a'b; rm -rf /", tag=["x", "y"]))
    arguments, piped = in_shell(line, tmp_path)
    assert piped == b""
    assert arguments[0] == "pub"
    assert arguments[-2:] == ["sahool.analysis.ndvi", body.decode()]
    flags = arguments[1:-2]
    assert [each for each in flags if each.startswith("--header")] == [
        "--header=trace:a'b; rm -rf /",
        "--header=tag:x",
        "--header=tag:y",
    ]
    assert (flags[-1] == "--") == body.startswith((b"-", b"@"))
    assert ("--no-templates" in flags) == (b"{{" in body)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\x00\x01",
        b"a\0b",
        b"x" * 200_000,
        "Gänse\nzwei\tZeilen\n".encode(),
        b"\x1b[201~\rprint 1\r",
        "\u202e".encode(),
    ],
    ids=["binary", "NUL", "long", "lines", "end of a paste", "reversed"],
)
def test_what_is_no_argument_is_piped(body: bytes, tmp_path: Path) -> None:
    line = nats_line(event(body))
    assert line.startswith(f"dlq get {ID} --raw | nats pub ")
    arguments, piped = in_shell(line, tmp_path, body)
    assert arguments == ["pub", "sahool.analysis.ndvi"]
    assert piped == body


def test_headers_of_the_server_and_of_a_redrive_are_not_published_again() -> None:
    held = {"Nats-Msg-Id": "e1", "Dlq-Redrive-Of": ID, "trace": "t"}
    for text in (nats_line(event(b"{}", **held)), python_program(event(b"{}", **held))):
        assert "trace" in text
        assert "Nats-Msg-Id" not in text
        assert "Dlq-Redrive-Of" not in text


def test_braces_in_a_header_stay_braces_for_the_templates_of_the_nats_command() -> None:
    assert '--header=a:{{"{{"}}x}}' in nats_line(event(b"{}", a="{{x}}"))


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\xff'\"\\\n" * 90, '{"a": "ä"}'.encode()],
    ids=["empty", "binary", "text"],
)
def test_the_program_has_the_event_as_a_handler_is_given_it(body: bytes, tmp_path: Path) -> None:
    program = python_program(event(body, "a.b'c", trace="t1", tag=["x", "y"]))
    (tmp_path / "again.py").write_text(program)
    said = "from again import event; print([event.subject, event.data, event.headers,"
    said += " event.header_values('tag')])"
    done = subprocess.run(
        [sys.executable, "-c", said], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == repr(["a.b'c", body, {"trace": "t1", "tag": "y"}, ["x", "y"]])


EVIL = [
    '"""\nprint(1)\n"""',
    "x\nprint(1)",
    "x\rprint(1)",
    "\\",
    '\\"""\nprint(1)\n#',
    "\u2028print(1)\x0cprint(1)",
    "{print(1)}",
]


@pytest.mark.parametrize("source", ["stream", "dead_letter"])
@pytest.mark.parametrize("evil", EVIL)
def test_no_text_of_an_event_becomes_code(evil: str, source: Source) -> None:
    headers = {evil: evil, "a": [evil, evil]}
    held = RawEvent(ID, evil, evil.encode(), headers, source, stream=evil, sequence=7)
    module = ast.parse(python_program(held))
    names = [type(node).__name__ for node in module.body]
    assert names == [
        *("Expr", "Import", "Import", "ImportFrom", "ImportFrom"),
        *("Assign", "Assign", "AsyncFunctionDef", "If"),
    ]
    called = [ast.unparse(node.func) for node in ast.walk(module) if isinstance(node, ast.Call)]
    assert "print" not in called
    assert "print" not in (ast.get_docstring(module) or "")


def test_the_program_says_where_the_event_is_from() -> None:
    assert "# From 'SAHOOL_EVENTS', message 7.\n" in python_program(event(b"{}"))
    copied = RawEvent(ID, "a.b", b"{}", {}, "dead_letter", stream="SAHOOL_EVENTS", sequence=7)
    assert "# From its dead letter.\n" in python_program(copied)


@pytest.mark.parametrize(
    "subject",
    ["$JS.API.STREAM.DELETE.SAHOOL_DLQ", "_INBOX.a.b", "sahool.dlq.ndvi", "a\nb", "a.*", ""],
)
def test_no_line_publishes_to_the_server_or_to_the_platform(subject: str) -> None:
    with pytest.raises(QueryError, match="nothing to publish again"):
        check_subject(event(b"{}", subject), Subjects())
    check_subject(event(b"{}"), Subjects())


@pytest.mark.parametrize("text", ["\x1b[201~\rprint 1\r", "a\nb", "\t", "\x03", "\x9b2J", "\u202e"])
def test_no_line_holds_what_steers_a_terminal(text: str) -> None:
    for held in (event(b"", a=text), event(b"", **{text: "a"}), event(b"", a=["x", text])):
        with pytest.raises(QueryError, match="contains control characters"):
            nats_line(held)
    with pytest.raises(QueryError, match="subject contains control characters"):
        nats_line(event(b"", f"a.{text}"))
