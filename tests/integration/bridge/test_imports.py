"""Dead letters that other software wrote to streams of its own are imported once.

All tests here share one NATS server, which other tests do not use, as do those of the bridge.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from nats.js.api import RetentionPolicy, StreamConfig, StreamSource
from pydantic import SecretStr

from flows.drain_dlq import drain_dlq
from sahool_dlq.bridge import imports
from sahool_dlq.bridge.imports import ImportReport, chosen_profiles, import_pending, previewed
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.deadletter import ids
from sahool_dlq.errors import SettingsError, StreamError
from sahool_dlq.jetstream.grants import grants_of_role
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import preview_redrive, redrive
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support import servers
from support.foreign_consumers import Platform, opened
from support.platform_log import (
    DLQ,
    InjectedError,
    environment,
    execute,
    failures,
    in_lake,
    query,
)

pytestmark = pytest.mark.xdist_group("imports")  # they share a NATS of their own

POISON = "POISON"


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with servers.nats(tmp_path_factory.mktemp("imports")) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        await platform.js.add_stream(name=POISON, subjects=["poison.>"])
        yield platform


async def poison(platform: Platform, *numbers: int, **headers: str) -> None:
    """Messages of watermill's poison queue, which are about events of the platform."""
    topic = f"{platform.settings.subject_prefix}.analysis.ndvi"
    for number in numbers:
        said = {
            "topic_poisoned": topic,
            "reason_poisoned": f"no tile {number}",
            "handler_poisoned": "tiles",
            "_watermill_message_uuid": f"uuid-{number}",
            "Trace": "t1",
        }
        body = json.dumps({"event_id": f"e{number}", "n": number}).encode()
        await platform.js.publish("poison.queue", body, headers=said | headers)


async def take(platform: Platform, profile: str = "watermill", stream: str = POISON) -> Any:
    """The report of an import by hand."""
    chosen = chosen_profiles(platform.settings, profile, stream)
    [report] = await import_pending(platform.settings, chosen)
    return report


def counts(report: ImportReport) -> tuple[int, int, int]:
    return report.imported, report.known, report.unreadable


async def test_a_stream_is_imported_once_and_each_letter_is_one_failure_in_both_sinks(
    platform: Platform,
) -> None:
    settings = platform.settings
    await poison(platform, *range(1, 8))
    assert counts(await take(platform)) == (7, 0, 0)
    assert counts(await take(platform)) == (0, 0, 0)
    await poison(platform, 8)
    assert counts(await take(platform)) == (1, 0, 0)
    await drain_log(settings)
    rows = failures(settings)
    assert [row["error_message"] for row in rows] == [f"no tile {n}" for n in range(1, 9)]
    assert {row["seen_count"] for row in rows} == {1}
    assert {row["dlq_reason"] for row in rows} == {"imported"}
    assert {row["parse_error"] for row in rows} == {None}
    assert {row["original_subject"] for row in rows} == {f"{settings.subject_prefix}.analysis.ndvi"}
    assert rows[0]["handler"] == "tiles"
    assert rows[0]["consumer_service"] == POISON
    assert rows[0]["event_id"] == "uuid-1"
    assert rows[0]["original_headers"] == {"Trace": "t1"}
    first = await platform.js.get_msg(POISON, 1)
    lake = in_lake(settings)
    assert lake.height == 8
    assert lake["failure_id"].to_list() == [str(row["id"]) for row in rows]
    stream, sequence, _ = rows[0]["imported_from"].split("/")
    assert (stream, sequence, rows[0]["original_data"]) == (POISON, "1", json.loads(first.data))
    assert str(rows[0]["id"]) == ids.imported_id(rows[0]["imported_from"])


