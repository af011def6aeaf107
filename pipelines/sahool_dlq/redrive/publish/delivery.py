"""One redrive at a time: from the outbox, to its consumer, to its outcome."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client
from nats.js.errors import NoStreamResponseError
from psycopg import Connection

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.reach import Lookout
from sahool_dlq.jetstream.streams import ADVISORIES, find_streams
from sahool_dlq.redrive.batches import Batch, find_batch
from sahool_dlq.redrive.lifetime import TooLateError
from sahool_dlq.redrive.origin import ExpiredError, RefusedError
from sahool_dlq.redrive.publish.acks import AckFollower
from sahool_dlq.redrive.publish.heard import Mark, Place
from sahool_dlq.redrive.publish.inferred import Advisories, end_of_foreign, why_silent
from sahool_dlq.redrive.publish.late_decisions import DecidedError
from sahool_dlq.redrive.publish.news import News
from sahool_dlq.redrive.publish.outbox import Outbox, Redrive
from sahool_dlq.redrive.publish.outcomes import OutcomeFollower
from sahool_dlq.redrive.publish.sender import Sender, Sent
from sahool_dlq.redrive.publish.sent_acks import SentAcks
from sahool_dlq.redrive.source import OwnCopyError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.lock import Lock

__all__ = ["Delivery", "StoppedError"]

_UNPUBLISHED = ("refused", "expired", "too_late", "unroutable")  # outcomes with that meaning
_STATES: dict[type[Exception], str] = {
    RefusedError: "refused",
    ExpiredError: "expired",
    TooLateError: "too_late",
}
_UNSENT: tuple[type[Exception], ...] = (NotPermittedError, DecidedError, OwnCopyError, *_STATES)
_MOST_REASONS = 5  # of one outcome; a subject or a size makes each another


class StoppedError(Exception):
    """Nothing was published: the group, the batch or all of its run was stopped."""


class Delivery:
    """Brings the redrives of one batch to their consumers, and returns their outcomes."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        connection: Connection[Any],
        lock: Lock,
        batch: Batch,
        follower: OutcomeFollower,
        acks: AckFollower,
        sent: SentAcks,
    ) -> None:
        self.reasons: dict[str, dict[str, int]] = {}  # of outcomes; the first few
        self.parked: set[str] = set()  # redrives of parked failures, which the schedule skips
        self.halted: str | None = None  # the state that somebody set; denied
        self.missing_right: NotPermittedError | None = None
        self._timeout_seconds = settings.redrive_timeout_seconds
        self._js = client.jetstream()
        self._connection = connection
        self._lock = lock
        self._follower = follower
        self._acks = acks
        self._sent = sent
        self._batch = batch
        self._outbox = Outbox(connection, batch)
        self._lookout = Lookout(self._js)
        self._news = News(self._js, settings.subjects, batch, settings.redrive_cap)
        self._sender = Sender(client, connection, batch, self._lookout, lock, self._news)

    async def prepare(self, settings: Settings) -> None:
        """Find the consumers, and where the server reports given-up events."""
        await self._sender.prepare(settings)
        holders = await find_streams(self._js, ADVISORIES[0])
        stream = holders[0] if len(holders) == 1 else settings.stream_names.advisories
        self._advisories = Advisories(stream, settings.bridge_durable)

    async def outcome(self, redrive: Redrive, turn: Callable[[], Awaitable[bool]]) -> str:
        """One redrive from the outbox to its outcome, which is also published to the log.

        `turn` waits until it may be published, and returns no if its group was stopped. Raises
        StoppedError if nothing is published because something was stopped.
        """
        is_elsewhere = self._sender.is_elsewhere(redrive)
        outcome = self._follower.expect(redrive.id, redrive.addressed_to, is_elsewhere=is_elsewhere)
        mark: Mark | None = None
        place, doubt = Sent()
        silent_seconds = redrive.silent_seconds or 0
        try:
            if redrive.is_out and (again := await self._again(redrive)):
                mark, (place, doubt), silent_seconds = *again, 0
            elif not redrive.is_out:
                if why := await self._why_nobody(redrive):
                    return await self._unreached(redrive, why)
                if not await turn():
                    raise StoppedError
                event = await self._sender.event(redrive)
                headers = self._sender.headers(redrive, event)
                if redrive.is_foreign:
                    mark = await self._acks.mark(redrive.addressed_to)
                why = await self._why_nobody(redrive)
                if why := why or await self._sender.why_not_taken(event, headers):
                    return await self._unreached(redrive, why)
                self._lock.check()
                if not (before := self._outbox.claim(redrive)):
                    return self._not_claimed(redrive)
                is_parked = before == "parked"
                place, doubt = await self._sender.send(redrive, event, headers, is_parked=is_parked)
            patience = self._timeout_seconds - silent_seconds
            async with asyncio.timeout(max(patience, 0)):
                if is_elsewhere:
                    return await self._redirected(redrive, outcome)
                if mark is not None and place is not None:
                    return await self._foreign(redrive, place, mark, outcome)
                return await outcome
        except _UNSENT as error:
            return await self._unsent(redrive, error)
        except NoStreamResponseError:
            return await self._ended(redrive, "unroutable", "no stream captures its subject")
        except TimeoutError:
            silence = await self._silence(place, mark, doubt)
            return await self._ended(redrive, "outcome_unknown", silence)
        finally:
            self._follower.forget(redrive.id)

    async def left(self, redrive: Redrive, why: str | None, *, is_hopeless: bool) -> str:
        """The outcome of a redrive that is not published because something was stopped."""
        if self.halted in ("paused", "denied"):
            return "held"
        if self.halted is None:
            self._lock.check()
            if is_hopeless and redrive.replayed is None:
                await self._news.decide(redrive, "parked", f"its group was stopped: {why}")
                self.parked.add(redrive.id)
            self._outbox.cancel(redrive, why)
        return "cancelled"

    async def _again(self, redrive: Redrive) -> tuple[Mark | None, Sent] | None:
        """What is known after a killed run's event is published after all; None: it is only
        followed.

        The stream drops it if the killed run had published it.
        """
        if not self._outbox.is_wanted(redrive) or await self._why_nobody(redrive):
            return None
        try:
            event = await self._sender.event(redrive)
            headers = self._sender.headers(redrive, event)
        except (RefusedError, ExpiredError, TooLateError, OwnCopyError):
            return None
        mark = await self._acks.mark(redrive.addressed_to) if redrive.is_foreign else None
        self._lock.check()
        sent = await self._sender.send_again(redrive, event, headers)
        return (mark, sent) if sent else None

    async def _why_nobody(self, redrive: Redrive) -> str | None:
        """Why no consumer would get its event now."""
        if self._sender.is_elsewhere(redrive):
            return self._sender.why_nobody(redrive)
        address, is_patient = redrive.addressed_to, redrive.is_foreign
        return (await self._lookout.reach(address, redrive.subject, is_patient=is_patient)).problem

    async def _unreached(self, redrive: Redrive, why: str) -> str:
        """Leave a failure unchanged: an attempt that no consumer gets says nothing."""
        if self.halted is not None:
            raise StoppedError
        # An event that can never be published is parked, as the plan says: that raises.
        self._sender.headers(redrive, await self._sender.event(redrive))
        self._lock.check()
        self._outbox.cancel(redrive, why)
        self._note("cancelled", why)
        return "cancelled"

    async def _unsent(self, redrive: Redrive, error: Exception) -> str:
        """The outcome of a redrive whose event was not published."""
        match error:
            case NotPermittedError() | DecidedError():
                return self._not_sent(redrive, error)
            case OwnCopyError():
                return await self._left_to_people(redrive, str(error))
            case _:
                return await self._ended(redrive, _STATES[type(error)], str(error))

    def _not_sent(self, redrive: Redrive, error: NotPermittedError | DecidedError) -> str:
        """Nothing was published; if a right is missing, nothing more is."""
        if redrive.is_out:
            raise error
        self._lock.check()
        self._outbox.release(redrive)
        if isinstance(error, DecidedError):
            self._outbox.cancel(redrive, str(error))
            self._note("cancelled", str(error))
            return "cancelled"
        self.missing_right = self.missing_right or error
        self.halted = "denied"
        raise StoppedError

    async def _left_to_people(self, redrive: Redrive, why: str) -> str:
        """Do not publish content that only a dead letter has, unless a person has agreed."""
        self._lock.check()
        if self._batch.trigger == "automatic":  # so that it is not planned again and again
            await self._news.decide(redrive, "parked", f"only by hand, with --own-copy: {why}")
            self.parked.add(redrive.id)
        self._outbox.cancel(redrive, why)
        self._note("cancelled", f"{why}; --own-copy publishes the copy in the dead letter")
        return "cancelled"

    def _not_claimed(self, redrive: Redrive) -> str:
        state = find_batch(self._connection, self._batch.id).state
        if state != "running":
            self.halted = state
            raise StoppedError
        why = f"its failure is {self._outbox.status_of(redrive)} meanwhile"
        self._outbox.cancel(redrive, why)
        self._note("cancelled", why)
        return "cancelled"

    async def _redirected(self, redrive: Redrive, outcome: "asyncio.Future[str]") -> str:
        """The outcome of a redrive that was redirected to other consumers."""
        result = await outcome
        if result == "succeeded":
            return result
        where = f"redirected to {self._batch.redirect_to}"
        if result == "handled_elsewhere":  # by an older version, which does not report for others
            return await self._ended(
                redrive, "succeeded", f"{where}, and handled there", "redirected"
            )
        reason = f"{where}, and failed there: that is a separate failure"
        return await self._ended(redrive, "outcome_unknown", reason)

    async def _foreign(
        self, redrive: Redrive, place: Place, mark: Mark, outcome: "asyncio.Future[str]"
    ) -> str:
        """The outcome of a redrive to a consumer that reports no success."""
        result = await end_of_foreign(
            self._js, self._acks, self._sent, place, mark, self._advisories, outcome
        )
        who, what = redrive.addressed_to, place.sequence
        reasons = {
            "proved": f"proved: the server reports that {who} acknowledged {what}",
            "inferred": (
                f"inferred: an acknowledgement of {what} by {who} was received, and no advisory"
            ),
        }
        if result not in reasons:
            return result
        return await self._ended(redrive, "succeeded", reasons[result])

    async def _silence(self, place: Place | None, mark: Mark | None, doubt: str | None) -> str:
        """What is known of a redrive without an answer."""
        said = [f"no answer for {self._timeout_seconds:.0f} s"]
        if mark is not None and mark.is_all_told:
            said.append("and the server reported no acknowledgement")
        if doubt is not None:
            said.append(doubt)
        elif mark is not None and place is not None:
            said += filter(None, [await why_silent(self._js, place, mark)])
        elif mark is not None:
            said.append("its consumer takes it from another stream than the one that stored it")
        return ", ".join(said)

    async def _ended(
        self, redrive: Redrive, state: str, reason: str, name: str | None = None
    ) -> str:
        if state in _UNPUBLISHED:
            self._lock.check()  # else another run may publish it now
        await self._news.tell(redrive, state, reason, name)
        self._outbox.mark(redrive, state, reason)
        self._note(state, reason)
        return state

    def _note(self, state: str, reason: str) -> None:
        told = self.reasons.setdefault(state, {})
        if reason in told or len(told) < _MOST_REASONS:
            told[reason] = told.get(reason, 0) + 1
