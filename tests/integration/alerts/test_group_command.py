"""`dlq group` on real servers: what it changes, where that is shown, and what it refuses."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
from click.testing import CliRunner, Result

from sahool_dlq.cli import _command
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.platform_log import environment, in_lake, letter, publish, query

Run = Callable[..., Result]


@pytest.fixture
def dlq(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, value in environment(settings, COLUMNS="200").items():
        if name.startswith("DLQ_") or name == "COLUMNS":
            monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(_command(), arguments, catch_exceptions=False)

    return run


@pytest.fixture
def group(settings: Settings) -> str:
    async def fail() -> None:
        connection = await nats.connect(settings.nats_url.get_secret_value())
        await ensure_streams(connection.jetstream(), settings.stream_names)
        now = datetime.now(UTC).isoformat()
        times = dict.fromkeys(("first_attempt_at", "last_attempt_at", "dlq_timestamp"), now)
        await publish(connection, settings, [letter(n, **times) for n in range(2)])
        await connection.close()
        await drain_log(settings)

    asyncio.run(fail())
    return str(query(settings, "SELECT group_id FROM failed_events LIMIT 1")[0]["group_id"])


WHY = ("--reason", "asked them", "--by", "ana")


def test_a_change_is_shown_wherever_the_group_is(
    dlq: Run, settings: Settings, group: str, tmp_path: Path
) -> None:
    assert "Nobody owns it." in dlq("group", group[:6]).stdout
    said = dlq(
        *(
            "group",
            group,
            "--owner",
            "team-a",
            "--ticket",
            "https://t.example/7",
            "--label",
            "known",
        ),
        *("--note", "call bo@acme.example", "--mute", "escalating", *WHY),
    )
    assert said.exit_code == 0, said.output
    assert "owner    team-a (named by a person)" in said.stdout
    assert "muted    until it escalates, by ana: asked them" in said.stdout
    assert "note     call [redacted:email]" in said.stdout

    line = "team-a · muted until it escalates · known · https://t.example/7"
    assert line in dlq("groups").stdout
    assert line in dlq("groups", "--owner", "team-a").stdout
    assert "No failures match" in dlq("groups", "--owner", "team-b").stdout
    assert "until it escalates" in dlq("show", group).stdout
    assert line in dlq("report").stdout
    page = tmp_path / "report.html"
    dlq("report", "--html", str(page))
    assert "team-a · muted until it escalates" in page.read_text()
    [told] = json.loads(dlq("groups", "--json").stdout)["groups"]
    assert (told["owner"], told["owner_source"], told["labels"]) == ("team-a", "person", "known")

    assert dlq("group", group, "--owner", "", "--label", "", "--unmute", *WHY).exit_code == 0
    row = json.loads(dlq("group", group, "--json").stdout)["group"]
    assert (row["owner"], row["labels"], row["is_muted"]) == (None, None, False)
    assert row["ticket"] == "https://t.example/7"
    first = "owner team-a; note call [redacted:email]; ticket https://t.example/7; labels known;"
    changes = [
        f"{first} muted until it escalates",
        "no owner; no labels; unmuted",
    ]
    told = json.loads(dlq("show", group, "--json").stdout)["group_history"]
    assert [line[1:] for line in told] == [[change, "ana", "asked them"] for change in changes]
    shown = dlq("show", group).stdout
    said = shown.index("What people said of the group")
    assert said < shown.index(changes[0]) < shown.index(changes[1])
    failure = str(query(settings, "SELECT id::text FROM failed_events LIMIT 1")[0]["id"])
    alone = json.loads(dlq("show", failure, "--json").stdout)
    assert "group_history" not in alone
    rows = json.loads(dlq("audit", "--action", "group", "--json").stdout)["audit"]
    assert [(row["actor"], row["reason"]) for row in rows] == [("ana", "asked them")] * 2
    assert rows[1]["detail"]["changes"]["note"] == "call [redacted:email]"
    assert "group.changed" in dlq("audit").stdout
    audited = dlq("audit", group).stdout
    assert f"group {group} {changes[0]}" in audited
    assert json.loads(dlq("audit", group, "--json").stdout)["audit"] == rows
    assert json.loads(dlq("audit", "0" * 16, "--json").stdout)["audit"] == []
    assert "bo@acme" not in "".join(in_lake(settings, "case_events")["body"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--owner", "a"), "Give a reason"),
        (WHY, "Say what to change"),
        (("--owner", "ops@acme.example", *WHY), "The owner looks like a secret or an address"),
        (("--label", "password=hunter2", *WHY), "The label looks like a secret"),
        (("--ticket", "PAY-7", *WHY), "The ticket 'PAY-7' is no address"),
        (("--owner", "x" * 101, *WHY), "The owner has more than 100 characters"),
        (("--mute", "soon", *WHY), "'soon' ends no mute: write a time"),
        (("--mute", "2020-01-01", *WHY), "A mute must end after now"),
        (("--mute", "3d", "--unmute", *WHY), "Give --mute or --unmute, not both"),
        (("--unmute", *WHY), "is not muted"),
    ],
)
def test_what_cannot_be_stored_is_one_sentence_and_changes_nothing(
    dlq: Run, settings: Settings, group: str, arguments: tuple[str, ...], words: str
) -> None:
    refused = dlq("group", group, *arguments)
    assert (refused.exit_code, words in refused.stderr) == (1, True), refused.output
    assert refused.stderr.count("\n") == 1
    assert in_lake(settings, "case_events").is_empty()


def test_an_unknown_group_is_said(dlq: Run, group: str) -> None:
    refused = dlq("group", "ffffffffffffffff", "--owner", "a", *WHY)
    assert (refused.exit_code, "There is no group" in refused.stderr) == (2, True)


def test_a_file_of_owners_that_cannot_be_used_stops_the_drain_in_one_sentence(
    dlq: Run, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[ownership]\ncodeowners = "CODEOWNERS"\n')
    monkeypatch.setenv("DLQ_RULES_FILE", str(rules))
    assert "CODEOWNERS: No such file" in dlq("drain").stderr
    (tmp_path / "CODEOWNERS").write_text("* @a\n/x[a @b\n")
    assert "CODEOWNERS, line 2: unterminated character class" in dlq("drain").stderr
    (tmp_path / "CODEOWNERS").write_text("* @a\n")
    assert dlq("drain").exit_code == 0
    assert "Nobody owns it." in dlq("group", group).stdout  # its failures have no trace
