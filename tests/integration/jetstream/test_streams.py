"""Creating streams: idempotent, extends ours, accepts older ones, refuses those that lose data."""

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType
from nats.js.errors import APIError

from sahool_dlq.errors import StreamError
from sahool_dlq.jetstream.reader import log_state
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import ensure_streams, find_stream
from sahool_dlq.settings import Settings


@pytest.fixture
def names(settings: Settings) -> StreamNames:
    return settings.stream_names


@pytest.fixture
async def js(settings: Settings, names: StreamNames) -> AsyncIterator[JetStreamContext]:
    """JetStream, on which the platform's streams do not exist yet."""
    connection = await nats.connect(settings.nats_url.get_secret_value())
    js = connection.jetstream()
    yield js
    for info in await js.streams_info():
        if any(s.startswith(settings.subject_prefix) for s in info.config.subjects or []):
            await js.delete_stream(str(info.config.name))
    await connection.close()


async def test_the_log_is_made_so_that_it_can_be_read_again_and_not_purged(
    js: JetStreamContext, names: StreamNames
) -> None:
    assert await ensure_streams(js, names) == {
        "events": names.events,
        "dead_letters": names.dead_letters,
        "totals": names.totals,
        "attempts": names.attempts,
    }
    config = (await js.stream_info(names.dead_letters)).config
    assert config.subjects == list(names.subjects.log)
    assert config.retention == RetentionPolicy.LIMITS
    assert config.storage == StorageType.FILE
    assert config.max_age == 30 * 24 * 3600
    assert config.duplicate_window == 3600
    assert config.allow_direct
    assert config.deny_purge
    assert not config.deny_delete  # an erasure must be able to delete
    with pytest.raises(APIError):
        await js.purge_stream(names.dead_letters)


async def test_making_them_again_changes_nothing_even_at_once(
    js: JetStreamContext, names: StreamNames
) -> None:
    await asyncio.gather(*(ensure_streams(js, names) for _ in range(4)))
    before = (await js.stream_info(names.dead_letters)).config
    await ensure_streams(js, names)
    assert (await js.stream_info(names.dead_letters)).config == before


async def test_a_stream_of_ours_that_lacks_a_subject_is_extended(
    js: JetStreamContext, names: StreamNames
) -> None:
    dead, *others = names.subjects.log
    await js.add_stream(name=names.dead_letters, subjects=[dead], max_age=99)
    await js.publish(dead.replace(">", "x"), b"kept")
    await ensure_streams(js, names)
    info = await js.stream_info(names.dead_letters)
    assert set(info.config.subjects or []) == {dead, *others}
    assert (info.config.max_age, info.state.messages) == (99, 1)


async def test_an_older_wide_stream_serves_every_role(
    js: JetStreamContext, names: StreamNames
) -> None:
    wide = f"WIDE_{names.subjects.prefix}"
    await js.add_stream(name=wide, subjects=[f"{names.subjects.prefix}.>"])
    assert set((await ensure_streams(js, names)).values()) == {wide}
    state = await log_state(js._nc, names.dead_letters, names.subjects.log)
    assert (state.stream, state.is_shared) == (wide, True)
    assert await find_stream(js, names.subjects.totals) == wide


async def test_a_stream_that_captures_only_some_of_the_log_is_refused(
    js: JetStreamContext, names: StreamNames
) -> None:
    other = f"OTHER_{names.subjects.prefix}"
    await js.add_stream(name=other, subjects=[names.subjects.log[1]])
    with pytest.raises(StreamError, match=f"Stream {other} captures some of"):
        await ensure_streams(js, names)


@pytest.mark.parametrize("retention", [RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST])
async def test_a_log_that_would_lose_what_is_read_is_refused(
    js: JetStreamContext, names: StreamNames, retention: RetentionPolicy
) -> None:
    await js.add_stream(
        name=names.dead_letters, subjects=list(names.subjects.log), retention=retention
    )
    with pytest.raises(StreamError, match="use a stream with limits retention"):
        await log_state(js._nc, names.dead_letters, names.subjects.log)


async def test_the_state_of_a_log_of_ones_own_is_not_shared(
    js: JetStreamContext, names: StreamNames
) -> None:
    await ensure_streams(js, names)
    await js.publish(names.subjects.dead_letter("x"), b"1")
    state = await log_state(js._nc, names.dead_letters, names.subjects.log)
    assert (state.first_sequence, state.last_sequence, state.message_count) == (1, 1, 1)
    assert not state.is_shared


async def test_no_stream_at_all_is_reported(js: JetStreamContext, names: StreamNames) -> None:
    with pytest.raises(StreamError, match="run `dlq migrate` to make it"):
        await log_state(js._nc, names.dead_letters, names.subjects.log)
