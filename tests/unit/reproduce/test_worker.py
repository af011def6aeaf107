"""A handler in a separate process: whatever it does is the outcome of one event."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.fingerprint.stack_trace import read_trace
from sahool_dlq.errors import TrialError
from sahool_dlq.events.trial import as_message
from sahool_dlq.reproduce.verdict import frame_of
from sahool_dlq.reproduce.worker import Called, Worker

HANDLERS = """
import asyncio, json, os, sys, time
from sahool_dlq.events import ConsumerContext, DeadLetter, ProcessingResult, Retry

def price(event):
    return event["price"]

class Service:
    async def handle(self, context: ConsumerContext) -> ProcessingResult:
        what = context.data.decode()
        print("some output of the handler")
        if what == "raise":
            price({})
        if what == "retry":
            return ProcessingResult.RETRY
        if what == "retry for":
            return Retry("tile is late", ValueError("no tile"))
        if what == "dead":
            return DeadLetter("no such field")
        if what == "nothing":
            return None
        if what == "wait":
            await asyncio.sleep(600)
        if what == "block":
            time.sleep(600)
        if what == "exit":
            sys.exit(3)
        if what == "die":
            os._exit(3)
        if what == "crash":
            os.abort()
        if what == "context":
            said = [context.subject, context.headers, context.header_values("TAG"),
                    context.attempt, context.max_retries, context.stream, context.sequence,
                    str(context.published_at)]
            raise RuntimeError(json.dumps(said))
        return ProcessingResult.SUCCESS

service = Service()

def plain(context):
    return ProcessingResult.SUCCESS if context.data == b"ok" else price({})

