"""The checks of the secured demo: each part had every right that it needs, and has no other."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg

from sahool_dlq.demo.checks import Check
from sahool_dlq.demo.platform import Platform
from sahool_dlq.demo.services import SERVICES
from sahool_dlq.demo.traffic import GATEWAY
from sahool_dlq.errors import NotPermittedError, ServerUnavailableError
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connected

_REFUSAL = re.compile(r".*(?:Violation|permission denied).*")
_ANSWER_SECONDS = 10


async def check_rights(home: Path, platform: Platform) -> list[Check]:
    """Whether the servers refused nothing in the demo, and refuse what no part may do."""
    logs = [(home / name).read_text() for name in ("nats.log", "postgres.log")]
    refusals = [line for log in logs for line in _REFUSAL.findall(log)]
    names = platform.operator.stream_names
    # `dlq migrate` asks whether another account stores dead letters, and a service whether it may
    # read all attempts: it reads its own if not.
    questions = (names.subjects.dead_letter("anybody"), f"MSG.GET.{names.attempts}")
    lacking = [line for line in refusals if not any(f'{each}"' in line for each in questions)]
    permitted, tried = [], 0
    for who, access, subject in _requests(platform):
        tried += 1
        if not await _is_refused(access, subject):
            permitted.append(f"{who}: {subject}")
    for who, dsn, statement in _statements(platform):
        tried += 1
        if not _is_denied(dsn, statement):
            permitted.append(f"{who}: {statement}")
    return [
        Check(
            "every part had the rights that its work needs",
            not lacking,
            "; ".join(lacking[:3]) or f"0 lacking; {len(refusals)} asked for and not needed",
        ),
        Check(
            "what a part may not do is refused",
            not permitted,
            "; ".join(permitted) or f"{tried} of {tried} attempts",
        ),
    ]


def _requests(platform: Platform) -> Iterator[tuple[str, Access, str]]:
    """A part, how it connects, and a subject that it may not publish to."""
    names = platform.operator.stream_names
    read_log = f"$JS.API.STREAM.MSG.GET.{names.dead_letters}"
    decide = names.subjects.triage("discarded")
    for service, other in zip(SERVICES, [*list(SERVICES)[1:], next(iter(SERVICES))], strict=True):
        access = Access(**platform.services[service])
        for subject in (read_log, decide, f"$JS.API.CONSUMER.MSG.NEXT.{names.events}.{other}"):
            yield service, access, subject
    event = f"{names.subjects.prefix}.{SERVICES['ndvi-service']}"
    stranger = {**platform.services[GATEWAY], "ca": None}
    yield GATEWAY, Access(**platform.services[GATEWAY]), read_log
    yield "a client that does not know the CA", Access(**stranger), event
    yield "operator", platform.operator.access, event
    yield "worker", platform.worker.access, f"$JS.API.STREAM.DELETE.{names.dead_letters}"
    yield "reader", platform.reader.access, decide
    yield "observer", platform.observer.access, decide


def _statements(platform: Platform) -> Iterator[tuple[str, str, str]]:
    """A part, its connection string, and a statement that it may not run."""
    worker, reader, observer, owner = (
        each.postgres_dsn.get_secret_value()
        for each in (platform.worker, platform.reader, platform.observer, platform.operator)
    )
    yield "worker", worker, "DELETE FROM dlq.audit_log"
    yield "worker", worker, "CREATE TABLE dlq.planted ()"
    yield "reader", reader, "UPDATE dlq.failed_events SET status = 'resolved'"
    yield "observer", observer, "TABLE dlq.failed_payloads"
    yield "billing-service", platform.farm_dsn, "TABLE invoices"
    for name, dsn, other in (
        ("owner", owner, platform.prefect_dsn),
        ("billing-service", platform.farm_dsn, owner),
    ):
        login, database = dsn.rpartition("/")[0], other.rpartition("/")[2]
        yield f"{name} in the database {database}", f"{login}/{database}", "SELECT"


async def _is_refused(access: Access, subject: str) -> bool:
    try:
        async with connected(access, "dlq demo") as client:
            await client.request(subject, b"{}", timeout=_ANSWER_SECONDS)
    except NotPermittedError:
        return True
    except ServerUnavailableError as error:
        return "certificate of an unknown authority" in str(error)
    return False


def _is_denied(dsn: str, statement: str) -> bool:
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    except psycopg.OperationalError as error:  # refused before the session began: without a code
        return "permission denied for database" in str(error)
    return False
