"""Connection settings: where each one comes from, and the errors of invalid ones."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from sahool_dlq.cli import _command
from sahool_dlq.errors import SettingsError
from sahool_dlq.events import NATSConfig, NATSConsumerConfig
from sahool_dlq.events.monitor.triage import DLQConsumerConfig
from sahool_dlq.jetstream.access import Access, access_elsewhere
from sahool_dlq.jobs.watch import monitor_config
from sahool_dlq.settings import ENDPOINTS_FILE, environment_of, load_settings, nats_settings

EVERYTHING = {
    "description": "the plant",
    "color_scheme": "",
    "url": "nats://one:4222,nats://two:4222",
    "creds": "",
    "nkey": "~/seed.nk",
    "user_jwt": "",
    "user": "",
    "password": "",
    "token": "",
    "cert": "/tls/cert.pem",
    "key": "/tls/key.pem",
    "ca": "/tls/ca.pem",
    "nsc": "",
    "socks_proxy": "",
    "tls_first": True,
    "inbox_prefix": "_INBOX_plant",
    "jetstream_domain": "hub",
    "jetstream_api_prefix": "",
    "jetstream_event_prefix": "",
}


@pytest.fixture(autouse=True)
def contexts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings, and a folder for contexts."""
    for name in [name for name in os.environ if name.startswith(("DLQ_", "NATS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config/nats/context"
    folder.mkdir(parents=True)
    return folder


def write(folder: Path, name: str, **said: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(said))


def addresses(access: Access) -> list[str]:
    return [each.get_secret_value() for each in access.servers]


@pytest.mark.parametrize("kind", [NATSConsumerConfig, NATSConfig, DLQConsumerConfig, "settings"])
def test_every_key_of_a_context_counts_for_jobs_and_services_alike(
    kind: Any, contexts: Path, tmp_path: Path
) -> None:
    write(contexts, "plant", **EVERYTHING)
    if kind == "settings":
        access = load_settings(nats_context="plant").access
    else:
        access = kind(context="plant")
    assert addresses(access) == ["nats://one:4222", "nats://two:4222"]
    assert access.nkey == str(tmp_path / "seed.nk")
    assert (access.cert, access.key, access.ca) == ("/tls/cert.pem", "/tls/key.pem", "/tls/ca.pem")
    assert (access.tls_first, access.inbox_prefix) == (True, "_INBOX_plant")
    assert access.api_prefix == "$JS.hub.API"


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("creds", "user_credentials"),
        ("user_jwt", "user_jwt"),
        ("user_seed", "user_seed"),
        ("token", "token"),
        ("user", "user"),
        ("jetstream_api_prefix", "jetstream_api_prefix"),
    ],
)
def test_a_key_means_the_same_in_a_context_the_environment_and_the_settings(
    key: str, field: str, contexts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"user_seed": "S"} if key == "user_jwt" else {}
    write(contexts, "c", **{key: "VALUE"}, **more)
    found = [Access(context="c")]
    for prefix in ("NATS", "DLQ_NATS"):
        for name, value in {key: "VALUE", **more}.items():
            monkeypatch.setenv(f"{prefix}_{name.upper()}", value)
        found.append(load_settings().access)
        for name in (key, *more):
            monkeypatch.delenv(f"{prefix}_{name.upper()}")
    for access in found:
        value = getattr(access, field)
        assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == "VALUE"
        assert isinstance(value, SecretStr) == (key in ("user_jwt", "user_seed", "token"))


def test_what_is_given_wins_then_dlq_then_the_environment_then_the_selected_context(
    contexts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(contexts, "chosen", url="nats://chosen", user="chosen", password="p")
    write(contexts, "named", url="nats://named", token="t")
    assert addresses(load_settings().access) == ["nats://127.0.0.1:4222"]
    (contexts.parent / "context.txt").write_text("chosen\n")
    assert addresses(load_settings().access) == addresses(NATSConfig()) == ["nats://chosen"]
    monkeypatch.setenv("NATS_CONTEXT", "named")
    access = load_settings().access
    assert (addresses(access), access.user) == (["nats://named"], None)
    monkeypatch.setenv("NATS_URL", "nats://environment")
    access = NATSConsumerConfig()
    assert (addresses(access), access.token) == (["nats://environment"], SecretStr("t"))
    monkeypatch.setenv("NATS_USER", "alone")  # a login is taken whole
    assert (access := load_settings().access).token is None
    assert access.user == "alone"
    monkeypatch.setenv("DLQ_NATS_URL", "nats://dlq")
    assert addresses(load_settings().access) == ["nats://dlq"]
    assert addresses(load_settings(nats_context="named").access) == ["nats://named"]
    both = load_settings(nats_context="named", nats_url="nats://typed").access
    assert (addresses(both), both.token) == (["nats://typed"], SecretStr("t"))
    assert addresses(NATSConfig(servers=["nats://given"])) == ["nats://given"]


def test_a_selected_context_gives_no_login_to_servers_that_something_else_names(
    contexts: Path,
) -> None:
    write(contexts, "chosen", url="nats://chosen", user="chosen", password="p")
    (contexts.parent / "context.txt").write_text("chosen")
    assert Access(servers=["nats://other"]).user is None
    assert load_settings(nats_url="nats://other").access.user is None


def test_a_login_in_an_address_is_not_mixed_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_CREDS", "/file.creds")
    assert Access(servers=["nats://host"]).user_credentials == "/file.creds"
    assert Access(servers=["nats://user:password@host"]).user_credentials is None


def test_running_servers_are_reached_as_they_are(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://environment")
    monkeypatch.setenv("NATS_CA", "/ca.pem")
    write(contexts, "named", url="nats://named")
    (tmp_path / ".dlq").mkdir()
    (tmp_path / ".dlq" / ENDPOINTS_FILE).write_text('{"nats_url": "nats://dlq:p@running"}')
    settings = load_settings()
    assert addresses(settings.access) == ["nats://dlq:p@running"]
    assert settings.access.ca is None
    assert monitor_config(settings).ca is None
    assert addresses(load_settings(nats_context="named").access) == ["nats://named"]


def test_running_servers_that_want_more_say_so(tmp_path: Path) -> None:
    """The settings of `dlq up` for other servers also hold for commands next to it."""
    given = load_settings(nats_url="tls://other", nats_ca="/ca.pem", nats_token="t")
    (tmp_path / ".dlq").mkdir()
    (tmp_path / ".dlq" / ENDPOINTS_FILE).write_text(json.dumps(nats_settings(given)))
    found = load_settings().access
    assert found == given.access
    assert (addresses(found), found.ca, found.token) == (["tls://other"], "/ca.pem", SecretStr("t"))


def test_a_child_process_sees_the_same(
    contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(contexts, "plant", **EVERYTHING)
    settings = load_settings(nats_context="plant", nats_inbox_prefix="_INBOX_mine")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings().access == settings.access
    assert settings.access.inbox_prefix == "_INBOX_mine"


def test_secrets_are_shown_nowhere(contexts: Path) -> None:
    write(contexts, "c", url="nats://host", user="u", password="hidden")
    access = Access(context="c")
    assert "hidden" not in repr(access)
    assert "hidden" not in access.model_dump_json()
    assert access.password == SecretStr("hidden")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"There is no NATS context c \(.*/c\.json\): there are other; add it with"),
        ("{", "is not valid JSON: create it again"),
        ("[" * 100_000, "is not valid JSON: create it again"),
        ("[]", "is not a JSON object"),
        ('{"url": 7}', "has a url that is not a text"),
        ('{"tls_first": "yes"}', "has a tls_first that is not true or false"),
        (
            '{"socks_proxy": "socks5://p"}',
            "has socks_proxy, and nats-py does not support SOCKS proxies",
        ),
        ('{"nsc": "nsc://o/a/u"}', "has nsc, and nsc is not supported"),
    ],
)
def test_a_missing_or_damaged_context_is_one_sentence(
    content: str | None, words: str, contexts: Path
) -> None:
    write(contexts, "other")
    if content is not None:
        (contexts / "c.json").write_text(content)
    for read in (lambda: Access(context="c"), lambda: load_settings(nats_context="c").access):
        with pytest.raises(SettingsError, match=words) as refused:
            read()
        assert "\n" not in str(refused.value)


def test_a_user_without_a_home_has_no_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with an arbitrary user id."""

    def fail(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", fail)
    assert addresses(NATSConsumerConfig()) == ["nats://localhost:4222"]
    with pytest.raises(SettingsError, match="There is no NATS context plant"):
        Access(context="plant")


@pytest.mark.parametrize("name", ["../c", "a/b", "..", "a\\b"])
def test_a_context_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(SettingsError, match="not a valid name of a NATS context"):
        Access(context=name)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cert": "c"}, "a client certificate needs both cert and key"),
        ({"user_jwt": "j"}, "a user_jwt needs the seed of its key"),
        ({"nkey": "f", "user_seed": "S"}, "nkey and user_seed are both given"),
        ({"user": "u", "token": "t"}, r"several logins \(user and token\)"),
        ({"user_credentials": "f", "nkey": "n"}, r"several logins \(creds and nkey"),
        ({"password": "p"}, "a password but no user"),
        ({"jetstream_domain": "d", "jetstream_api_prefix": "p"}, "give one of them"),
        ({"jetstream_domain": "a.b"}, "jetstream_domain is not a valid"),
        ({"jetstream_api_prefix": "a.*"}, "jetstream_api_prefix is not a valid subject prefix"),
        ({"inbox_prefix": "a b"}, "inbox_prefix is not a valid subject prefix"),
    ],
)
def test_what_makes_no_sense_together_is_one_sentence(given: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Access(**given)


def test_the_command_takes_a_context_and_a_server(contexts: Path) -> None:
    write(contexts, "plant", **EVERYTHING)
    arguments = "nats-permissions", "--role", "drain", "--json", "-s", "nats://x", "--context"
    told = CliRunner().invoke(_command(), [*arguments, "plant"])
    assert "$JS.hub.API.STREAM.NAMES" in json.loads(told.stdout)["publish"]
    refused = CliRunner().invoke(_command(), [*arguments, "other"])
    assert refused.exit_code == 1
    assert json.loads(refused.stderr)["error"].startswith("There is no NATS context other (")


def test_another_nats_gets_no_login_of_the_environment(contexts: Path) -> None:
    write(contexts, "staging", url="nats://staging:4222")
    write(contexts, "plant", url="nats://plant:4222", token="t")
    (contexts.parent / "context.txt").write_text("plant")
    environ = {
        **os.environ,
        "NATS_URL": "nats://plant:4222",
        "NATS_USER": "u",
        "NATS_CONTEXT": "plant",
    }
    for context, server in (("staging", None), (None, "nats://staging:4222")):
        access = access_elsewhere(context, server, environ)
        assert addresses(access) == ["nats://staging:4222"]
        assert (access.user, access.token, access.user_credentials) == (None, None, None)
    with pytest.raises(SettingsError, match="There is no NATS context nowhere"):
        access_elsewhere("nowhere", None, environ)
