"""Credentials files: how we read them, and one error for each kind of damage."""

import base64
import binascii
import json
from pathlib import Path

import pytest

from sahool_dlq.errors import SettingsError
from sahool_dlq.jetstream.credentials import read_credentials


def jwt(claims: object = None) -> str:
    parts = (b"{}", json.dumps(claims or {"name": "drain"}).encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def seed(prefix: bytes = b"\x95\x00", size: int = 32) -> str:
    raw = prefix + bytes(range(size))
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw).decode().rstrip("=")


def text(token: str = "", key: str = "") -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{token or jwt()}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key or seed()}\n------END USER NKEY SEED------\n"
    )


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_file_is_read_and_shown_without_its_secrets(tmp_path: Path, ends: str) -> None:
    file = tmp_path / "drain.creds"
    file.write_text(text(), newline=ends)
    read = read_credentials(file)
    assert (read.jwt, read.seed, read.user) == (jwt(), seed(), "drain")
    assert seed() not in repr(read)
    assert jwt() not in repr(read)


WRONG_SUM = seed()[:-4] + "ABCD"
DAMAGES = [
    ("", "has no user's JWT"),
    ("-----BEGIN NATS USER JWT-----", "has no user's JWT"),
    (text()[: text().index("-----BEGIN USER")], "has no seed of a user's key"),
    (text()[: text().index(seed())], "has no seed of a user's key"),
    (text(token="one.two"), "has a JWT that cannot be decoded"),
    (text(token=jwt()[:-12]), "has a JWT that cannot be decoded"),
    (text(token="*" + jwt()), "has a JWT that cannot be decoded"),
    (text(token=jwt(["a"])), "has a JWT that cannot be decoded"),
    (text(key=seed()[:-1] + "!"), "has a seed that is not valid base32"),
    (text(key=seed().replace("A", "a")), "has a seed that is not valid base32"),
    (text(key=seed()[:20]), "has a seed of the wrong length"),
    (text(key=seed(size=30)), "has a seed of the wrong length"),
    (text(key=WRONG_SUM), "has a seed whose checksum is wrong"),
    (text(key=seed(b"\x90\x00")), "has a seed that is not a user's"),  # an account's
    (text(key="------END"), "has a seed that is not a user's"),
]


@pytest.mark.parametrize(("content", "words"), DAMAGES)
def test_each_damage_is_one_sentence_that_quotes_nothing(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "drain.creds"
    file.write_text(content)
    with pytest.raises(SettingsError) as refused:
        read_credentials(file)
    said = str(refused.value)
    assert said.startswith(f"The NATS credentials file {file} {words}: ")
    assert seed()[:10] not in said
    assert "\n" not in said


def test_what_can_not_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"There is no NATS credentials file .*/none: name one"):
        read_credentials(tmp_path / "none")
    with pytest.raises(SettingsError, match="cannot be read \\(Is a directory\\): let this user"):
        read_credentials(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is no text: create the file again"):
        read_credentials(tmp_path / "binary")
