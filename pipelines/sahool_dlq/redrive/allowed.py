"""The subjects that a redrive may publish to."""

from collections.abc import Sequence
from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.errors import APIError

from sahool_dlq.deadletter.subjects import Subjects, matches
from sahool_dlq.redrive.origin import RefusedError
from sahool_dlq.settings import Settings

__all__ = ["AllowedSubjects", "allowed_subjects", "check_event_subject"]

_LONGEST_SUBJECT = 1_000  # bytes


@dataclass(frozen=True, slots=True)
class AllowedSubjects:
    """Filters of the subjects that a redrive may publish to, and the platform's own."""

    filters: Sequence[str]
    subjects: Subjects

    def check(self, subject: str) -> None:
        """Raise RefusedError for a subject that a redrive must not publish to.

        The author of a dead letter chooses the subject, so only listed ones are allowed, and none
        that `check_event_subject` refuses.
        """
        check_event_subject(subject, self.subjects)
        if not any(matches(pattern, subject) for pattern in self.filters):
            raise RefusedError(
                f"{subject[:100]} is not among the subjects that DLQ_REDRIVE_SUBJECTS allows"
                f" ({', '.join(self.filters)})"
            )


def check_event_subject(subject: str, own: Subjects) -> None:
    """Raise RefusedError for a subject that is never used for events.

    These are invalid or too long subjects, and those of the server, inboxes and the platform.
    """
    if subject == "unknown":
        raise RefusedError(
            "its dead letter does not say the subject of its event: give one with --to"
        )
    if any(c in subject for c in " \t\r\n\0*>") or "" in subject.split("."):
        raise RefusedError(f"{subject[:100]!r} is not a valid subject to publish to")
    if len(subject.encode()) > _LONGEST_SUBJECT:  # the server would drop the connection
        raise RefusedError(f"{subject[:100]}… is too long for a subject")
    is_own = any(matches(pattern, subject) for pattern in own.own)
    if is_own or subject.startswith(("$", "_INBOX")):
        raise RefusedError(f"an event is never published to {subject[:100]}")


async def allowed_subjects(js: JetStreamContext, settings: Settings) -> AllowedSubjects:
    """The configured subjects, else those of the event stream."""
    filters = settings.redrive_subjects
    if not filters:
        try:
            info = await js.stream_info(settings.events_stream)
            filters = info.config.subjects or []
        except APIError:
            filters = []
    return AllowedSubjects(filters or settings.subjects.events, settings.subjects)
