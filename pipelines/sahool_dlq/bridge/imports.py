"""Imports dead-letter streams of others into the log, each message exactly once.

The log stays the only source of the sinks. Each dead letter in it says from which message it came,
so the log itself knows what was imported; the table `imports` only says up to which message nobody
needs to look again. After a crash, with a new database or if the stream is another one than before,
the importer reads in the log what it has already (docs/import.md).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError
from psycopg import Connection

from sahool_dlq.bridge.foreign_letter import ImportedLetter, imported_letter
from sahool_dlq.bridge.foreign_stream import (
    ForeignState,
    foreign_messages,
    foreign_state,
    is_same,
)
from sahool_dlq.connections import find_log, open_nats, open_postgres
from sahool_dlq.deadletter.imports.profile import Profile, profile_named, with_streams
from sahool_dlq.deadletter.imports.reading import ForeignMessage
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.errors import DLQError, ServerUnavailableError, SettingsError, StreamError
from sahool_dlq.events.outbox import PUBLISH_ERRORS, OwnIds, publish_dead_letter
from sahool_dlq.events.same import SameLetters
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.imports import (
    NOWHERE,
    ImportPosition,
    locked_position,
    save_position,
)

__all__ = ["ImportReport", "ProfileOnStream", "chosen_profiles", "import_pending", "previewed"]

logger = logging.getLogger(__name__)

_BATCH_MESSAGES = 200
_BATCH_BYTES = 20 << 20
_AT_ONCE = 32
_SCAN_MESSAGES, _SCAN_BYTES = 2_000, 20 << 20

Place = tuple[int, int]
"""Sequence and server time of a message in its stream."""


class ProfileOnStream(msgspec.Struct, frozen=True):
    """A complete profile, and the stream that it is used on."""

    profile: Profile
    stream: str


@dataclass(slots=True)
class ImportReport:
    """The result of importing one stream by one profile."""

    profile: str
    stream: str
    imported: int = 0  # dead letters that were published to the log
    unreadable: int = 0  # those of them that are not, or not completely, what the profile says
    known: int = 0  # that the log had already: of another profile, or a run that was killed
    own: int = 0  # messages of the platform itself, left out
    missed: int = 0  # at most so many left the stream before they were imported
    is_another: bool = False  # the stream is not the one of the last run
    last_sequence: int = 0  # up to which the stream is imported

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


class _Key(msgspec.Struct):
    """What the importer reads in its own dead letters."""

    imported_from: str


def chosen_profiles(
    settings: Settings, name: str | None, stream: str | None, subjects: Sequence[str] = ()
) -> list[ProfileOnStream]:
    """The named profile on a stream; without a name, all of the rules file that name a stream.

    Raises SettingsError if there is no such profile, or no stream is known.
    """
    own = settings.rules.profile
    if name is None:
        return [ProfileOnStream(each, each.stream) for each in with_streams(own) if each.stream]
    try:
        profile = profile_named(name, own)
    except ValueError as error:
        reason = str(error)
        raise SettingsError(f"{reason[0].upper()}{reason[1:]}.") from error
    if subjects:
        profile = msgspec.structs.replace(profile, subjects=tuple(subjects))
    where = stream or profile.stream
    if where is None:
        raise SettingsError(f"The profile {profile.name} names no stream: give one with --stream.")
    return [ProfileOnStream(profile, where)]


async def import_pending(
    settings: Settings,
    chosen: Sequence[ProfileOnStream] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> list[ImportReport]:
    """Import what is new; without `chosen`, by all profiles of the rules file that name a stream.

    Safe to run at any time, also twice at once. If a stream cannot be read, or the log not be
    written, the others are imported, then it raises StreamError or ServerUnavailableError; the next
    run continues.
    """
    chosen = chosen_profiles(settings, None, None) if chosen is None else chosen
    reports: list[ImportReport] = []
    trouble: DLQError | None = None
    if not chosen:
        return reports
    async with open_nats(settings, "dlq import") as client:
        with open_postgres(settings) as connection:
            for each in chosen:
                run = _Import(settings, client, connection, each)
                reports.append(run.report)
                try:
                    await run.to_end(progress)
                except DLQError as error:
                    trouble = trouble or error
    if trouble is not None:
        raise trouble
    return reports


async def previewed(
    settings: Settings, chosen: ProfileOnStream, limit: int = 20
) -> list[tuple[ForeignMessage, ImportedLetter]]:
    """The first messages of a stream as an import would read them; changes nothing.

    Raises as `import_pending` does.
    """
    async with open_nats(settings, "dlq import --dry-run") as client:
        stream = chosen.stream
        state = await _state(client, settings, stream)
        found = []
        async for message in foreign_messages(
            client, stream, chosen.profile.filters, 0, state.last_sequence
        ):
            if not _is_own(settings, message):
                letter = await imported_letter(
                    client, chosen.profile, message, settings.bridge_services
                )
                found.append((message, letter))
            if len(found) == limit:
                break
        return found


async def _state(client: Client, settings: Settings, stream: str) -> ForeignState:
    if stream in settings.stream_names.own:
        raise StreamError(f"{stream} is a stream of the platform itself: there is no import of it.")
    try:
        return await foreign_state(client, stream)
    except (nats.errors.NoRespondersError, TimeoutError) as error:
        raise ServerUnavailableError(
            "The NATS server does not answer JetStream requests."
        ) from error


def _is_own(settings: Settings, message: ForeignMessage) -> bool:
    """Whether it is the platform's: a dead letter of ours would be imported again and again."""
    return any(matches(own, message.subject) for own in settings.subjects.own)


