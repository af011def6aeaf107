"""Addresses of servers: what is read from them, and what is never shown."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahool_dlq.errors import SettingsError
from sahool_dlq.events import DLQConsumerConfig, NATSConfig, NATSConsumerConfig
from sahool_dlq.jetstream.address import read_address, shown, split_servers

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
RAW = TEXTS.filter(lambda text: not re.search("%[0-9A-Fa-f]{2}", text))


@given(TEXTS, TEXTS)
def test_any_login_that_is_percent_encoded_is_read_as_it_was(user: str, password: str) -> None:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    for address in (f"nats://{login}@host:4222", f"{login}@host", f"ws://{login}@host/way?x=1"):
        [server] = split_servers(address)  # also where a comma was encoded
        read = read_address(server)
        assert (read.user, read.password, read.token) == (user, password, None)
    assert read_address(f"{quote(user, safe='')}@host").token == user


@given(RAW.filter(lambda text: ":" not in text), RAW)
def test_any_login_without_an_escape_may_stand_as_it_is(user: str, password: str) -> None:
    read = read_address(f"nats://{user}:{password}@host:4222")
    assert (read.user, read.password, read.url) == (user, password, "nats://host:4222")
    assert read_address(f"nats://{user}@host").token == user


@given(TEXTS.filter(lambda text: len(text) > 5 and "host" not in text))
def test_nothing_that_is_printed_holds_a_password_or_token(secret: str) -> None:
    for secret_as_given in (quote(secret, safe=""), secret):
        for login in (f"user:{secret_as_given}", quote(secret, safe="")):
            server = f"nats://{login}@host:4222"
            read = read_address(server)
            printed = [str(read), repr(read), read.url, shown([server])]
            for config in (NATSConfig, NATSConsumerConfig, DLQConsumerConfig):
                settings = config(servers=[server])
                printed += [repr(settings), str(settings.model_dump()), settings.model_dump_json()]
                with pytest.raises(ValueError, match="servers") as refused:
                    config.model_validate({"servers": server})
                printed.append(str(refused.value))
            assert not [text for text in printed if secret_as_given in text]


@given(TEXTS.filter(lambda text: len(text) > 5))
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    for address in (f"nats://user:{text}@", f"http://user:{text}@host", f"nats://u:{text}@h:x"):
        with pytest.raises(SettingsError) as refused:
            read_address(address)
        assert str(refused.value).startswith("The NATS address is not valid: write nats://user:")
        assert text not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("localhost", "nats://localhost:4222", {}),
        (" localhost:4333\n", "nats://localhost:4333", {}),
        ("tls://nats.example/", "tls://nats.example:4222", {}),
        ("NATS://[::1]:4333", "nats://[::1]:4333", {}),
        ("nats://u:@[::1]", "nats://[::1]:4222", {"user": "u", "password": ""}),
        ("wss://u:p@h:443/nats?x=1#y", "wss://h:443/nats?x=1#y", {"user": "u", "password": "p"}),
        ("nats://u:a/b%c@h", "nats://h:4222", {"user": "u", "password": "a/b%c"}),
        ("nats://u:a%2Fb%25c@h", "nats://h:4222", {"user": "u", "password": "a/b%c"}),
        ("nats://u:p://x@y@h:1", "nats://h:1", {"user": "u", "password": "p://x@y"}),
        ("nats://u%3Av:p:q@h", "nats://h:4222", {"user": "u:v", "password": "p:q"}),
        ("u:100%@h", "nats://h:4222", {"user": "u", "password": "100%"}),
        ("nats://u:50%ff@h", "nats://h:4222", {"user": "u", "password": "50%ff"}),
        ("nats://t%2Fk@h", "nats://h:4222", {"token": "t/k"}),
    ],
)
def test_what_an_address_says(text: str, url: str, login: dict[str, str]) -> None:
    assert (read_address(text).url, read_address(text).login) == (url, login)


@pytest.mark.parametrize(
    "text", ["", "nats://", "nats://:4222", "http://h", "h:x", "h:99999", "::1:4222", "a b", "u@"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SettingsError, match="write nats://user:password@host:4222"):
        read_address(text)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nats://a:1, nats://b:2,", ["nats://a:1", "nats://b:2"]),
        ("u:p@a,b", ["u:p@a", "b"]),
        ("nats://u:p@a,nats://v:q%2Cr@b", ["nats://u:p@a", "nats://v:q%2Cr@b"]),
    ],
)
def test_a_setting_separates_addresses_by_commas(text: str, servers: list[str]) -> None:
    assert [each.get_secret_value() for each in split_servers(text)] == servers


@pytest.mark.parametrize("text", ["nats://u:12,34@h", "nats://u:a,b,c@h,nats://i", "u:p@a,v:q@b"])
def test_a_comma_that_may_belong_to_a_password_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"write each as nats://.* and %2C for a comma"):
        split_servers(text)
