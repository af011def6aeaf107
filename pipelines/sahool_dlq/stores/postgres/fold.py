"""Applies a batch's messages, in log order, to their cases.

Most dead letters open a case that nothing else in the batch is about: those stay columns, with the
defaults of a new case. Only cases with a redrive, an event or a repeat become a `Case`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.cases import (
    Case,
    apply_dead_letter,
    apply_event,
    apply_failed_again,
    apply_repeat,
    case_of,
    is_answer,
    is_claim,
    is_failed_replay,
    is_founded,
)
from sahool_dlq.deadletter.claims import Claim, claim_of
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.record import FIELDS, DeadLetter
from sahool_dlq.deadletter.replays import ReplayedEvent, replayed_event
from sahool_dlq.stores.postgres.failed_rows import FOLDED_SCHEMA

__all__ = ["CASE_COLUMNS", "Fold", "folded", "ids_told_of", "unfolded"]

CASE_COLUMNS = ("original_stream", "consumer_name", "first_attempt_at", *FOLDED_SCHEMA)
"""The columns of a case besides its id; those of `FOLDED_SCHEMA` are fields of `Case`."""


def ids_told_of(letters: pl.DataFrame, events: Sequence[CaseEvent]) -> set[str]:
    """The failures of a batch's redrives and events."""
    roots = letters["root_failure_id"].drop_nulls()
    return {*roots, *(event.failure_id for event in events if event.failure_id)}


