"""The sentences for errors of PostgreSQL, poolers and psycopg, given their exact texts."""

import psycopg
import pytest
from psycopg import errors

from sahool_dlq.errors import DLQError, SchemaError, ServerUnavailableError
from sahool_dlq.stores.postgres.refusals import speaking_plainly

DSN = "postgresql://ana:secret@db.example:5432/dlq"
FAILED = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '

TEXTS = {
    FAILED + "FATAL:  sorry, too many clients already": "has no connection left (sorry, too many",
    FAILED + "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER"
    " attribute": "has no connection left (remaining",
    FAILED + "FATAL:  no more connections allowed (max_client_conn)": "has no connection left",
    FAILED + "FATAL:  the database system is starting up": "accepts no sessions yet (the database",
    FAILED + "session is read-only": "is read-only (",
    FAILED + 'FATAL:  database "dlq" does not exist': "there is no database dlq: create it",
    FAILED + "FATAL:  no such database: dlq": "there is no database dlq: create it",
    FAILED + 'FATAL:  password authentication failed for user "ana"': "refuses the login (password",
    FAILED + "Connection refused\n\tIs the server running?": "does not answer (connection failed",
    FAILED.replace("10.0.0.1", "db-tls.example") + "Connection refused": "does not answer (conn",
    FAILED + "SSL error: certificate verify failed": "cannot be reached with the requested TLS",
    "consuming input failed: server closed the connection unexpectedly": "ended the session (con",
    "terminating connection due to idle-session timeout": "SET idle_session_timeout`",
    "consuming input failed: FATAL:  query_wait_timeout": "refused (query_wait_timeout): docs/oper",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_has_no_code_is_reported_by_its_text(text: str) -> None:
    with pytest.raises(ServerUnavailableError) as raised, speaking_plainly(DSN):
        raise psycopg.OperationalError(text)
    assert TEXTS[text] in str(raised.value)
    assert "db.example:5432/dlq" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert ("start it" in str(raised.value)) == ("does not answer" in TEXTS[text])


CODES = {
    "25006": "is read-only (x): name the primary",
    "25P03": "SET idle_in_transaction_session_timeout`",
    "25P04": "SET transaction_timeout`",
    "40001": "rolled back a transaction (x)",
    "40P01": "rolled back a transaction (x)",
    "53100": "is full",
    "55P03": "SET lock_timeout`",
    "57014": "SET statement_timeout`",
    "57P01": "ended the session (x)",
    "57P03": "accepts no sessions yet (x)",
    "57P05": "SET idle_session_timeout`",
}


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_one_sentence_and_the_next_run_continues(code: str) -> None:
    with pytest.raises(ServerUnavailableError) as raised, speaking_plainly(DSN):
        raise errors.lookup(code)("x")
    assert CODES[code] in str(raised.value)
    assert str(raised.value).endswith("the next run continues.")


def test_what_no_run_can_help_is_no_passing_trouble() -> None:
    for error, kind in (
        (errors.UndefinedTable("x"), SchemaError),
        (errors.SyntaxError("x"), DLQError),
    ):
        with pytest.raises(kind) as raised, speaking_plainly(DSN):
            raise error
        assert not isinstance(raised.value, ServerUnavailableError)


def test_text_that_is_not_utf_8_is_a_sentence() -> None:
    with pytest.raises(DLQError, match="contains text that is not UTF-8"), speaking_plainly(DSN):
        b"\xff".decode()
