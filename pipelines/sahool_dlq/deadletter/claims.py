"""Reports about a redrive without its `published` in the log: stored, but they change no case."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.ids import consumer_address, is_uuid
from sahool_dlq.deadletter.record import DeadLetter

__all__ = ["Claim", "claim_of"]

Why = Literal["unannounced", "not_addressee"]
"""Why it does not count: no such redrive is in the log, or not yet; or another consumer was
addressed.
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """An outcome, or a decision about one, with the data to count it later."""

    epoch: str
    dlq_sequence: int
    published_at: datetime
    kind: str  # as of the message; redrive.failed_again of a dead letter
    failure_id: str  # the root, as it says
    redrive_id: str
    attempt: int
    consumer: str | None  # that speaks
    at: datetime
    reason: str | None  # of a dead letter its error_type
    letter_id: str | None = None  # failure id of the dead letter
    why: Why = "unannounced"

    def as_event(self) -> CaseEvent:
        """The original case event; not for a dead letter."""
        return CaseEvent(
            epoch=self.epoch,
            dlq_sequence=self.dlq_sequence,
            published_at=self.published_at,
            subject="",
            kind=self.kind,
            failure_id=self.failure_id,
            redrive_id=self.redrive_id,
            attempt=self.attempt,
            consumer=self.consumer,
            at=self.at,
            reason=self.reason,
            body="{}",
        )


def claim_of(message: CaseEvent | DeadLetter, why: Why = "unannounced") -> Claim | None:
    """The claim in a message; None if it names no redrive of a failure."""
    if isinstance(message, DeadLetter):
        failure, attempt = message.root_failure_id, message.redrive_attempt
    else:
        failure, attempt = message.failure_id, message.attempt
    redrive = message.redrive_id
    if failure is None or redrive is None or attempt is None:
        return None
    if not is_uuid(failure) or not is_uuid(redrive):  # a decision of an older version
        return None
    place = message.epoch, message.dlq_sequence, message.published_at
    said = failure, redrive, attempt
    if isinstance(message, DeadLetter):
        return Claim(
            *place,
            "redrive.failed_again",
            *said,
            consumer_address(message.original_stream, message.consumer_name),
            message.published_at,
            message.error_type,
            message.failure_id,
            why,
        )
    return Claim(
        *place, message.kind, *said, message.consumer, message.at, message.reason, None, why
    )