decorated = lambda context: service.handle(context)
"""


def message(data: bytes, attempt: int = 2) -> dict[str, object]:
    return as_message(
        subject="sahool.analysis.ndvi",
        data=data,
        headers={"trace": "t", "tag": ["x", "y"]},
        attempt=attempt,
        max_retries=3,
        stream="EVENTS",
        sequence=7,
        published_at=datetime(2026, 3, 1, tzinfo=UTC).isoformat(),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    (folder / "pricing.py").write_text(HANDLERS)
    return folder


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[Worker]:
    with Worker("pricing:service.handle", folder, seconds=1.0) as worker:
        assert worker.name == "Service.handle"
        yield worker


def at(called: Called, folder: Path) -> tuple[str, int] | None:
    return frame_of(called.stack_trace or "", GroupingRules().frames, folder)


@pytest.mark.parametrize(
    ("data", "result", "error_type", "words"),
    [
        (b"ok", "success", "", ""),
        (b"\xff\x00", "raised", "UnicodeDecodeError", "utf-8"),
        (b"raise", "raised", "KeyError", "price"),
        (b"retry", "retry", "HandlerResult", "The handler returned RETRY"),
        (b"retry for", "retry", "ValueError", "no tile"),
        (b"dead", "dead_letter", "HandlerResult", "no such field"),
        (b"nothing", "raised", "TypeError", "The handler returned None"),
        (b"wait", "raised", "TimeoutError", "took longer than 1.0 s."),
        (b"block", "raised", "TimeoutError", "took longer than 1.0 s."),
        (b"exit", "raised", "SystemExit", "3"),
        (b"die", "died", "ProcessDied", "exit status 3"),
        (b"crash", "died", "ProcessDied", "signal 6"),
    ],
)
def test_whatever_a_handler_does_is_the_outcome_of_its_event_and_the_next_one_continues(
    worker: Worker, data: bytes, result: str, error_type: str, words: str
) -> None:
    called = worker.call(message(data))
    assert (called.result, called.error_type) == (result, error_type)
    assert words in called.error_message
    assert called.is_late == (data in (b"wait", b"block"))
    assert worker.call(message(b"ok")).result == "success"


def test_the_trace_begins_in_the_handler_and_tells_where_it_hangs(
    worker: Worker, folder: Path
) -> None:
    lines = HANDLERS.splitlines()
    raised = worker.call(message(b"raise"))
    assert at(raised, folder) == ("pricing.py", lines.index('    return event["price"]') + 1)
    assert read_trace(raised.stack_trace or "").frames == ("pricing:price", "pricing:handle")
    for data, line in ((b"wait", "await asyncio.sleep(600)"), (b"block", "time.sleep(600)")):
        place = at(worker.call(message(data)), folder)
        assert place == ("pricing.py", lines.index(f"            {line}") + 1)


def test_the_handler_is_given_what_its_consumer_gives_it(worker: Worker) -> None:
    said = worker.call(message(b"context")).error_message
    assert said == (
        '["sahool.analysis.ndvi", {"trace": "t", "tag": "y"}, ["x", "y"], 2, 3, "EVENTS", 7,'
        ' "2026-03-01 00:00:00+00:00"]'
    )


@pytest.mark.parametrize(("name", "called"), [("plain", "plain"), ("decorated", "<lambda>")])
def test_handlers_that_are_not_async_or_hide_it_are_called_too(
    folder: Path, name: str, called: str
) -> None:
    with Worker(f"pricing:{name}", folder, seconds=20, python=sys.executable) as worker:
        assert worker.name == called
        assert worker.call(message(b"ok")).result == "success"
        assert worker.call(message(b"raise")).error_type == "KeyError"


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ("nowhere:handle", "No module named 'nowhere'"),
        ("pricing:nothing", "pricing has no nothing"),
        ("pricing:Service", "is not a function that takes an event"),
        ("broken:handle", "ZeroDivisionError: division by zero"),
        ("ending:handle", "SystemExit"),
    ],
)
def test_a_handler_that_cannot_be_loaded_is_one_sentence(
    folder: Path, handler: str, words: str
) -> None:
    (folder / "broken.py").write_text("1 / 0")
    (folder / "ending.py").write_text("raise SystemExit")
    with (
        pytest.raises(TrialError, match="cannot be loaded in") as said,
        Worker(handler, folder, seconds=20),
    ):
        pass
    assert words in str(said.value)


def test_an_interpreter_without_the_library_is_named(folder: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    for named, words in ((str(python), "needs sahool-dlq"), ("/nowhere", "cannot be run")):
        with (
            pytest.raises(TrialError, match=words),
            Worker("pricing:plain", folder, seconds=20, python=named),
        ):
            pass


DEBUGGED = """
from pathlib import Path
from sahool_dlq.events.trial import as_message
from sahool_dlq.reproduce.worker import Worker
with Worker("pricing:plain", Path(), seconds=0.1, is_debugged=True) as worker:
    event = as_message(subject="s", data=b"x", headers={}, attempt=0, max_retries=3)
    print("outcome:", worker.call(event).error_type)
"""


def test_a_debugger_opens_at_the_raise_without_a_time_limit(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEBUGGED],
        cwd=folder,
        input="import time; time.sleep(0.5)\nw\np 'event is', event\nq\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "(Pdb)" in done.stdout
    assert 'return event["price"]' in done.stdout
    assert "('event is', {})" in done.stdout
    assert done.stdout.endswith("outcome: KeyError\n")


def test_a_handler_has_no_login_of_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DLQ_POSTGRES_DSN", "DLQ_NATS_PASSWORD", "NATS_URL", "SHOP_URL"):
        monkeypatch.setenv(name, "known")
    (tmp_path / "known.py").write_text(
        "import os\ndef handle(event):\n"
        "    raise ValueError(sorted(k for k, v in os.environ.items() if v == 'known'))\n"
    )
    with Worker("known:handle", tmp_path, seconds=20.0) as worker:
        assert worker.call(message(b"")).error_message == "['SHOP_URL']"


def test_a_handler_that_only_closes_its_answers_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sahool_dlq.reproduce.worker._DEATH_SECONDS", 0.1)
    (tmp_path / "shut.py").write_text(
        "import os, sys, time\ndef handle(event):\n"
        "    os.close(int(sys.argv[2]))\n    time.sleep(600)\n"
    )
    with Worker("shut:handle", tmp_path, seconds=None) as worker:
        assert worker.call(message(b"")).result == "died"
