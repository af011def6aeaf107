"""The end of mutes: written to the log, so that a group that escalated stays unmuted afterwards."""

import logging
from datetime import datetime
from typing import Any

import nats.errors
from nats.js.errors import APIError
from psycopg import Connection, Rollback

from sahool_dlq.alerts.states import ACTOR
from sahool_dlq.connections import open_nats
from sahool_dlq.deadletter.envelope.encode import encode_group_event
from sahool_dlq.errors import DLQError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import audit
from sahool_dlq.stores.postgres.group_care import ended_mutes

__all__ = ["end_mutes"]

logger = logging.getLogger(__name__)


async def end_mutes(settings: Settings, connection: Connection[Any], now: datetime) -> int:
    """Publish which mutes are over, each once, and add it to the audit; returns how many.

    Their alerts fire already. Without NATS it is done at the next run.
    """
    over = ended_mutes(connection)
    if not over:
        return 0
    told = 0
    try:
        async with open_nats(settings, "dlq alerts") as client:
            js = client.jetstream()
            for group_id, muted_at, why in over:
                since = {"muted_at": muted_at.isoformat()}
                body = encode_group_event(
                    group_id=group_id, at=now, actor=ACTOR, reason=why, changes=since
                )
                with connection.transaction():
                    audit(
                        connection,
                        "group.unmuted",
                        actor=ACTOR,
                        reason=why,
                        detail={"group": group_id, **since},
                    )
                    ack = await js.publish(
                        settings.subjects.triage("unmuted"),
                        body,
                        headers={"Nats-Msg-Id": f"{group_id}-{since['muted_at']}-unmuted"},
                        timeout=5,
                    )
                    if ack.duplicate:  # not drained yet
                        raise Rollback
                    told += 1
    except (DLQError, nats.errors.Error, APIError) as error:
        logger.warning("The end of mutes is written at the next run: %s", error)
    return told
