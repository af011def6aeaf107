"""Whose answers come where."""

import base64
import json
from pathlib import Path

import pytest

from pipelines.jetstream.address import read_address
from pipelines.jetstream.permissions import inbox_prefix


@pytest.mark.parametrize(
    ("servers", "prefix"),
    [
        (["nats://drain:secret@host:4222"], "_INBOX.drain"),
        (["nats://host:4222", "drain:secret@other:4222"], "_INBOX.drain"),
        (["nats://a.b*c:secret@host"], "_INBOX.a_b_c"),
        (["nats://ndvi%2Dservice:secret@host"], "_INBOX.ndvi-service"),
        (["nats://drain:a/b?c#d@e@host"], "_INBOX.drain"),
        (["nats://host:4222"], "_INBOX"),
        (["nats://t0ken@host:4222"], "_INBOX"),  # a token is secret
    ],
)
def test_answers_come_under_the_user_of_the_address(servers: list[str], prefix: str) -> None:
    assert inbox_prefix([read_address(each) for each in servers], None) == prefix


@pytest.mark.parametrize(
    ("claims", "prefix"),
    [(b'{"name": "drain", "sub": "U"}', "_INBOX.drain"), (b"{}", "_INBOX"), (b"\xff", "_INBOX")],
)
def test_a_credentials_file_names_the_user_too(tmp_path: Path, claims: bytes, prefix: str) -> None:
    parts = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", claims, b"s")]
    file = tmp_path / "user.creds"
    file.write_text(f"-----BEGIN NATS USER JWT-----\n{'.'.join(parts)}\n------END NATS USER JWT---")
    assert inbox_prefix([read_address("nats://host")], file) == prefix
    file.write_text(json.dumps("nothing"))
    assert inbox_prefix([read_address("nats://host")], file) == "_INBOX"
