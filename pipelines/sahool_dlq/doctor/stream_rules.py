"""What a stream does with events before a consumer has them, and with dead letters.

Each rule checks one stream and returns a problem, or None. `rules` has them in one table.
"""

from collections.abc import Mapping

from sahool_dlq.deadletter.subjects import covers, matches, overlaps
from sahool_dlq.doctor.delivery_rules import NEAR
from sahool_dlq.doctor.facts import Account, Stream
from sahool_dlq.doctor.finding import Said, Severity, count, dlq, nats, span
from sahool_dlq.jetstream.streams import DAY, GIVEN_UP

_LOG_DAYS = 7
_LOG_DUPLICATES_SECONDS = 3600
_SHOWN = 5


def unclaimed(account: Account, stream: Stream) -> Said | None:
    """A subject of a queue that no consumer takes."""
    if not stream.is_queue or account.is_hidden(stream):
        return None
    filters = [each for consumer in account.consumers_of(stream) for each in consumer.filters]
    stray = {
        subject: number
        for subject, number in stream.counts.items()
        if not any(matches(each, subject) for each in filters)
    }
    nobody = [s for s in stream.subjects if not any(overlaps(each, s) for each in filters)]
    partly = [s for s in stream.subjects if not any(covers(each, s) for each in filters)]
    if not stray and not partly:
        return None
    fate = "wait for ever" if stream.retention == "workqueue" else "are deleted at once"
    waiting = sum(stray.values())
    now = f" {count(waiting, 'event')} so far, on {_listed(stray)}." if stray else ""
    if nobody:
        what = f"No consumer takes {_listed(nobody)}: events there {fate}."
    else:
        what = f"Not all of {_listed(partly)} has a consumer: events on other subjects {fate}."
    return Said(
        Severity.LOSES if nobody or stray else Severity.MAY_LOSE,
        what + now,
        nats("consumer", "add", stream.name, "rest", "--pull", "--ack", "explicit", "--max-deliver")
        + f" 5 --filter {nats(*(nobody or list(stray) or partly)).removeprefix('nats ')}",
        {"subjects": nobody or partly, "events": waiting},
    )


def drops_work(account: Account, stream: Stream) -> Said | None:
    """A limit removes unhandled events from a work queue."""
    limits = [
        name
        for name in ("max_msgs", "max_bytes", "max_msgs_per_subject")
        if stream.is_queue and stream.limit(name)
    ]
    if not limits or stream.config.get("discard", "old") != "old":
        return None
    return Said(
        Severity.MAY_LOSE,
        f"{' and '.join(limits)} removes the oldest, unhandled events of the queue when it is "
        f"full ({stream.used:.0%} now).",
        nats("stream", "edit", stream.name, "--discard", "new"),
        {name: stream.limit(name) for name in limits} | {"used": round(stream.used, 3)},
    )


def keeps_latest(account: Account, stream: Stream) -> Said | None:
    """A newer event replaces an unhandled one."""
    most = stream.limit("max_msgs_per_subject")
    readers = [each for each in account.consumers_of(stream) if each.ack_policy == "explicit"]
    durable = [each.name for each in readers if each.config.get("durable_name")]
    if stream.is_queue or not most or not durable:
        return None
    return Said(
        Severity.MAY_LOSE,
        f"max_msgs_per_subject is {most}: newer events remove older ones of their subject, even "
        f"if {_listed(durable)} has not handled them yet.",
        nats("stream", "edit", stream.name, "--max-msgs-per-subject=-1"),
        {"max_msgs_per_subject": most, "consumers": durable},
    )


def in_memory(account: Account, stream: Stream) -> Said | None:
    """A restart deletes its messages."""
    if stream.config.get("storage") != "memory":
        return None
    return Said(
        Severity.MAY_LOSE,
        f"It is in memory: a restart of its servers deletes all of it"
        f" ({count(stream.state.get('messages', 0), 'event')} now), and its consumers.",
        f"{nats('stream', 'copy', stream.name, stream.name + '-FILE', '--storage', 'file')}"
        "  # then delete the old one, and rename",
        {"messages": stream.state.get("messages", 0)},
    )


def one_replica(account: Account, stream: Stream) -> Said | None:
    """A cluster stores only one copy."""
    cluster = (stream.info.get("cluster") or {}).get("name")
    if not cluster or int(stream.config.get("num_replicas") or 1) > 1:
        return None
    return Said(
        Severity.MAY_LOSE,
        f"Cluster {cluster} stores only one copy: while its server is down nobody can publish "
        "or consume, and if its disk fails all is lost.",
        nats("stream", "edit", stream.name, "--replicas", "3"),
        {"num_replicas": 1},
    )


