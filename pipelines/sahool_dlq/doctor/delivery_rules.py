"""What prevents events from reaching a durable consumer.

Each rule checks one consumer and returns a problem, or None. `rules` has them in one table.
"""

from sahool_dlq.deadletter.subjects import overlaps
from sahool_dlq.doctor.consumer_rules import anew, names
from sahool_dlq.doctor.facts import Account, Consumer
from sahool_dlq.doctor.finding import Said, Severity, count, nats, span, waiting

NEAR = 0.9
"""The used share from which a limit counts as near."""
_SHARE, _LEAST_REPEATS = 0.1, 20  # of deliveries that were not the first


def overtaken(account: Account, consumer: Consumer) -> Said | None:
    """The stream's limits removed events before it got them."""
    stream = consumer.stream
    lost = int(stream.state.get("first_seq") or 0) - 1 - consumer.delivered
    if stream.is_queue or lost <= 0 or not consumer.figure("num_pending"):
        return None
    sure = consumer.takes_all and not stream.limit("max_msgs_per_subject")
    up_to = "" if sure else "up to "
    return Said(
        Severity.LOSES if sure else Severity.MAY_LOSE,
        f"The stream's limits removed {up_to}{count(lost, 'event')} before they were delivered "
        "to it.",
        nats("stream", "edit", stream.name, "--max-age", "30d", "--max-msgs=-1", "--max-bytes=-1"),
        {"first_seq": stream.state.get("first_seq"), "delivered": consumer.delivered},
    )


def nearly_overtaken(account: Account, consumer: Consumer) -> Said | None:
    """A full stream removes its oldest events, which it has not got yet."""
    stream, behind = consumer.stream, consumer.figure("num_pending")
    is_old = stream.config.get("discard", "old") == "old"
    if stream.is_queue or not is_old or stream.used < NEAR:
        return None
    if behind < NEAR * stream.state.get("messages", 0):
        return None
    return Said(
        Severity.MAY_LOSE,
        f"{waiting(behind)} for it in a stream that is {stream.used:.0%} full and then removes "
        "the oldest: they are lost before delivery.",
        nats("stream", "edit", stream.name, "--max-msgs=-1", "--max-bytes=-1"),
        {"num_pending": behind, "used": round(stream.used, 3)},
    )


def full(account: Account, consumer: Consumer) -> Said | None:
    """No more events are delivered until some are acknowledged."""
    most, behind = int(consumer.config.get("max_ack_pending") or 0), consumer.figure("num_pending")
    open_ones, again = consumer.figure("num_ack_pending"), consumer.figure("num_redelivered")
    if most <= 0 or open_ones < most or not behind:
        return None
    is_for_ever = consumer.max_deliver is None and again >= open_ones
    ever = " All of them failed before and are delivered for ever." if is_for_ever else ""
    return Said(
        Severity.LOSES if is_for_ever else Severity.MAY_LOSE,
        f"max_ack_pending is reached: nothing is delivered until one of {count(open_ones, 'event')}"
        f" is acknowledged, and {waiting(behind)}.{ever}",
        nats("consumer", "edit", *names(consumer), "--max-pending", str(max(1_000, 2 * most))),
        {"num_ack_pending": open_ones, "num_pending": behind, "num_redelivered": again},
    )


def paused(account: Account, consumer: Consumer) -> Said | None:
    """It gets nothing until a time."""
    if not consumer.info.get("paused"):
        return None
    rest, age = (consumer.info.get("pause_remaining") or 0) / 1e9, consumer.stream.max_age_seconds
    is_late = bool(age and age < rest)
    lost = f" The stream removes events after {span(age)}, before that." if age and is_late else ""
    return Said(
        Severity.LOSES if is_late else Severity.MAY_LOSE,
        f"It is paused for {span(rest)} more, and {waiting(consumer.figure('num_pending'))}.{lost}",
        nats("consumer", "resume", *names(consumer)),
        {"pause_seconds": rest, "num_pending": consumer.figure("num_pending")},
    )


def stalled(account: Account, consumer: Consumer) -> Said | None:
    """Events wait, and nobody pulls them."""
    behind, idle = consumer.figure("num_pending"), consumer.idle_seconds
    is_asked = consumer.figure("num_waiting") or consumer.info.get("push_bound")
    if not behind or is_asked or idle < account.stalled_seconds or consumer.info.get("paused"):
        return None
    return Said(
        Severity.MAY_LOSE,
        f"It has had no delivery for {span(idle)}, {waiting(behind)}, and nobody pulls events: "
        "its service hangs or does not run.",
        f"Start its service; if it no longer exists: {nats('consumer', 'rm')}"
        f" {' '.join(names(consumer))}",
        {"num_pending": behind, "idle_seconds": round(idle)},
    )


def unmatched(account: Account, consumer: Consumer) -> Said | None:
    """Its filter matches no subject of its stream."""
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
        f"Nothing on {', '.join(idle)} is ever stored in the stream, which captures"
        f" {', '.join(stream.subjects)}: it never gets those events.",
        nats("consumer", "edit", *names(consumer), *(f"--filter={s}" for s in stream.subjects)),
        {"filters": list(consumer.filters)},
    )


def forgotten(account: Account, consumer: Consumer) -> Said | None:
    """A durable that the server deletes when its service is away."""
    threshold = (consumer.config.get("inactive_threshold") or 0) / 1e9
    if threshold <= 0:
        return None
    then = "new events are deleted" if consumer.stream.is_queue else "its position is lost"
    return Said(
        Severity.MAY_LOSE,
        f"The server deletes it if nobody pulls for {span(threshold)}: {then}.",
        nats("consumer", "edit", *names(consumer), "--inactive-threshold", "0s"),
        {"inactive_threshold_seconds": threshold},
    )


def in_memory(account: Account, consumer: Consumer) -> Said | None:
    """A restart of its server loses its position."""
    if not consumer.config.get("mem_storage") or consumer.config.get("num_replicas", 0) > 1:
        return None
    return Said(
        Severity.MAY_LOSE,
        "Its state is in memory: a restart of the server deletes it, with its position and its "
        "counts.",
        anew(consumer),
    )


def repeated(account: Account, consumer: Consumer) -> Said | None:
    """Many of its deliveries were repeats."""
    share = consumer.repeats / max(consumer.deliveries, 1)
    if consumer.repeats < _LEAST_REPEATS or share < _SHARE:
        return None
    return Said(
        Severity.ADVICE,
        f"At least {share:.0%} of its {consumer.deliveries:,} deliveries were repeats: events fail,"
        f" or take longer than ack_wait ({span(consumer.waits[0])}).",
        nats("consumer", "edit", *names(consumer), "--wait", f"{4 * consumer.waits[0]:g}s"),
        {"repeats": consumer.repeats, "deliveries": consumer.deliveries},
    )
