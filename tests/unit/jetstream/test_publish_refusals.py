"""Which errors of a publish are final, and which are temporary."""

import nats.errors
import pytest
from nats.js.errors import APIError

from sahool_dlq.jetstream.refusals import is_for_now


@pytest.mark.parametrize(
    ("code", "err_code", "is_passing"),
    [
        (409, 10158, True),  # its id is being stored
        (503, 10077, True),  # the stream is full
        (503, 10008, True),  # no leader
        (500, 10047, True),  # no space
        (429, 10167, True),  # too many requests
        (400, 10071, True),  # something else was stored meanwhile
        (400, 10054, False),  # too large for the stream
        (400, 10060, False),  # another stream was expected
        (400, 10109, False),  # sealed
        (400, 10166, False),  # a TTL, which the stream does not take
    ],
)
def test_the_servers_answers(code: int, err_code: int, is_passing: bool) -> None:
    assert is_for_now(APIError(code=code, err_code=err_code)) is is_passing


@pytest.mark.parametrize(
    ("error", "is_passing"),
    [
        (nats.errors.TimeoutError(), True),
        (nats.errors.ConnectionClosedError(), True),
        (nats.errors.ConnectionReconnectingError(), True),
        (nats.errors.StaleConnectionError(), True),
        (nats.errors.OutboundBufferLimitError(), True),
        (nats.errors.NoServersError(), True),
        (nats.errors.MaxPayloadError(), False),
        (nats.errors.BadSubjectError(), False),
        (nats.errors.BadHeaderError("x"), False),
    ],
)
def test_the_clients_errors(error: Exception, is_passing: bool) -> None:
    assert is_for_now(error) is is_passing
