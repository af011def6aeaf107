"""A tenant's rows in PostgreSQL: counted, and deleted in one transaction with the audit row."""

import json
import re
from collections.abc import Mapping
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from sahool_dlq.stores.postgres.audit import audit

__all__ = ["count_rows", "delete_rows"]

_MARK = "[erased]"
_GONE = """
CREATE TEMP TABLE gone ON COMMIT DROP AS
SELECT f.id FROM failed_events f WHERE f.tenant_id = left(%(tenant)s, 255) OR EXISTS (
    SELECT FROM erased_messages e WHERE e.life = regexp_replace(f.epoch, '#[0-9]+$', '')
      AND e.dlq_sequence = f.dlq_sequence AND e.published_at = f.published_at)
"""
_COUNTS = """
SELECT
    (SELECT coalesce(jsonb_object_agg(status, n), '{}') FROM (
        SELECT status, count(*) AS n FROM failed_events JOIN gone USING (id) GROUP BY status
    ) AS s) AS failures,
    (SELECT count(*) FROM failed_payloads JOIN gone ON id = failure_id) AS payloads,
    (SELECT count(*) FROM redrives JOIN gone ON gone.id = failure_id) AS redrives,
    (SELECT count(DISTINCT batch_id) FROM redrives r JOIN gone ON gone.id = failure_id
        WHERE NOT EXISTS (SELECT FROM redrives o WHERE o.batch_id = r.batch_id
            AND o.failure_id NOT IN (SELECT id FROM gone))) AS batches,
    (SELECT count(*) FROM told) AS alert_messages,
    (SELECT count(*) FROM audit_log WHERE strpos(detail::text, %(json)s) > 0
        OR strpos(detail::text, %(literal)s) > 0 OR reason ~ %(word)s
    ) AS audit_mentions
"""
# A message about an alert names its sample in a command, by id, beside what the error said; or it
# is of a rule with a threshold of the tenant's own.
_TOLD = """
CREATE TEMP TABLE told ON COMMIT DROP AS
SELECT id FROM alert_messages m WHERE title ~ %(scope)s OR body ~ %(scope)s OR EXISTS (
    SELECT FROM regexp_matches(body, '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'g') AS named
    JOIN gone ON gone.id = named[1]::uuid)
"""
# Raw payloads go with the row of failed_events.
_DELETIONS = (
    "UPDATE alerts SET sample_id = NULL WHERE sample_id IN (SELECT id FROM gone)",
    """UPDATE alert_messages SET body = %(mark)s, title = replace(title, %(tenant)s, %(mark)s)
        WHERE id IN (SELECT id FROM told)""",
    """UPDATE alerts SET scope = replace(scope, %(tenant)s, %(mark)s)
        WHERE state = 'resolved' AND scope ~ %(scope)s""",
    """CREATE TEMP TABLE emptied ON COMMIT DROP AS
        SELECT DISTINCT batch_id FROM redrives WHERE failure_id IN (SELECT id FROM gone)""",
    "DELETE FROM redrives WHERE failure_id IN (SELECT id FROM gone)",
    """DELETE FROM redrive_batches b
        WHERE id IN (SELECT batch_id FROM emptied) AND ended_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM redrives r WHERE r.batch_id = b.id)""",
    """UPDATE redrive_batches SET selection = selection - 'where' - 'tenant_id'
            || jsonb_build_object('tenant_id', %(mark)s::text)
        WHERE selection ->> 'tenant_id' = %(tenant)s
        OR strpos(selection ->> 'where', %(literal)s) > 0""",
    """UPDATE redrive_batches SET patch = NULL
        WHERE ended_at IS NOT NULL AND strpos(patch::text, %(json)s) > 0""",
    """DELETE FROM unfounded_outcomes u
        WHERE failure_id IN (SELECT id FROM gone) OR letter_id IN (SELECT id FROM gone)
        OR EXISTS (SELECT FROM erased_messages e
            WHERE e.life = regexp_replace(u.epoch, '#[0-9]+$', '')
            AND e.dlq_sequence = u.dlq_sequence AND e.published_at = u.published_at)""",
    "DELETE FROM failed_events WHERE id IN (SELECT id FROM gone)",
)


def count_rows(connection: Connection[Any], tenant: str) -> dict[str, Any]:
    """The number of rows of each kind with a tenant's failures; `audit_mentions` stay."""
    with connection.transaction():
        return _counted(connection, tenant)


def delete_rows(
    connection: Connection[Any],
    tenant: str,
    *,
    actor: str,
    reason: str,
    detail: Mapping[str, Any],
) -> dict[str, Any]:
    """Delete rows that belong to a tenant or have a tombstone, and write the audit; returns the
    counts.
    """
    with connection.transaction():
        counts = _counted(connection, tenant)
        for statement in _DELETIONS:
            connection.execute(statement, {**_values(tenant), "mark": _MARK})
        audit(connection, "erase", actor=actor, reason=reason, detail={**detail, **counts})
    return counts


def _counted(connection: Connection[Any], tenant: str) -> dict[str, Any]:
    connection.execute(_GONE, _values(tenant))
    connection.execute(_TOLD, _values(tenant))
    row = connection.cursor(row_factory=dict_row).execute(_COUNTS, _values(tenant)).fetchone()
    assert row is not None
    return row


def _values(tenant: str) -> dict[str, str]:
    """The forms of the id: plain, in JSON, in a condition, in a reason and in an alert."""
    return {
        "tenant": tenant,
        "json": json.dumps(tenant, ensure_ascii=False),
        "literal": "'{}'".format(tenant.replace("'", "''")),
        "word": rf"(^|\W){re.escape(tenant)}(\W|$)",
        "scope": rf"(?n)\mtenant {re.escape(tenant)}(\)|: |$)",  # that of acme-2 is another
    }
