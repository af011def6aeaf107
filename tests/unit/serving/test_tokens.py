"""Tokens: stored as hashes, named, removed, and refused where the file is not safe."""

import json
import stat
from pathlib import Path

import pytest

from sahool_dlq.errors import SettingsError, UnknownNameError
from sahool_dlq.serving.tokens import RIGHTS, Tokens
from sahool_dlq.settings import Settings


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(Settings(home=tmp_path / "home"))


def test_a_token_is_known_by_its_secret_which_no_file_has(tokens: Tokens) -> None:
    secret = tokens.add("ana", ["redriver", "auditor", "redriver"])
    other = tokens.add("bot", ["planner"])
    found = tokens.holder(secret)
    assert found is not None
    assert (found.name, found.roles) == ("ana", ("redriver", "auditor"))
    assert found.rights == {"read", "plan", "act", "audit"}
    assert "sha256" not in found.as_dict()
    assert secret not in tokens.file.read_text()
    assert stat.S_IMODE(tokens.file.stat().st_mode) == 0o600
    assert tokens.holder(other[:-1]) is None
    assert tokens.holder("") is None


def test_a_removed_token_is_refused_at_once(tokens: Tokens) -> None:
    secret = tokens.add("ana", ["analyst"])
    same_file = Tokens(Settings(tokens_file=tokens.file))
    same_file.remove("ana")
    assert tokens.holder(secret) is None
    with pytest.raises(UnknownNameError, match="no token 'ana'"):
        tokens.remove("ana")


def test_a_planner_may_neither_act_nor_read_the_audit() -> None:
    assert RIGHTS["planner"] == {"read", "plan"}
    assert "read" not in RIGHTS["auditor"]


@pytest.mark.parametrize(
    ("name", "roles", "why"),
    [
        ("ana", ["analyst"], "already"),
        ("", ["analyst"], "not a name"),
        ("a\nb", ["analyst"], "not a name"),
        ("ana@example.com", ["analyst"], "not a name"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", ["analyst"], "looks like a secret"),
        ("bo", [], "--role"),
    ],
)
def test_what_makes_no_token_is_said(tokens: Tokens, name: str, roles: list[str], why: str) -> None:
    tokens.add("ana", ["analyst"])
    with pytest.raises(SettingsError, match=why):
        tokens.add(name, roles)


def test_a_file_that_others_may_change_gives_nobody_rights(tokens: Tokens) -> None:
    secret = tokens.add("ana", ["analyst"])
    tokens.file.chmod(0o660)
    with pytest.raises(SettingsError, match="chmod go-w"):
        tokens.holder(secret)


@pytest.mark.parametrize(
    "change",
    [
        {"roles": ["root"]},
        {"roles": 7},
        {"sha256": "abc"},
        {"name": "a b"},
        {"extra": 1},
    ],
)
def test_a_file_that_is_not_valid_is_an_error(tokens: Tokens, change: dict[str, object]) -> None:
    secret = tokens.add("ana", ["analyst"])
    [stored] = json.loads(tokens.file.read_text())
    for text in ("{", "[7]", json.dumps([stored | change])):
        tokens.file.write_text(text)
        with pytest.raises(SettingsError, match="not a file of"):
            tokens.holder(secret)
