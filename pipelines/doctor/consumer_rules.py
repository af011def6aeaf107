"""What becomes of a poison message at a durable consumer, and of those behind it.

Each rule looks at one consumer and says what is wrong, or None. `rules` has them in one table.
"""

from pipelines.deadletter.subjects import overlaps
from pipelines.doctor.facts import Account, Consumer
from pipelines.doctor.finding import Said, Severity, count, dlq, nats, span
from pipelines.jetstream.streams import ADVISORIES, GIVEN_UP, TERMINATIONS

LOOPING = 10
"""Deliveries of one event from which nobody calls it a retry any more."""
NEAR = 0.9
"""The share of a limit from which it is near."""
_SHARE, _LEAST_REPEATS = 0.1, 20  # of deliveries that were not the first

KEEP_ADVISORIES = nats(
    *("stream", "add", "SAHOOL_ADVISORIES", "--subjects", ",".join(ADVISORIES)),
    *("--max-age", "7d", "--storage", "file", "--defaults"),
)


def loops(account: Account, consumer: Consumer) -> Said | None:
    """Nothing ends the deliveries of an event that always fails."""
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
    """A NAK without a delay comes back at once: `backoff` is for time-outs only."""
    heard = account.heard_of(consumer)
    if not heard.bare_naks or account.counts_itself(consumer):
        return None
    if consumer.max_deliver:
        what = f"an outage of a moment burns its {count(consumer.max_deliver, 'attempt')} in"
    else:
        what = "an event that fails comes back within"
    return Said(
        Severity.MAY_LOSE,
        f"Its service gives events back without a delay ({heard.bare_naks} just now): {what}"
        " milliseconds, whatever ack_wait and backoff say.",
        "In the service: NAK with a delay (NakWithDelay in Go, nak(millis) in JavaScript,"
        " nak(delay=…) in nats-py), or no answer at all.",
        {"bare_naks": heard.bare_naks, "most_deliveries": heard.most_deliveries},
    )


def unheard(account: Account, consumer: Consumer) -> Said | None:
    """It gives events up, and nobody keeps what the server says of it."""
    if not consumer.is_answered or consumer.max_deliver is None:
        return None
    if account.holders(_advisory(GIVEN_UP, consumer)):
        return None
    known = account.given_up(consumer)
    so_far = f" So far at least {count(known, 'event')}." if known else ""
    return Said(
        Severity.LOSES,
        f"An event is skipped without a word after delivery {consumer.max_deliver}: no stream keeps"
        f" the server's advisory.{so_far}",
        KEEP_ADVISORIES,
        {"given_up_at_least": known},
    )


def unheard_before(account: Account, consumer: Consumer) -> Said | None:
    """The stream of advisories came too late for some that it had given up."""
    subject = _advisory(GIVEN_UP, consumer)
    holders = account.holders(subject)
    missing = account.given_up(consumer) - account.told(consumer)
    if not holders or missing <= 0:
        return None
    return Said(
        Severity.LOSES,
        f"At least {count(missing, 'event')} that it gave up stay in the stream without an advisory"
        f" in {holders[0].name}: that came too late, or keeps them too short.",
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
        "An event that the service terminates (+TERM) is deleted, and no stream keeps the server's"
        " advisory, which has the reason.",
        KEEP_ADVISORIES,
    )


