"""`dlq serve` refuses what would not be safe; its description needs no network."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.routing import APIRoute

from sahool_dlq.cli import _command
from sahool_dlq.serving.app import make_app
from sahool_dlq.serving.tokens import Tokens
from sahool_dlq.settings import Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "dlq.example"])
def test_tokens_never_go_over_a_network_in_clear_text(host: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(_command(), ["serve", "--host", host, "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert "clear text: give --tls-cert" in done.stderr


def test_a_certificate_that_cannot_be_used_is_said_before_anything_is_served(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    for name in ("a.pem", "none.pem"):
        words = ("--tls-cert", str(tmp_path / name), "--tls-key", str(tmp_path / name))
        done = CliRunner().invoke(_command(), ["serve", *words, "--home", str(tmp_path)])
        assert done.exit_code == 1
        assert "cannot be used" in done.stderr


def test_a_token_is_printed_once_and_then_listed(tmp_path: Path) -> None:
    def dlq(*words: str) -> str:
        done = CliRunner().invoke(_command(), ["tokens", *words, "--home", str(tmp_path)])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    secret = dlq("add", "ana", "--role", "redriver").strip()
    holder = Tokens(Settings(home=tmp_path)).holder(secret)
    assert holder is not None
    assert holder.name == "ana"
    listed = dlq()
    assert "ana" in listed
    assert secret not in listed
    assert "refused from now on" in dlq("remove", "ana")


def test_every_request_but_the_health_names_a_token_and_says_what_it_does() -> None:
    app = make_app(Settings())
    described = app.openapi()
    operations = {
        (method, path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) > 18
    open_ones = [place for place, each in operations.items() if not each.get("security")]
    assert open_ones == [("get", "/health")]
    for place, each in operations.items():
        assert each["description"], place
        assert set(each["responses"]) >= {"400", "401", "403", "404", "409", "422", "503"}, place
    for name in ("Redrive", "Replay", "Decisions", "GroupChange", "Selection", "Reason"):
        schema = described["components"]["schemas"][name]
        [example] = schema["examples"]  # else the page fills in every field with some value
        assert set(schema.get("required", ())) <= set(example) < set(schema["properties"]) | {""}
    hidden = {
        route.path
        for route in app.routes
        if isinstance(route, APIRoute) and not route.include_in_schema
    }
    assert hidden == {"/docs", "/docs/oauth2-redirect"}
    for name, schema in described["components"]["schemas"].items():
        if name in ("Group", "Failure", "Incident"):
            assert all(field["description"] for field in schema["properties"].values()), name
    assert not re.search(r"https?://(?!sahool|json-schema)", str(described))