class _Import:
    """One profile on one stream, until it is at the end of the stream."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        connection: Connection[Any],
        chosen: ProfileOnStream,
    ) -> None:
        self.report = ImportReport(chosen.profile.name, chosen.stream)
        self._settings = settings
        self._client = client
        self._connection = connection
        self._profile = chosen.profile
        self._stream = chosen.stream
        self._key = " ".join(chosen.profile.filters)
        self._own_ids = OwnIds(SameLetters(client).is_ours)
        self._in_log: set[Place] = set()
        self._read_to: int | None = None  # sequence of the log up to which `_in_log` is complete
        self._until: int | None = None

    async def to_end(self, progress: Callable[[int], object]) -> None:
        """Import all messages that the stream has at the start."""
        try:
            while not await self._batch():
                progress(self.report.imported)
        except APIError as error:
            raise StreamError(
                f"The import of {self._stream} stopped: {error.description or error}. The next run"
                " continues."
            ) from error
        except PUBLISH_ERRORS as error:
            raise ServerUnavailableError(
                f"The import of {self._stream} stopped: {str(error) or type(error).__name__}. The"
                " next run continues."
            ) from error

    async def _batch(self) -> bool:
        """Import some messages in one transaction; whether they were the last ones."""
        with self._connection.transaction():
            position = locked_position(self._connection, self._stream, self._key)
            state = await _state(self._client, self._settings, self._stream)
            log = await find_log(self._client, self._settings)
            position = await self._checked(position, state)
            await self._learn(log, position.log_sequence)
            if self._until is None:
                self._until = state.last_sequence
            messages, is_end = await self._next_messages(position.sequence)
            await self._publish(messages)
            last = messages[-1] if messages else None
            position = ImportPosition(
                state.created,
                last.sequence if last else position.sequence,
                last.timestamp_ns if last else position.timestamp_ns,
                log.last_sequence if is_end else position.log_sequence,
            )
            save_position(self._connection, self._stream, self._key, position)
            self.report.last_sequence = position.sequence
        return is_end

    async def _checked(self, position: ImportPosition, state: ForeignState) -> ImportPosition:
        """The position, or NOWHERE if the stream is another one now."""
        if position.sequence == 0:
            return position
        if not await is_same(self._client, self._stream, state, position):
            self.report.is_another = True
            self._until = self._read_to = None
            logger.warning(
                "Stream %s is not the one that was imported before: it was created again or set"
                " back. It is read from its first message; what the log has is left out.",
                self._stream,
            )
            return NOWHERE
        missed = state.first_sequence - position.sequence - 1
        if missed <= 0:
            return position
        self.report.missed += missed
        return position._replace(sequence=state.first_sequence - 1, timestamp_ns=0)

    async def _learn(self, log: LogState, after: int) -> None:
        """Read in the log which messages were imported, beyond what is known."""
        after = after if self._read_to is None else self._read_to
        if after > log.last_sequence:  # the log is another one
            after = 0
        wanted = self._settings.subjects.imported(self._stream)
        reader = LogReader(self._client, log.stream, (wanted,))
        await reader.seek(after + 1)
        try:
            while found := await reader.read(_SCAN_MESSAGES, _SCAN_BYTES, log.last_sequence):
                self._in_log.update(filter(None, (_place(m.data, self._stream) for m in found)))
        finally:
            await reader.close()
        self._read_to = log.last_sequence

    async def _next_messages(self, after: int) -> tuple[list[ForeignMessage], bool]:
        messages: list[ForeignMessage] = []
        size = 0
        async for message in foreign_messages(
            self._client, self._stream, self._profile.filters, after, self._until or 0
        ):
            messages.append(message)
            size += len(message.data)
            if len(messages) == _BATCH_MESSAGES or size > _BATCH_BYTES:
                return messages, False
        return messages, True

    async def _publish(self, messages: Sequence[ForeignMessage]) -> None:
        new = []
        for message in messages:
            if _is_own(self._settings, message):
                self.report.own += 1
            elif (message.sequence, message.timestamp_ns) in self._in_log:
                self.report.known += 1
            else:
                new.append(message)
        left = iter(new)
        while some := list(islice(left, _AT_ONCE)):
            done = await asyncio.gather(*map(self._import, some), return_exceptions=True)
            for each in done:
                if isinstance(each, BaseException):
                    raise each

    async def _import(self, message: ForeignMessage) -> None:
        services = self._settings.bridge_services
        letter = await imported_letter(self._client, self._profile, message, services)
        await publish_dead_letter(
            self._client,
            self._settings.subjects.imported(self._stream, letter.event_type),
            letter.fields,
            letter.body,
            letter.is_json,
            self._own_ids.of(letter.fields),
        )
        self.report.imported += 1
        self.report.unreadable += letter.problem is not None


def _place(letter: bytes, stream: str) -> Place | None:
    """The message of `stream` that a dead letter was imported from."""
    try:
        said = msgspec.json.decode(letter, type=_Key).imported_from
        its, sequence, timestamp_ns = said.split("/")
        return (int(sequence), int(timestamp_ns)) if its == stream else None
    except (msgspec.MsgspecError, ValueError):
        return None