class Fold:
    """The changes of a batch, given the stored cases that it is about."""

    def __init__(
        self,
        letters: pl.DataFrame,
        events: Sequence[CaseEvent],
        known: dict[str, Case],
        early: Sequence[Claim] = (),
    ) -> None:
        """`early` are earlier stored reports about redrives that the batch announces."""
        self._known = known
        self._waiting = list(early)
        self.claims: list[Claim] = []
        """Reports about a redrive that is not in the log yet, or from another consumer."""
        self.founded: list[Claim] = []
        """Those of `early` that count now."""
        self._cases = dict(known)
        self.replays: dict[str, ReplayedEvent] = {}
        """Replays in the log that PostgreSQL does not know: it was filled again from the lake."""
        self.redrive_ends: list[list[Any]] = []  # state, reason, time, version, id
        self._reopened: dict[str, int] = {}  # the latest letter that reopened a case, by its id
        counted = letters.with_columns(seen_count=pl.len().over("failure_id"))
        is_first = pl.col("failure_id").is_first_distinct()
        is_known = pl.col("failure_id").is_in(list(known))
        told_of = ids_told_of(letters, events)
        is_told_of = pl.col("failure_id").is_in([*told_of, *known])
        is_chained = is_first & pl.col("root_failure_id").is_not_null()
        self._apply(counted.filter(is_told_of | is_chained), events)
        self.reopened = [i for i in self._reopened if i in known]
        """Stored cases whose row one of `new` replaces."""
        repeats = counted.filter(is_first & is_known).select("failure_id", "seen_count")
        self.repeats: list[tuple[str, int]] = [
            (i, count) for i, count in repeats.iter_rows() if i not in self._reopened
        ]
        is_reopened = pl.col("failure_id").is_in(list(self._reopened))
        is_latest = pl.col("dlq_sequence").is_in(list(self._reopened.values()))
        opened = counted.filter(is_latest | (is_first & ~is_known & ~is_reopened))
        told = [
            [i, *folded(c)] for i, c in self._cases.items() if i not in known or i in self._reopened
        ]
        cases = pl.DataFrame(told, {"failure_id": pl.String(), **FOLDED_SCHEMA}, orient="row")
        self.new = opened.join(
            cases, on="failure_id", how="left", maintain_order="left"
        ).with_columns(
            pl.col("status").fill_null("pending"),
            pl.col("redrive_count").fill_null(0),
            pl.col("alert_sent").fill_null(value=False),
            pl.col("opening").fill_null(1),
            pl.col("announced").fill_null("{}"),
        )
        """Letters that open a case or are superseded, in log order, with `FOLDED_SCHEMA`."""

    def changed(self) -> Sequence[Case]:
        """The stored cases and replays whose row has changed, without reopened ones."""
        known = self._known | {key: Case(key) for key in self.replays}
        return [
            self._cases[key]
            for key, case in known.items()
            if self._cases[key] != case and key not in self._reopened
        ]

    def _apply(self, rows: pl.DataFrame, events: Sequence[CaseEvent]) -> None:
        fields = rows.select(*FIELDS).iter_rows(named=True)
        messages: list[DeadLetter | CaseEvent] = [DeadLetter(**row) for row in fields]
        for message in sorted([*messages, *events], key=lambda message: message.dlq_sequence):
            if isinstance(message, DeadLetter):
                self._dead_letter(message)
            else:
                self._event(message)

    def _dead_letter(self, letter: DeadLetter) -> None:
        if known := self._cases.get(letter.failure_id):
            case = apply_repeat(known, letter)
            if case is not known:
                self._cases[letter.failure_id] = case
                self._reopened[letter.failure_id] = letter.dlq_sequence
            return
        case = case_of(letter)
        root_id = letter.root_failure_id
        root = self._cases.get(root_id or "")
        if root_id and not is_founded(root, letter.redrive_id, letter.redrive_attempt):
            self._claim(claim_of(letter))
        elif root_id:
            is_superseded, root = apply_dead_letter(root, letter)
            if root is not None:
                self._cases[root_id] = root
            if is_superseded:
                case = replace(case, status="superseded")
            if is_superseded or is_failed_replay(root, case.consumer):
                self.redrive_ends.append(
                    [
                        *("failed_again", letter.error_type, letter.published_at),
                        *(letter.consumer_version, letter.redrive_id),
                    ]
                )
        self._cases[letter.failure_id] = case

    def _event(self, event: CaseEvent) -> None:
        case = self._cases.get(event.failure_id or "")
        if event.parse_error:
            return
        if is_claim(event) and not is_founded(case, event.redrive_id, event.attempt):
            self._claim(claim_of(event))
            return
        case = case or self._new_replay(event)
        if case is None:
            return
        self._cases[case.failure_id] = apply_event(case, event)
        topic, kind = event.kind.split(".")
        if kind == "published":
            self._redeem(event)
        if topic != "redrive" or kind in ("requested", "published"):
            return
        if kind == "succeeded" and not is_answer(case, event):
            self._claim(claim_of(event, "not_addressee"))
            return
        self.redrive_ends.append(
            [kind, event.reason, event.at, event.consumer_version, event.redrive_id]
        )

    def _new_replay(self, event: CaseEvent) -> Case | None:
        replayed = replayed_event(event)
        if replayed is None:
            return None
        self.replays[replayed.id] = replayed
        return Case(replayed.id, consumer=replayed.consumer, is_replay=True)

    def _claim(self, claim: Claim | None) -> None:
        if claim is not None:
            self.claims.append(claim)

    def _redeem(self, published: CaseEvent) -> None:
        """Count reports about a redrive from before it was announced, in the order of the log."""
        said = published.failure_id, published.redrive_id, published.attempt
        if not is_founded(self._cases.get(published.failure_id or ""), *said[1:]):
            return  # its case is superseded
        for claims, is_stored in ((self._waiting, True), (self.claims, False)):
            ready = [
                claim
                for claim in claims
                if (claim.failure_id, claim.redrive_id, claim.attempt) == said
                and claim.why == "unannounced"
            ]
            for claim in ready:
                claims.remove(claim)
                if is_stored:
                    self.founded.append(claim)
                self._count(claim)

    def _count(self, claim: Claim) -> None:
        if claim.letter_id is None:
            self._event(claim.as_event())
            return
        root = self._cases[claim.failure_id]
        is_superseded, after = apply_failed_again(root, claim.consumer, claim.attempt)
        self._cases[claim.failure_id] = after or root
        letter = self._cases.get(claim.letter_id)
        if is_superseded and letter is not None:
            self._cases[claim.letter_id] = replace(letter, status="superseded")
        if (is_superseded and letter is not None) or is_failed_replay(root, claim.consumer):
            self.redrive_ends.append(
                ["failed_again", claim.reason, claim.at, None, claim.redrive_id]
            )


def folded(case: Case) -> list[Any]:
    """The values of `FOLDED_SCHEMA`."""
    return [
        json.dumps(value) if isinstance(value := getattr(case, name), dict) else value
        for name in FOLDED_SCHEMA
    ]


def unfolded(row: Sequence[Any]) -> Case:
    """The case of a row that has `CASE_COLUMNS`."""
    failure_id, stream, consumer, first_attempt_at, *told = row
    values = dict(zip(FOLDED_SCHEMA, told, strict=True))
    values["announced"] = values["announced"] and json.loads(values["announced"])
    return Case(
        failure_id,
        consumer=consumer_address(stream, consumer),
        first_attempt_at=first_attempt_at,
        **values,
    )
