"""Shows what redaction masks in messages, without revealing the secrets; stores nothing."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl
from nats.aio.client import Client

from sahool_dlq.connections import find_log
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.record import FREE_TEXT_COLUMNS, JSON_COLUMNS, LABEL_COLUMNS
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.rules import Rules
from sahool_dlq.drain.batch import build_batch
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.settings import Settings

_MARK = re.compile(
    r"\[redacted(?::([a-z0-9_]+):([0-9a-f]{12})| ([0-9]+ bytes)| [0-9]+ characters)\]"
)
_SAMPLES = 3  # of each rule
_MARGIN = 40  # characters that a sample shows on each side
_COLUMNS = (*JSON_COLUMNS, *FREE_TEXT_COLUMNS, *LABEL_COLUMNS, "body", "reason", "actor")


@dataclass(frozen=True, slots=True)
class Sample:
    """One place where something was masked."""

    sequence: int  # of the message, or the number of its line
    column: str
    before: str  # the secret itself partly hidden
    after: str


@dataclass(slots=True)
class RuleCount:
    """What one rule masks."""

    rule: str
    masks: int = 0
    samples: list[Sample] = field(default_factory=list)


@dataclass(slots=True)
class Masking:
    """What redaction masks in some messages, the most frequent rule first."""

    messages: int = 0
    messages_masked: int = 0
    rules: list[RuleCount] = field(default_factory=list)


async def masking_in_stream(client: Client, settings: Settings, limit: int) -> Masking:
    """What redaction masks in the last `limit` messages of the log."""
    subjects = settings.subjects
    state = await find_log(client, settings)
    reader = LogReader(client, state.stream, subjects.log)
    await reader.seek(max(state.first_sequence, state.last_sequence - limit + 1))
    look = _Look(settings, state.stream)
    try:
        while messages := await reader.read(
            settings.drain_batch_messages, settings.drain_batch_bytes, state.last_sequence
        ):
            look.at(messages)
    finally:
        await reader.close()
    return look.masking()


def masking_in_lines(lines: Iterable[bytes], settings: Settings) -> Masking:
    """What redaction masks in dead letters, one per line."""
    look = _Look(settings, settings.dlq_stream)
    subject = settings.subjects.dead_letters.replace(">", "file")
    messages: list[LogMessage] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            messages.append(LogMessage(subject, number, 0, line.rstrip(b"\r\n")))
        if len(messages) >= settings.drain_batch_messages:
            look.at(messages)
            messages = []
    look.at(messages)
    return look.masking()


class _Look:
    """Redacts batches as a drain does, with marks that remember the masked text."""

    def __init__(self, settings: Settings, stream: str) -> None:
        rules: Rules = settings.rules
        self._redactor = Redactor(rules.redaction, mark=self._mark)
        self._decoders = settings.decoders(rules)
        self._settings = settings
        self._stream = stream
        self._hidden: dict[tuple[str, str], int] = {}  # (rule, value): number of its mark
        self._counts: dict[str, RuleCount] = {}
        self._masking = Masking()

    def at(self, messages: Sequence[LogMessage]) -> None:
        """Count the masks in these messages, and take samples."""
        if not messages:
            return
        self._hidden.clear()
        batch = build_batch(
            messages,
            epoch="",
            stream=self._stream,
            subjects=self._settings.subjects,
            redactor=self._redactor,
            decoders=self._decoders,
        )
        self._masking.messages += len(messages)
        names = list(self._hidden)
        for frame in (batch.letter_frame, batch.event_frame):
            columns = [name for name in _COLUMNS if name in frame.columns]
            is_masked = pl.any_horizontal(pl.col(columns).str.contains("[redacted", literal=True))
            masked = frame.filter(is_masked.fill_null(False)).select("dlq_sequence", *columns)
            self._masking.messages_masked += masked.height
            for sequence, *cells in masked.iter_rows():
                for column, text in zip(columns, cells, strict=True):
                    for mark in _MARK.finditer(text or ""):
                        self._count(names, sequence, column, mark)

    def masking(self) -> Masking:
        """The result."""
        self._masking.rules = sorted(self._counts.values(), key=lambda c: (-c.masks, c.rule))
        return self._masking

    def _mark(self, kind: str, value: str, rule: str) -> str:
        number = self._hidden.setdefault((rule, value), len(self._hidden))
        return f"[redacted:{kind}:{number:012x}]"

    def _count(
        self, names: Sequence[tuple[str, str]], sequence: int, column: str, mark: re.Match[str]
    ) -> None:
        number = int(mark[2], 16) if mark[2] else 0
        if number >= len(names) and mark[2]:
            return  # the message came with a mark
        rule, value = names[number] if mark[2] else ("no JSON", mark[3] or "too long")
        count = self._counts.setdefault(rule, RuleCount(rule))
        count.masks += 1
        if len(count.samples) < _SAMPLES:
            before, after = mark.string[: mark.start()], mark.string[mark.end() :]
            left, right = _plain(before)[-_MARGIN:], _plain(after)[:_MARGIN]
            hidden = _partly_hidden(value) if mark[2] else value
            sample = Sample(
                sequence, column, f"{left}{hidden}{right}", f"{left}{_plain(mark[0])}{right}"
            )
            if all(sample.before != known.before for known in count.samples):
                count.samples.append(sample)


def _plain(text: str) -> str:
    """The text with its marks as a drain without a key writes them."""
    return _MARK.sub(lambda mark: f"[redacted:{mark[1]}]" if mark[1] else mark[0], text)


def _partly_hidden(value: str) -> str:
    shown = value[: min(3, len(value) // 4)]
    return f"{shown}{'•' * min(len(value) - len(shown), 8)} ({len(value)} characters)"
