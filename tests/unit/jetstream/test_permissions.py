"""On which subject each user gets its answers."""

import pytest

from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.address import read_address
from sahool_dlq.jetstream.login import Login, inbox_prefix, login_of


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
    access = Access(servers=servers)
    login = login_of(access, [read_address(each) for each in servers])
    assert inbox_prefix(access, login) == prefix


def test_a_credentials_file_names_the_user_too() -> None:
    for user, prefix in (("drain", "_INBOX.drain"), ("a.b", "_INBOX.a_b"), (None, "_INBOX")):
        login = Login(user, {}, None, lambda: "")
        assert inbox_prefix(Access(servers=["nats://host"]), login) == prefix
