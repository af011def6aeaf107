"""deploy/nats.conf and docs contain the output of `dlq nats-permissions`."""

import json
import re

import pytest
from click.testing import CliRunner

from sahool_dlq.cli import _command
from sahool_dlq.jetstream.grants import ROLES, grants_of_role
from sahool_dlq.jetstream.stream_names import StreamNames
from support import ROOT

CONF = (ROOT / "deploy/nats.conf").read_text()


def run(*arguments: str) -> str:
    result = CliRunner().invoke(_command(), ["nats-permissions", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("role", ROLES)
def test_the_shipped_configuration_has_the_grants_of_each_role(role: str) -> None:
    [block] = re.findall(rf"^      user: {role}, .*?^    }}\n", CONF, re.M | re.S)
    said = re.sub(r"#.*", "", block)
    publish, subscribe = said.split("subscribe:")
    grants = grants_of_role(StreamNames(), role)
    assert re.findall(r'"([^"]+)"', publish) == list(grants.publish)
    assert re.findall(r'"([^"]+)"', subscribe) == list(grants.subscribe)
    assert json.loads(run("--role", role, "--json")) == {
        "user": role,
        "publish": list(grants.publish),
        "subscribe": list(grants.subscribe),
    }


def test_the_example_of_a_service_is_what_the_verb_prints() -> None:
    arguments = "--service", "billing", "--consumes", "sahool.actions.billing"
    told = " ".join(("dlq nats-permissions", *arguments))
    assert told in CONF
    assert told in (ROOT / "docs/security.md").read_text()
    example = re.sub(r"^    # ?", "", CONF[CONF.index(told) :], flags=re.M)
    assert run(*arguments) in example


def test_streams_prefix_durable_and_user_are_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_EVENTS_STREAM", "TASKS")
    monkeypatch.setenv("DLQ_SUBJECT_PREFIX", "farm")
    said = run(
        *("--service", "a b", "--consumes", "farm.tasks.>", "--consumer", "tiles", "--user", "t.x")
    )
    assert '"$JS.API.CONSUMER.CREATE.TASKS.tiles.farm.tasks.>"' in said
    assert '"farm.totals.a_b.tiles"' in said
    assert '"farm.dlq.*"' in said
    assert 'user: "t.x", password: $NATS_T_X_PASSWORD' in said
    assert 'subscribe: ["_INBOX.t_x.>"]' in said
    assert "SAHOOL_EVENTS" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--service", "a", "--role", "drain"),
        ("--role", "drain", "--publishes", "a.b"),
        ("--service", "a", "--consumer", "d"),
        ("--service", "a", "--consumer", "d", "--consumes", "a", "--consumes", "b"),
        ("--service", "a", "--consumes", "a b"),
        ("--service", "a", "--publishes", 'a"]'),
        ("--service", "a", "--consumes", "a..b"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(_command(), ["nats-permissions", *arguments])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_the_rights_are_where_the_api_is(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = "--role", "drain", "--json"
    here = json.loads(run(*arguments))["publish"]
    monkeypatch.setenv("DLQ_NATS_JETSTREAM_DOMAIN", "hub")
    in_domain = json.loads(run(*arguments))["publish"]
    assert in_domain == [
        each.replace("$JS.API.", "$JS.hub.API.").replace("$JS.ACK._.", "$JS.ACK.hub.")
        for each in here
    ]
    assert "$JS.hub.API.STREAM.NAMES" in in_domain
    monkeypatch.delenv("DLQ_NATS_JETSTREAM_DOMAIN")
    monkeypatch.setenv("DLQ_NATS_JETSTREAM_API_PREFIX", "HUB.API")
    assert "HUB.API.STREAM.NAMES" in json.loads(run(*arguments))["publish"]


@pytest.mark.parametrize(("filter_", "last"), [("sahool.actions.paid", "paid"), ("sahool.>", "*")])
def test_a_service_writes_dead_letters_on_its_own_subject(filter_: str, last: str) -> None:
    said = run(*("--service", "a b", "--consumes", filter_, "--dlq-subject-per-service"))
    assert re.findall(r'"(sahool\.dlq\.[^"]*)"', said) == [f"sahool.dlq.a_b.{last}"]
