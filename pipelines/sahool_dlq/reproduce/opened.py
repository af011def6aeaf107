"""The failures whose events are read: with which a handler is tried, or that are compared."""

from typing import Any, NamedTuple

from psycopg import Connection

from sahool_dlq.errors import TrialError
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.raw import PLACE, Place
from sahool_dlq.stores.postgres.addressees import ADDRESS, FAILED_AT

__all__ = [
    "FailedPlace",
    "FailingConsumer",
    "OpenFailure",
    "consumers_of_handler",
    "failing_consumers",
    "open_failures",
    "open_of_handler",
    "open_of_selection",
]


class OpenFailure(NamedTuple):
    """A failure to try, with known facts."""

    place: Place
    group_id: str
    error_type: str
    service: str
    address: str | None  # `<stream>/<durable>` that handles it
    attempt: int  # of its last call
    max_retries: int
    open_count: int  # failures of its group that the condition takes


def open_of_selection(selection: Selection) -> tuple[str, list[Any]]:
    """The condition for a user's selection; given ids may have any status."""
    condition, values = selection.condition()
    return (condition if selection.failure_ids else f"is_open(f) AND {condition}"), values


def open_of_handler(connection: Connection[Any], handler: str) -> tuple[str, list[Any]]:
    """The condition for all open failures of a function with that name.

    Raises TrialError if functions of several services have that name.
    """
    rows = connection.execute(
        "SELECT DISTINCT service(f) FROM failed_events f WHERE is_open(f) AND f.handler = %s"
        " ORDER BY 1 LIMIT 3",
        [handler],
    ).fetchall()
    services = [service for (service,) in rows]
    if len(services) > 1:
        raise TrialError(
            f"A handler {handler} fails in {' and in '.join(services)}: choose one with --service."
        )
    return "is_open(f) AND f.handler = %s", [handler]


def consumers_of_handler(connection: Connection[Any], handler: str) -> list[str]:
    """The consumers with a failure, open or not, in a function with that name.

    None if functions of several services have that name.
    """
    rows = connection.execute(
        f"SELECT DISTINCT service(f), {ADDRESS} FROM failed_events f"  # noqa: S608  (our own names, bound values)
        f" WHERE f.handler = %s AND {ADDRESS} IS NOT NULL",
        [handler],
    ).fetchall()
    is_one = len({service for service, _ in rows}) == 1
    return sorted({address for _, address in rows}) if is_one else []


def open_failures(
    connection: Connection[Any], condition: tuple[str, list[Any]], of_each: int
) -> list[OpenFailure]:
    """The oldest `of_each` of each group."""
    sql, values = condition
    rows = connection.execute(
        f"SELECT * FROM (SELECT {PLACE}, coalesce(f.group_id, ''), f.error_type, service(f),"  # noqa: S608  (our own names, bound values)
        f" {ADDRESS}, f.retry_count, f.max_retries, count(*) OVER (PARTITION BY f.group_id),"
        " row_number() OVER (PARTITION BY f.group_id ORDER BY f.dlq_timestamp, f.id) AS nth"
        f" FROM failed_events f WHERE f.status <> 'superseded' AND {sql}) AS each_group"
        " WHERE nth <= %s ORDER BY nth",
        [*values, of_each],
    ).fetchall()
    width = len(Place._fields)
    found = [OpenFailure(Place(*row[:width]), *row[width:-1]) for row in rows]
    return sorted(found, key=lambda each: (-each.open_count, each.group_id))


class FailedPlace(NamedTuple):
    """A failure whose event is read, and the version of its consumer."""

    place: Place
    version: str | None


class FailingConsumer(NamedTuple):
    """The consumer `<stream>/<durable>` that failed, and some of its failures."""

    address: str
    failures: int  # that the selection has
    places: tuple[FailedPlace, ...]


def failing_consumers(
    connection: Connection[Any], selection: Selection, seed: int
) -> tuple[list[FailingConsumer], int]:
    """The consumers of a selection, open or not, those with most failures first.

    Of each at most `selection.limit` failures at random, but always the same with the same seed;
    redrives that failed again are left out. Also the number of failures of which the consumer is
    unknown. Raises as `Selection.condition` does.
    """
    sql, values = selection.condition()
    rows = connection.execute(
        f"SELECT * FROM (SELECT {PLACE}, f.consumer_version, {FAILED_AT} AS address,"  # noqa: S608  (our own names, bound values)
        f" count(*) OVER (PARTITION BY {FAILED_AT}),"
        f" row_number() OVER (PARTITION BY {FAILED_AT} ORDER BY md5(f.id::text || %s)) AS nth"
        f" FROM failed_events f WHERE f.root_failure_id IS NULL AND {sql}) AS each_consumer"
        " WHERE nth <= %s ORDER BY address, nth",
        [str(seed), *values, selection.limit],
    ).fetchall()
    width = len(Place._fields)
    found: dict[str, FailingConsumer] = {}
    unknown = 0
    for *place, version, address, count, _ in rows:
        if address is None:
            unknown = count
            continue
        before = found.get(address, FailingConsumer(address, count, ()))
        each = FailedPlace(Place(*place[:width]), version)
        found[address] = before._replace(places=(*before.places, each))
    return sorted(found.values(), key=lambda each: (-each.failures, each.address)), unknown