def written_later(account: Account, stream: Stream) -> Said | None:
    """The server acknowledges before it writes."""
    if stream.config.get("persist_mode") != "async":
        return None
    return Said(
        Severity.MAY_LOSE,
        "persist_mode is async: the server acknowledges an event before it is written, and a "
        "crash loses acknowledged events.",
        f"{nats('stream', 'copy', stream.name, stream.name + '-SAFE')} --persist-mode default"
        "  # it cannot be changed; then delete the old one",
    )


def unconfirmed(account: Account, stream: Stream) -> Said | None:
    """Publishers do not notice that an event was not stored."""
    if not stream.config.get("no_ack"):
        return None
    return Said(
        Severity.MAY_LOSE,
        "no_ack is set: the server confirms no publish, so it is not noticed if an event is "
        "not stored.",
        nats("stream", "edit", stream.name, "--ack"),
    )


def refuses(account: Account, stream: Stream) -> Said | None:
    """It accepts no more messages when it is full."""
    if stream.config.get("discard") != "new" or stream.used < NEAR:
        return None
    is_full = stream.used >= 1 or bool(stream.config.get("sealed"))
    return Said(
        Severity.LOSES if is_full else Severity.MAY_LOSE,
        f"It is {stream.used:.0%} full and refuses new events"
        + (" now: publishers get an error." if is_full else " when it is."),
        nats("stream", "edit", stream.name, "--max-msgs=-1", "--max-bytes=-1"),
        {"used": round(stream.used, 3)},
    )


def log_is_short(account: Account, stream: Stream) -> Said | None:
    """Dead letters are removed before somebody can redrive them."""
    if not account.is_log(stream):
        return None
    age = stream.max_age_seconds
    if stream.is_queue or stream.limit("max_msgs_per_subject"):
        return Said(
            Severity.LOSES,
            "It stores the dead letters and must keep each of them: its retention must be "
            "limits, without max_msgs_per_subject.",
            nats("stream", "edit", stream.name, "--retention", "limits"),
            {"retention": stream.retention},
        )
    if age is None or age >= _LOG_DAYS * DAY:
        return None
    return Said(
        Severity.MAY_LOSE,
        f"It stores the dead letters, and removes them after {span(age)}: a redrive needs them "
        "for at least a week.",
        nats("stream", "edit", stream.name, "--max-age", "30d"),
        {"max_age_seconds": age},
    )


def log_can_be_emptied(account: Account, stream: Stream) -> Said | None:
    """A purge removes dead letters that no drain has read."""
    if not account.is_log(stream) or stream.config.get("deny_purge"):
        return None
    return Said(
        Severity.MAY_LOSE,
        "It stores the dead letters, and deny_purge is not set: a purge also removes those "
        "that no drain has read.",
        nats("stream", "edit", stream.name, "--deny-purge"),
    )


def log_doubles(account: Account, stream: Stream) -> Said | None:
    """A dead letter that is published again after an outage is stored twice."""
    window = (stream.config.get("duplicate_window") or 0) / 1e9
    if not account.is_log(stream) or window >= _LOG_DUPLICATES_SECONDS:
        return None
    return Said(
        Severity.ADVICE,
        f"It stores the dead letters, and remembers their ids for {span(window)} only: one that is"
        " published again after a longer outage is stored twice.",
        nats("stream", "edit", stream.name, "--dupe-window", "1h"),
        {"duplicate_window_seconds": window},
    )


def advisories_unread(account: Account, stream: Stream) -> Said | None:
    """Advisories are stored, but nobody reads them."""
    if not account.keeps_advisories(stream) or account.is_hidden(stream):
        return None
    if any(each.config.get("durable_name") for each in account.consumers_of(stream)):
        return None
    known = sum(n for subject, n in stream.counts.items() if subject.startswith(GIVEN_UP))
    return Said(
        Severity.MAY_LOSE,
        f"It stores the server's advisories ({known:,} of events given up), and no consumer reads"
        " them.",
        dlq("bridge"),
        {"given_up": known},
    )


def advisories_short(account: Account, stream: Stream) -> Said | None:
    """A reader that is down for a weekend misses some."""
    age = stream.max_age_seconds
    if not account.keeps_advisories(stream) or age is None or age >= DAY:
        return None
    return Said(
        Severity.MAY_LOSE,
        f"It stores the server's advisories for {span(age)} only: if their reader is down for "
        "longer, given-up events are not noticed.",
        nats("stream", "edit", stream.name, "--max-age", "7d"),
        {"max_age_seconds": age},
    )


def _listed(values: Mapping[str, int] | list[str]) -> str:
    shown = list(values)[:_SHOWN]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
