"""The pytest file that `dlq try` writes: masked, valid, and never over another file."""

import ast
import gzip
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.errors import TrialError
from sahool_dlq.events import ConsumerContext
from sahool_dlq.reproduce.pytest_file import masked, text_of_test, write_test
from sahool_dlq.reproduce.raw import RawEvent

GROUP = "1f0c9a3b5d7e2460"
EVENT = RawEvent(
    "0190c7a2-0000-5000-8000-000000000001",
    "sahool.analysis.ndvi",
    b'{"password": "hunter2", "n": 12345678901234567890}',
    {"Authorization": "Bearer abcdef123456", "tag": ["a", "b"]},
    "stream",
    stream="EVENTS",
    sequence=7,
)


@pytest.mark.parametrize("charset", ["utf-8", "utf-16"])
@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_body_is_masked_and_keeps_its_form(charset: str, is_gzip: bool) -> None:
    body = EVENT.body.decode().encode(charset)
    shown = masked(
        replace(EVENT, body=gzip.compress(body) if is_gzip else body), Redactor(), Decoders()
    )
    assert shown is not None
    text = (gzip.decompress(shown.body) if is_gzip else shown.body).decode(charset)
    assert json.loads(text) == {"password": "[redacted:secret]", "n": 12345678901234567890}
    assert "abcdef" not in str(shown.headers)
    assert shown.headers["tag"] == ["a", "b"]


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00\xd8", b"\n\x07hunter2", b"pin is 4711", b"\x1f\x8b\x08"]
)
def test_a_body_that_nobody_can_look_into_is_left_out(body: bytes) -> None:
    assert masked(replace(EVENT, body=body), Redactor(), Decoders()) is None


def test_a_body_in_another_format_is_masked_in_it() -> None:
    body = msgspec.msgpack.encode({"password": "hunter2", "n": 7, "raw": b"\x00"})
    event = replace(EVENT, body=body, headers={"content-type": "application/msgpack"})
    shown = masked(event, Redactor(), Decoders())
    assert shown is not None
    read = msgspec.msgpack.decode(shown.body)
    assert read == {"password": "[redacted:secret]", "n": 7, "raw": b"\x00"}


def test_an_empty_body_stays_one() -> None:
    shown = masked(replace(EVENT, body=b""), Redactor(), Decoders())
    assert shown is not None
    assert shown.body == b""


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", gzip.compress(b"x" * 400, mtime=0), b"'\"\\\n\x00\xff" * 40],
    ids=["empty", "JSON", "gzip", "quotes"],
)
@pytest.mark.parametrize("handler", ["price:handle", "shop.price:service.handle"])
def test_the_file_holds_the_events_as_they_are_given(handler: str, body: bytes) -> None:
    event = replace(EVENT, body=body)
    text = text_of_test(handler, GROUP, "KeyError", [(event, 3, 5)], 30.0)
    module = ast.parse(text)
    [events] = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EVENTS"
    ]
    [given] = eval(ast.unparse(events), {"ConsumerContext": ConsumerContext})
    assert given == ConsumerContext(
        subject=event.subject,
        data=body,
        headers={"Authorization": "Bearer abcdef123456", "tag": "b"},
        repeated_headers={"tag": ["a", "b"]},
        attempt=3,
        max_retries=5,
        stream="EVENTS",
        sequence=7,
    )
    module_name, _, name = handler.partition(":")
    assert f"from {module_name} import {name.partition('.')[0]}\n" in text
    assert f"said = {name}(event)" in text


def test_only_a_file_of_ours_is_written_over(tmp_path: Path) -> None:
    text = text_of_test("price:handle", GROUP, "KeyError", [(EVENT, 3, 5)], 30.0)
    folder = tmp_path / "tests" / "unit"
    file = write_test(folder, GROUP, text)
    assert file.name == f"test_dlq_{GROUP}.py"
    assert write_test(folder, GROUP, text.replace("KeyError", "ValueError")) == file
    assert "ValueError" in file.read_text()
    file.write_text("# mine")
    with pytest.raises(TrialError, match="is another file"):
        write_test(folder, GROUP, text)
    assert file.read_text() == "# mine"
    with pytest.raises(TrialError, match="was not written"):
        write_test(file, GROUP, text)


@pytest.mark.parametrize(
    "evil",
    [
        '"""\nprint(1)\n"""',
        "x\nprint(1)",
        "x\rprint(1)",
        "\\",
        '\\"""\nprint(1)\n#',
        "\u2028print(1)\x0cprint(1)",
    ],
)
def test_no_text_of_a_dead_letter_becomes_code(evil: str) -> None:
    headers = {evil: evil, "a": [evil, evil]}
    held = RawEvent(GROUP, evil, evil.encode(), headers, "dead_letter", stream=evil, sequence=1)
    module = ast.parse(text_of_test("price:handle", GROUP, evil, [(held, 3, 5)], 30.0))
    assert [type(node).__name__ for node in module.body] == [
        *("Expr", "Import", "Import", "Import", "ImportFrom", "ImportFrom"),
        *("Assign", "Assign", "AsyncFunctionDef", "FunctionDef"),
    ]
    called = [ast.unparse(node.func) for node in ast.walk(module) if isinstance(node, ast.Call)]
    assert "print" not in called
