"""What happens to a poison message at a durable consumer.

Each rule checks one consumer and returns a problem, or None. `rules` has them in one table.
"""

from sahool_dlq.doctor.facts import Account, Consumer
from sahool_dlq.doctor.finding import Said, Severity, count, dlq, nats, span
from sahool_dlq.jetstream.streams import ADVISORIES, GIVEN_UP, TERMINATIONS

LOOPING = 10
"""Number of deliveries of one event that is more than normal retries."""

KEEP_ADVISORIES = nats(
    *("stream", "add", "SAHOOL_ADVISORIES", "--subjects", ",".join(ADVISORIES)),
    *("--max-age", "7d", "--storage", "file", "--defaults"),
)


def loops(account: Account, consumer: Consumer) -> Said | None:
    """An event that always fails is delivered for ever."""
    if not consumer.is_answered or consumer.max_deliver or account.counts_itself(consumer):
        return None
    again, most = consumer.figure("num_redelivered"), account.heard_of(consumer).most_deliveries
    is_looping = most >= LOOPING or 0 < again * LOOPING <= consumer.repeats
    now = f" {count(again, 'event')} came again and {'is' if again == 1 else 'are'} not done."
    highest = f" One was delivered {most} times." if most > 1 else ""
    return Said(
        Severity.LOSES if is_looping else Severity.MAY_LOSE,
        "max_deliver is unlimited: an event that always fails is delivered for ever, unless the"
        " service itself gives it up." + (now if again else "") + highest,
        dlq("adopt", consumer.address, "--reason", "…"),
        {"num_redelivered": again, "repeats": consumer.repeats, "most_deliveries": most},
    )


def bare_naks(account: Account, consumer: Consumer) -> Said | None:
    """A NAK without a delay is delivered again at once: `backoff` applies only to time-outs."""
    heard = account.heard_of(consumer)
    if not heard.bare_naks or account.counts_itself(consumer):
        return None
    if consumer.max_deliver:
        what = f"a short outage uses up its {count(consumer.max_deliver, 'attempt')} in"
    else:
        what = "an event that fails comes back within"
    return Said(
        Severity.MAY_LOSE,
        f"Its service returns events without a delay ({heard.bare_naks} just now): {what}"
        " milliseconds, whatever ack_wait and backoff say.",
        "In the service: NAK with a delay (NakWithDelay in Go, nak(millis) in JavaScript,"
        " nak(delay=…) in nats-py), or no acknowledgement at all.",
        {"bare_naks": heard.bare_naks, "most_deliveries": heard.most_deliveries},
    )


def unheard(account: Account, consumer: Consumer) -> Said | None:
    """It gives events up, and no stream stores the server's advisories."""
    if not consumer.is_answered or consumer.max_deliver is None:
        return None
    if account.holders(_advisory(GIVEN_UP, consumer)):
        return None
    known = account.given_up(consumer)
    so_far = f" So far at least {count(known, 'event')}." if known else ""
    return Said(
        Severity.LOSES,
        f"An event is silently skipped after delivery {consumer.max_deliver}: no stream stores "
        f"the server's advisory.{so_far}",
        KEEP_ADVISORIES,
        {"given_up_at_least": known},
    )


def unheard_before(account: Account, consumer: Consumer) -> Said | None:
    """The stream of advisories was created too late for some events that it had given up."""
    subject = _advisory(GIVEN_UP, consumer)
    holders = account.holders(subject)
    missing = account.given_up(consumer) - account.told(consumer)
    if not holders or missing <= 0:
        return None
    return Said(
        Severity.LOSES,
        f"{holders[0].name} has no advisory of at least {count(missing, 'event')} that it gave "
        "up: the stream was created too late, or keeps them too briefly.",
        dlq("bridge", "--once"),
        {"given_up_at_least": account.given_up(consumer), "advisories": account.told(consumer)},
    )


def terminated_unheard(account: Account, consumer: Consumer) -> Said | None:
    """A service may end an event with +TERM, and on a queue that deletes it."""
    if not consumer.stream.is_queue or not consumer.is_answered or account.counts_itself(consumer):
        return None
    if account.holders(_advisory(TERMINATIONS, consumer)):
        return None
    return Said(
        Severity.MAY_LOSE,
        "An event that the service terminates (+TERM) is deleted, and no stream stores the "
        "server's advisory with the reason.",
        KEEP_ADVISORIES,
    )


def ack_none(account: Account, consumer: Consumer) -> Said | None:
    """A delivered event counts as handled."""
    if consumer.ack_policy != "none":
        return None
    then = " and deleted" if consumer.stream.is_queue else ""
    return Said(
        Severity.LOSES,
        f"ack_policy is none: an event counts as handled{then} once it is sent, even if it "
        "fails or nobody receives it.",
        anew(consumer),
        {"deliveries": consumer.deliveries},
    )


def ack_all(account: Account, consumer: Consumer) -> Said | None:
    """A success acknowledges the failures before it."""
    if consumer.ack_policy != "all":
        return None
    return Said(
        Severity.LOSES,
        "ack_policy is all: the acknowledgement of an event acknowledges those before it too, "
        "including failed ones.",
        anew(consumer),
    )


def one_delivery(account: Account, consumer: Consumer) -> Said | None:
    """There is no second attempt, even if no handler got the first."""
    if not consumer.is_answered or consumer.max_deliver != 1:
        return None
    return Said(
        Severity.MAY_LOSE,
        "max_deliver is 1: a broken connection, a restart or a slow handler gives the event "
        "up, like a failure.",
        dlq("adopt", consumer.address, "--reason", "…"),
    )


def held(account: Account, consumer: Consumer) -> Said | None:
    """Given-up events stay in a work queue for ever."""
    stream = consumer.stream
    if not stream.is_queue or not consumer.max_deliver or stream.max_age_seconds:
        return None
    known = account.given_up(consumer)
    now = f" {count(known, 'event')} at least now." if known else ""
    return Said(
        Severity.ADVICE,
        f"What it gives up is held in the {_kind(consumer)} for ever, because nobody removes "
        f"it, and counts against its limits.{now}",
        nats("stream", "edit", stream.name, "--max-age", "30d"),
        {"given_up_at_least": known},
    )


def outlasts(account: Account, consumer: Consumer) -> Said | None:
    """The stream removes an event before its last attempt."""
    age, retry = consumer.stream.max_age_seconds, consumer.retry_seconds
    if not consumer.is_answered or not age or not retry or retry < age:
        return None
    return Said(
        Severity.MAY_LOSE,
        f"Its attempts can take {span(retry)}, but the stream removes an event after "
        f"{span(age)}: it is lost and does not count as a failure.",
        nats("stream", "edit", consumer.stream.name, "--max-age", f"{2 * retry:.0f}s"),
        {"retry_seconds": retry, "max_age_seconds": age},
    )


def names(consumer: Consumer) -> tuple[str, str]:
    """The names of its stream and of itself."""
    return consumer.stream.name, consumer.name


def anew(consumer: Consumer) -> str:
    """For settings that the server cannot change: another consumer replaces it."""
    settings = ("--ack", "explicit", "--max-deliver", "5")
    return nats("consumer", "copy", *names(consumer), f"{consumer.name}-2", *settings)


def _advisory(subject: str, consumer: Consumer) -> str:
    return f"{subject}.{consumer.stream.name}.{consumer.name}"


def _kind(consumer: Consumer) -> str:
    return "work queue" if consumer.stream.retention == "workqueue" else "stream"
