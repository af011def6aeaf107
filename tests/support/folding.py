"""A log folded as the drain folds it: dead letters as a frame, in batches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.cases import Case
from sahool_dlq.deadletter.claims import Claim
from sahool_dlq.deadletter.record import DeadLetter
from sahool_dlq.deadletter.rows import LETTER_SCHEMA, frame_of
from sahool_dlq.stores.postgres.fold import CASE_COLUMNS, Fold, unfolded


def fold_all(
    messages: Sequence[CaseEvent | DeadLetter],
    known: Mapping[str, Case],
    early: Sequence[Claim] = (),
) -> Fold:
    """The fold of these messages in this order, whatever their sequences."""
    placed = [replace(m, dlq_sequence=n) for n, m in enumerate(messages, 1)]
    letters = [message for message in placed if isinstance(message, DeadLetter)]
    events = [message for message in placed if isinstance(message, CaseEvent)]
    return Fold(frame_of(letters, LETTER_SCHEMA), events, dict(known), early)


def cases_of(fold: Fold) -> dict[str, Case]:
    """The rows that are new, as the next batch finds them."""
    columns = fold.new.select("failure_id", *CASE_COLUMNS)
    return {row[0]: unfolded(row) for row in columns.iter_rows()}