def ack_none(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """Delivered counts as handled."""
    if consumer.ack_policy != "none":
        return None
    then = " and deleted" if consumer.stream.is_queue else ""
    return Said(
        Severity.LOSES,
        f"ack_policy is none: an event counts as handled{then} once it is sent, whether it failed,"
        " or nobody got it.",
        _anew(consumer),
        {"deliveries": consumer.deliveries},
    )


def ack_all(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """A success takes the failures before it along."""
    if consumer.ack_policy != "all":
        return None
    return Said(
        Severity.LOSES,
        "ack_policy is all: the acknowledgement of an event acknowledges those before it too, also"
        " the ones that failed.",
        _anew(consumer),
    )


def one_delivery(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """There is no second attempt, also where nobody had the first."""
    if not consumer.is_answered or consumer.max_deliver != 1:
        return None
    return Said(
        Severity.MAY_LOSE,
        "max_deliver is 1: a connection that breaks, a restart or a slow answer gives the event up"
        " as a failure does.",
        dlq("adopt", consumer.address, "--reason", "…"),
    )


def held(account: Account, consumer: Consumer) -> Said | None:
    """What is given up stays in a queue for ever."""
    stream = consumer.stream
    if not stream.is_queue or not consumer.max_deliver or stream.max_age_seconds:
        return None
    known = account.given_up(consumer)
    now = f" {count(known, 'event')} at least now." if known else ""
    return Said(
        Severity.ADVICE,
        f"What it gives up is held in the {_kind(consumer)} for ever, since nobody takes it out,"
        f" and counts against its limits.{now}",
        nats("stream", "edit", stream.name, "--max-age", "30d"),
        {"given_up_at_least": known},
    )


def outlasts(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """The stream removes an event before its last attempt."""
    age, retry = consumer.stream.max_age_seconds, consumer.retry_seconds
    if not consumer.is_answered or not age or not retry or retry < age:
        return None
    return Said(
        Severity.MAY_LOSE,
        f"Its attempts can take {span(retry)}, and the stream removes an event after {span(age)}:"
        " one that fails for so long goes, and counts as no failure.",
        nats("stream", "edit", consumer.stream.name, "--max-age", f"{2 * retry:.0f}s"),
        {"retry_seconds": retry, "max_age_seconds": age},
    )


def overtaken(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """The stream's limits removed what it had not got yet."""
    stream = consumer.stream
    lost = int(stream.state.get("first_seq") or 0) - 1 - consumer.delivered
    if stream.is_queue or lost <= 0 or not consumer.figure("num_pending"):
        return None
    sure = consumer.takes_all and not stream.limit("max_msgs_per_subject")
    up_to = "" if sure else "up to "
    return Said(
        Severity.LOSES if sure else Severity.MAY_LOSE,
        f"The stream's limits removed {up_to}{count(lost, 'event')} before it ever got them.",
        nats("stream", "edit", stream.name, "--max-age", "30d", "--max-msgs=-1", "--max-bytes=-1"),
        {"first_seq": stream.state.get("first_seq"), "delivered": consumer.delivered},
    )


def nearly_overtaken(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """A full stream removes its oldest events, and it has not got those yet."""
    stream, waiting = consumer.stream, consumer.figure("num_pending")
    is_old = stream.config.get("discard", "old") == "old"
    if stream.is_queue or not is_old or stream.used < NEAR:
        return None
    if waiting < NEAR * stream.state.get("messages", 0):
        return None
    return Said(
        Severity.MAY_LOSE,
        f"{count(waiting, 'event')} wait for it in a stream that is {stream.used:.0%} full and then"
        " removes the oldest: they go before it gets them.",
        nats("stream", "edit", stream.name, "--max-msgs=-1", "--max-bytes=-1"),
        {"num_pending": waiting, "used": round(stream.used, 3)},
    )


def full(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """Nothing is delivered any more until somebody answers."""
    most, waiting = int(consumer.config.get("max_ack_pending") or 0), consumer.figure("num_pending")
    open_ones, again = consumer.figure("num_ack_pending"), consumer.figure("num_redelivered")
    if most <= 0 or open_ones < most or not waiting:
        return None
    is_for_ever = consumer.max_deliver is None and again >= open_ones
    ever = " All of them failed before, and come for ever." if is_for_ever else ""
    return Said(
        Severity.LOSES if is_for_ever else Severity.MAY_LOSE,
        f"max_ack_pending is reached: {count(open_ones, 'event')} without an answer hold up"
        f" {waiting:,} more.{ever}",
        nats("consumer", "edit", *_names(consumer), "--max-pending", str(max(1_000, 2 * most))),
        {"num_ack_pending": open_ones, "num_pending": waiting, "num_redelivered": again},
    )


def paused(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """It gets nothing until a time."""
    if not consumer.info.get("paused"):
        return None
    rest, age = (consumer.info.get("pause_remaining") or 0) / 1e9, consumer.stream.max_age_seconds
    is_late = bool(age and age < rest)
    lost = f" The stream removes events after {span(age)}, before that." if age and is_late else ""
    return Said(
        Severity.LOSES if is_late else Severity.MAY_LOSE,
        f"It is paused for {span(rest)} more, and {count(consumer.figure('num_pending'), 'event')}"
        f" wait.{lost}",
        nats("consumer", "resume", *_names(consumer)),
        {"pause_seconds": rest, "num_pending": consumer.figure("num_pending")},
    )


def stalled(account: Account, consumer: Consumer) -> Said | None:
    """Events wait, and nobody asks for them."""
    waiting, idle = consumer.figure("num_pending"), consumer.idle_seconds
    is_asked = consumer.figure("num_waiting") or consumer.info.get("push_bound")
    if not waiting or is_asked or idle < account.stalled_seconds or consumer.info.get("paused"):
        return None
    return Said(
        Severity.MAY_LOSE,
        f"It has had no delivery for {span(idle)}, {count(waiting, 'event')} wait, and nobody asks"
        " for them: its service stands still, or is gone.",
        f"Start its service; or, where there is none any more: {nats('consumer', 'rm')}"
        f" {' '.join(_names(consumer))}",
        {"num_pending": waiting, "idle_seconds": round(idle)},
    )


def unmatched(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """Its filter is of no subject that its stream has."""
    stream = consumer.stream
    if stream.is_fed or not stream.subjects:
        return None
    idle = [
        each
        for each in consumer.filters
        if not any(overlaps(each, subject) for subject in stream.subjects)
    ]
    if not idle:
        return None
    return Said(
        Severity.LOSES,
        f"Nothing on {', '.join(idle)} ever comes into the stream, which captures"
        f" {', '.join(stream.subjects)}: those events are not stored for it.",
        nats("consumer", "edit", *_names(consumer), *(f"--filter={s}" for s in stream.subjects)),
        {"filters": list(consumer.filters)},
    )


def forgotten(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """A durable that the server deletes when its service is away."""
    threshold = (consumer.config.get("inactive_threshold") or 0) / 1e9
    if threshold <= 0:
        return None
    then = "what comes then is deleted" if consumer.stream.is_queue else "its place is lost"
    return Said(
        Severity.MAY_LOSE,
        f"The server deletes it when nobody asks for {span(threshold)}: {then}.",
        nats("consumer", "edit", *_names(consumer), "--inactive-threshold", "0s"),
        {"inactive_threshold_seconds": threshold},
    )


def in_memory(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """Its place is gone with its server's process."""
    if not consumer.config.get("mem_storage") or consumer.config.get("num_replicas", 0) > 1:
        return None
    return Said(
        Severity.MAY_LOSE,
        "Its state is in memory: after a restart of the server it is gone, with its place and its"
        " counts.",
        _anew(consumer),
    )


def repeated(account: Account, consumer: Consumer) -> Said | None:  # noqa: ARG001
    """Many of its deliveries were repeats."""
    share = consumer.repeats / max(consumer.deliveries, 1)
    if consumer.repeats < _LEAST_REPEATS or share < _SHARE:
        return None
    return Said(
        Severity.ADVICE,
        f"At least {share:.0%} of its {consumer.deliveries:,} deliveries were repeats: events fail,"
        f" or take longer than ack_wait ({span(consumer.waits[0])}).",
        nats("consumer", "edit", *_names(consumer), "--wait", f"{4 * consumer.waits[0]:g}s"),
        {"repeats": consumer.repeats, "deliveries": consumer.deliveries},
    )


def _advisory(subject: str, consumer: Consumer) -> str:
    return f"{subject}.{consumer.stream.name}.{consumer.name}"


def _names(consumer: Consumer) -> tuple[str, str]:
    return consumer.stream.name, consumer.name


def _anew(consumer: Consumer) -> str:
    """The server does not change these of a consumer: another takes its place."""
    settings = ("--ack", "explicit", "--max-deliver", "5")
    return nats("consumer", "copy", *_names(consumer), f"{consumer.name}-2", *settings)


def _kind(consumer: Consumer) -> str:
    return "work queue" if consumer.stream.retention == "workqueue" else "stream"