async def test_an_import_that_dies_before_it_notes_its_position_adds_nothing_twice(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the server has forgotten the ids of what it stored."""
    settings = platform.settings
    stream = await platform.js.stream_info(settings.dlq_stream)
    stream.config.duplicate_window = 0.1
    await platform.js.update_stream(stream.config)
    await poison(platform, 1, 2, 3)

    def die(*_: Any) -> None:
        raise InjectedError

    with monkeypatch.context() as patched:
        patched.setattr(imports, "save_position", die)
        with pytest.raises(InjectedError):
            await take(platform)
    assert await imported_count(platform) == 3
    await _forgotten(platform)
    await poison(platform, 4)
    assert counts(await take(platform)) == (1, 3, 0)
    assert await imported_count(platform) == 4
    await drain_log(settings)
    assert [row["seen_count"] for row in failures(settings)] == [1] * 4


async def imported_count(platform: Platform) -> int:
    return sum("imported_from" in letter for letter in await platform.letters())


async def _forgotten(platform: Platform) -> None:
    """Wait until the log has forgotten an id that was used just now."""
    where, js = f"{platform.settings.subject_prefix}.triage.alerted", platform.js
    probe = {"Nats-Msg-Id": "probe"}
    await js.publish(where, b"{}", headers=probe)
    async with asyncio.timeout(20):
        while (await js.publish(where, b"{}", headers=probe)).duplicate:
            await asyncio.sleep(0.1)


async def test_a_lost_database_is_imported_into_without_repeats(platform: Platform) -> None:
    await poison(platform, 1, 2)
    await take(platform)
    execute(platform.settings, "TRUNCATE imports")
    await poison(platform, 3)
    assert counts(await take(platform)) == (1, 2, 0)
    assert counts(await take(platform)) == (0, 0, 0)


async def test_two_profiles_on_one_stream_and_two_runs_at_once_import_each_message_once(
    platform: Platform,
) -> None:
    await poison(platform, *range(1, 40))
    every, some = (
        chosen_profiles(platform.settings, "watermill", POISON, subjects)
        for subjects in ((), ("poison.queue",))
    )
    reports = await asyncio.gather(
        *(
            asyncio.to_thread(asyncio.run, import_pending(platform.settings, each))
            for each in (every, some, every)
        )
    )
    assert sum(report.imported for [report] in reports) == 39
    assert len(await platform.letters()) == 39
    await poison(platform, 40)
    assert counts((await import_pending(platform.settings, some))[0]) == (1, 0, 0)
    assert counts((await import_pending(platform.settings, every))[0]) == (0, 1, 0)


async def test_a_stream_that_was_created_again_is_read_from_its_start(platform: Platform) -> None:
    await poison(platform, 1, 2, 3)
    await take(platform)
    await platform.js.delete_stream(POISON)
    await platform.js.add_stream(name=POISON, subjects=["poison.>"])
    await poison(platform, 4, 5)
    report = await take(platform)
    assert (*counts(report), report.is_another) == (2, 0, 0, True)
    report = await take(platform)
    assert (*counts(report), report.is_another) == (0, 0, 0, False)
    await drain_log(platform.settings)
    rows = failures(platform.settings)
    assert [row["error_message"] for row in rows] == [f"no tile {n}" for n in range(1, 6)]
    assert {row["seen_count"] for row in rows} == {1}


async def test_messages_that_left_before_an_import_are_counted_once(platform: Platform) -> None:
    await poison(platform, 1, 2, 3, 4)
    await take(platform)
    await poison(platform, 5, 6, 7)
    await platform.js.purge_stream(POISON, seq=7)
    report = await take(platform)
    assert (report.imported, report.missed, report.is_another) == (1, 2, False)
    assert (await take(platform)).missed == 0


@pytest.mark.parametrize("retention", [RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST])
async def test_a_stream_that_refuses_a_second_consumer_is_read_and_keeps_its_messages(
    platform: Platform, retention: RetentionPolicy
) -> None:
    await platform.js.add_stream(
        StreamConfig(name="QUEUE", subjects=["queue.>"], retention=retention)
    )
    await platform.js.pull_subscribe("queue.>", "its-own", stream="QUEUE")
    await platform.js.publish("queue.a", b"{}", headers={"reason_poisoned": "no"})
    assert counts(await take(platform, stream="QUEUE")) == (1, 0, 0)
    info = await platform.js.stream_info("QUEUE")
    assert (info.state.messages, info.state.consumer_count) == (1, 1)


async def test_an_advisory_and_a_dead_letter_about_one_event_are_one_case(
    platform: Platform,
) -> None:
    settings = platform.settings
    await platform.publish({"n": 1}, {"n": 2})
    await platform.fail("billing", {})
    for sequence in (1, 2):
        said = {
            "X-Stream": settings.events_stream,
            "X-Sequence": str(sequence),
            "X-Consumer": "billing",
            "X-Error": "no price",
        }
        await platform.js.publish("poison.x", b'{"n": 0}', headers=said)
    rules = settings.home / "rules.toml"
    rules.write_text(
        f"""
        [[profile]]
        name = "ours"
        stream = "{POISON}"
        headers.original_stream = "X-Stream"
        headers.original_sequence = "X-Sequence"
        headers.consumer = "X-Consumer"
        headers.error_message = "X-Error"
        """
    )
    settings = settings.model_copy(update={"rules_file": rules})
    assert [counts(each) for each in await import_pending(settings)] == [(2, 0, 0)]
    assert (await bridge_pending(settings))[0]["bridged"] == 2
    await drain_log(settings)
    rows = failures(settings)
    assert [(row["seen_count"], row["error_message"]) for row in rows] == [(2, "no price")] * 2
    event = await platform.js.get_msg(settings.events_stream, 1)
    assert rows[0]["original_subject"] == event.subject
    assert in_lake(settings)["failure_id"].n_unique() == 2
    assert await import_pending(settings) != []
    assert len(await platform.letters()) == 4


async def test_the_flow_imports_before_it_drains_and_drains_if_it_cannot(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = platform.settings.home / "rules.toml"
    settings = platform.settings.model_copy(update={"rules_file": rules})
    streams = [
        f'[[profile]]\nname = "{stream}"\nlike = "watermill"\nstream = "{stream}"\n'
        for stream in ("NONE", POISON)
    ]
    flow: Any = drain_dlq.fn.__wrapped__
    of_the_flow = flow.__globals__

    async def nothing(*_: Any, **_more: Any) -> None:
        return None

    for needs_prefect in ("is_overtaken", "table", "told"):
        monkeypatch.setitem(of_the_flow, needs_prefect, nothing)
    monkeypatch.setitem(of_the_flow, "progress", lambda _: nullcontext())
    monkeypatch.setitem(of_the_flow, "stage", lambda _name, work, *_told, **_: work())
    monkeypatch.setitem(of_the_flow, "happened", lambda *_: None)
    monkeypatch.setitem(of_the_flow, "load_settings", lambda: settings)
    for number, text in enumerate((streams[1], "".join(streams)), 1):
        rules.write_text(text)
        await poison(platform, number)
        with pytest.raises(StreamError, match="NONE") if number == 2 else nullcontext():
            await flow()
        assert len(failures(settings)) == number


async def test_a_termination_after_a_dead_letter_that_is_imported_is_no_second_case(
    platform: Platform,
) -> None:
    """As nestjs-jetstream does: its dead letter says no sequence."""
    stream, reason = platform.settings.events_stream, b"+TERM Moved to DLQ stream"
    await platform.publish({"n": 1}, {"n": 2})
    await platform.fail("billing", {1: reason, 2: b"+TERM Moved to another DLQ"})
    rules = platform.settings.home / "rules.toml"
    rules.write_text(
        f"""
        [[profile]]
        name = "billing"
        like = "nestjs-jetstream"
        stream = "{POISON}"
        moved_from = ["{stream[:-2]}*"]
        """
    )
    settings = platform.settings.model_copy(update={"rules_file": rules})
    assert await bridge_pending(settings) == ({"moved": 1, "bridged": 1}, [])
    [letter] = await platform.letters()
    assert letter["original_sequence"] == 2


async def test_a_stream_that_was_restored_from_a_backup_goes_on_where_it_was(
    platform: Platform,
) -> None:
    await poison(platform, 1, 2, 3)
    await take(platform)
    before = await platform.js.stream_info(POISON)
    execute(platform.settings, "UPDATE imports SET created = created - interval '1 day'")
    await poison(platform, 4)
    report = await take(platform)
    assert (*counts(report), report.is_another) == (1, 0, 0, False)
    [row] = query(platform.settings, "SELECT created, sequence FROM imports")
    assert (row["created"], row["sequence"]) == (before.created, 4)


async def test_rights_to_read_the_stream_are_enough(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With the user and the role that import, and no other right on the stream."""
    streams = settings.model_copy(update={"subject_prefix": "sahool"})
    grants = grants_of_role(streams.stream_names, "redriver")
    read = [f"$JS.API.STREAM.{what}.{POISON}" for what in ("INFO", "MSG.GET")]
    publish = ", ".join(f'"{each}"' for each in (*grants.publish, *read))
    subscribe = ", ".join(f'"{each}"' for each in grants.subscribe)
    config = LIMITED % (publish, subscribe)
    with servers.nats(tmp_path_factory.mktemp("limited"), config) as server:

        def url(user: str) -> str:
            return f"nats://{user}:secret@127.0.0.1:{server.port}"

        everything = streams.model_copy(update={"nats_url": SecretStr(url("all"))})
        dsn = settings.postgres_dsn.get_secret_value()
        limited = streams.model_copy(
            update={
                "nats_url": SecretStr(url("redriver")),
                "postgres_dsn": SecretStr(f"{dsn}?options=-c%20role%3Ddlq_drain"),
            }
        )
        async with opened(everything) as platform:
            await platform.js.add_stream(name=POISON, subjects=["poison.>"])
            await poison(platform, 1)
            chosen = chosen_profiles(limited, "watermill", POISON)
            [[message, letter]] = await previewed(limited, chosen[0])
            assert (message.sequence, letter.problem) == (1, None)
            assert await imported_count(platform) == 0
            for expected in ((1, 0, 0), (0, 0, 0)):
                [report] = await import_pending(limited, chosen)
                assert counts(report) == expected
            assert (await platform.js.stream_info(POISON)).state.consumer_count == 0


LIMITED = """
authorization { users: [
  { user: all, password: secret }
  { user: redriver, password: secret, permissions: { publish: [%s], subscribe: [%s] } }
] }
"""


async def test_the_command_shows_first_imports_then_and_takes_the_rules_file(
    platform: Platform,
) -> None:
    settings = platform.settings
    await poison(platform, *range(1, 24), Authorization="Bearer 0123456789abcdef")
    await platform.js.publish("poison.x", b"{}", headers={"reason_poisoned": "password=hunter2"})
    rules = settings.home / "rules.toml"
    rules.write_text(f'[[profile]]\nname = "w"\nlike = "watermill"\nstream = "{POISON}"\n')
    env = environment(settings, DLQ_RULES_FILE=str(rules))

    async def dlq(*arguments: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [*DLQ, "import", *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    preview = ("--profile", "w", "--dry-run")
    status, text, _ = await dlq(*preview)
    assert status == 0
    assert "The first 20 messages as they would be imported" in text
    assert "no tile 20" in text
    status, said, _ = await dlq(*preview, "--subject", "poison.x", "--json")
    [row] = json.loads(said)["letters"]
    assert (row["sequence"], row["original_subject"]) == (24, "unknown")
    assert "hunter2" not in said
    assert await imported_count(platform) == 0

    status, said, _ = await dlq("--json")
    [report] = json.loads(said)["imports"]
    assert (report["imported"], report["last_sequence"]) == (24, 24)
    assert (await dlq())[1] == (
        f"Imported 0 dead letters of {POISON} by the profile w, up to sequence 24.\n"
    )
    assert await imported_count(platform) == 24
    for arguments, words in (
        (("--stream", POISON), "need --profile."),
        (("--profile", "plain"), "The profile plain names no stream: give one with --stream."),
        (("--profile", "x", "--stream", POISON), "There is no profile 'x'; there are nestjs-"),
    ):
        status, _, wrong = await dlq(*arguments)
        assert status == 1
        assert words in wrong
        assert wrong.count("\n") == 1


async def test_messages_that_are_no_such_dead_letters_are_kept_with_the_reason(
    platform: Platform,
) -> None:
    settings = platform.settings
    await platform.js.publish("poison.x", b"\xff nothing known", headers={"Other": "1"})
    await platform.js.publish("poison.x", b"")
    assert counts(await take(platform)) == (2, 0, 2)
    report = await drain_log(settings)
    assert report.quarantined == 2
    rows = failures(settings)
    for row in rows:
        assert row["parse_error"].startswith("it has nothing that the profile watermill reads: ")
    assert rows[0]["original_headers"] == {"Other": "1"}
    assert counts(await take(platform)) == (0, 0, 0)


async def test_a_stream_that_is_missing_keeps_no_other_from_being_imported(
    platform: Platform,
) -> None:
    await poison(platform, 1)
    chosen = [
        each
        for stream in ("NONE", POISON)
        for each in chosen_profiles(platform.settings, "watermill", stream)
    ]
    with pytest.raises(StreamError, match="There is no stream NONE"):
        await import_pending(platform.settings, chosen)
    assert await imported_count(platform) == 1


async def test_the_platforms_own_messages_are_left_out(platform: Platform) -> None:
    settings = platform.settings
    await poison(platform, 1, 2)
    await take(platform)
    copy = StreamConfig(name="COPY", mirror=StreamSource(name=settings.dlq_stream))
    await platform.js.add_stream(copy)
    async with asyncio.timeout(20):
        while (await platform.js.stream_info("COPY")).state.last_seq < 2:
            await asyncio.sleep(0.05)
    report = await take(platform, "plain", "COPY")
    assert (report.imported, report.own) == (0, 2)
    with pytest.raises(StreamError, match="a stream of the platform itself"):
        await take(platform, stream=settings.dlq_stream)
    with pytest.raises(StreamError, match="There is no stream NONE"):
        await take(platform, stream="NONE")
    with pytest.raises(SettingsError, match="here is no profile 'none'; there are nestjs"):
        await take(platform, profile="none")


async def test_a_redrive_of_an_imported_failure_reaches_its_consumer_or_says_why_not(
    platform: Platform,
) -> None:
    settings = platform.settings.model_copy(update={"redrive_timeout_seconds": 5})
    sub = await platform.js.pull_subscribe(
        f"{settings.subject_prefix}.analysis.ndvi", "tiles", stream=settings.events_stream
    )
    await poison(platform, 1)
    await platform.js.publish("poison.x", b"{}", headers={"reason_poisoned": "who knows"})
    await take(platform)
    await drain_log(settings)
    seen = await preview_redrive(settings, Selection(service=POISON))
    assert list(seen.refused) == [
        "its dead letter does not say the subject of its event: give one with --to"
    ]
    assert query(settings, "SELECT count(*) AS n FROM redrives") == [{"n": 0}]
    why = {"trigger": "manual", "requested_by": "me", "reason": "tiles are back"}
    await redrive(settings, Selection(service=POISON), own_copy=True, **why)
    [msg] = await sub.fetch(1, timeout=5)
    assert json.loads(msg.data) == {"event_id": "e1", "n": 1}
    assert msg.headers["Trace"] == "t1"
    assert "topic_poisoned" not in msg.headers
