"""A pytest file with masked events, which fails as long as their handler fails on them: pure."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sahool_dlq.deadletter.body import text_of
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.headers import headers_of_json
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import parse_json
from sahool_dlq.errors import TrialError
from sahool_dlq.reproduce.raw import RawEvent

__all__ = ["MOST_EVENTS", "masked", "text_of_test", "write_test"]

MOST_EVENTS = 3
"""Maximum events of a group in one test."""

_MARK = '"""Written by `dlq try`: '
_LINE = 76  # characters of a bytes literal
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_.]")


def masked(event: RawEvent, redactor: Redactor, decoders: Decoders) -> RawEvent | None:
    """The masked event for a repository, its body in its own format; None if that cannot be read,
    or cannot hold the masks.
    """
    try:
        opened = decoders.opened(event.body, event.subject, event.headers)
        parse_json(opened.json or b"null")
        text, form = text_of(opened.json)
        body = event.body and opened.closed(form.bytes_of(redactor.redact_json(text)))
    except ValueError:
        return None
    headers = json.loads(redactor.redact_json(json.dumps(dict(event.headers))))
    subject = redactor.redact_label(event.subject)
    return replace(event, subject=subject, body=body, headers=headers_of_json(headers))


def text_of_test(
    handler: str,
    group_id: str,
    error: str,
    events: Sequence[tuple[RawEvent, int, int]],
    seconds: float,
) -> str:
    """The file's text; `events` with attempt and maximum retries for their calls."""
    module, _, name = handler.partition(":")
    root = name.partition(".")[0]
    given = "".join(_event(*each) for each in events)
    # The author of a dead letter chose the error's type: its text must not end the docstring.
    kind = _NOT_OF_A_NAME.sub("", error)
    return f'''{_MARK}group {group_id}, {kind}. Bodies are masked.

It fails as long as the handler fails on these events.
"""

import asyncio
import inspect

import pytest
from {module} import {root}

from sahool_dlq.events import ConsumerContext, ProcessingResult

SECONDS = {seconds!r}
EVENTS = [
{given}]


async def handled(event: ConsumerContext) -> object:
    async with asyncio.timeout(SECONDS):
        said = {name}(event)
        return await said if inspect.isawaitable(said) else said


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{{event.stream}}-{{event.sequence}}")
def test_group_{group_id}_succeeds(event: ConsumerContext) -> None:
    assert asyncio.run(handled(event)) is ProcessingResult.SUCCESS
'''


def _event(event: RawEvent, attempt: int, max_retries: int) -> str:
    single = {k: v if isinstance(v, str) else v[-1] for k, v in event.headers.items()}
    repeated = {k: v for k, v in event.headers.items() if isinstance(v, list)}
    parts = [event.body[at : at + _LINE] for at in range(0, len(event.body), _LINE)] or [b""]
    body = "".join(f"            {part!r}\n" for part in parts)
    lines = [
        f"        subject={event.subject!r},",
        f"        data=(\n{body}        ),",
        f"        headers={single!r},",
        f"        repeated_headers={repeated!r}," if repeated else "",
        f"        attempt={attempt},",
        f"        max_retries={max_retries},",
        f"        stream={(event.stream or '')!r},",
        f"        sequence={event.sequence or 0},",
    ]
    shown = "\n".join(line for line in lines if line)
    return f"    ConsumerContext(\n{shown}\n    ),\n"


def write_test(folder: Path, group_id: str, text: str) -> Path:
    """Write `test_dlq_<group>.py`, over an older one of ours; raises TrialError if that fails."""
    file = folder / f"test_dlq_{group_id}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.read_text().startswith(_MARK):
            raise TrialError(f"{file} is another file: move it, or name another folder.")
        file.write_text(text, encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise TrialError(f"{file} was not written: {error}.") from error
    return file
