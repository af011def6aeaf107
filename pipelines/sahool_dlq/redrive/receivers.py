"""The consumers that get redirected events, for plans and runs."""

from dataclasses import dataclass, field

from nats.js import JetStreamContext

from sahool_dlq.jetstream.consumers import consumers_of
from sahool_dlq.jetstream.reach import Lookout

__all__ = ["Receivers"]


@dataclass(frozen=True, slots=True)
class Receivers:
    """The consumers of a subject, and why an event does not reach each; None: it does."""

    problems: dict[bool, dict[str, str | None]] = field(default_factory=dict)  # by patience

    @classmethod
    async def of(cls, js: JetStreamContext, lookout: Lookout, subject: str) -> "Receivers":
        """A check of each of them."""
        known = await consumers_of(js, subject)
        keys = [(each, subject, patient) for each in known for patient in (True, False)]
        reaches = await lookout.reaches(keys)
        return cls(
            {
                is_patient: {each: reaches[each, subject, is_patient].problem for each in known}
                for is_patient in (True, False)
            }
        )

    def take(self, address: str | None, *, is_foreign: bool) -> bool:
        """Whether the failing consumer is among them, and pulls."""
        own, receivers = address or "", self.problems[is_foreign]
        return own in receivers and receivers[own] is None

    def why_nobody(self, address: str | None, *, is_foreign: bool) -> str | None:
        """Why none of them gets an event; None if one does, or none is known."""
        problems = dict(self.problems[True])
        if address in problems:
            problems[address] = self.problems[is_foreign][address]
        return None if None in problems.values() else "; ".join(map(str, problems.values())) or None
