"""Durable pull consumers on the server, and how an existing one is adopted."""

import itertools
import logging
import re
from datetime import UTC, datetime
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from sahool_dlq.deadletter.subjects import overlaps
from sahool_dlq.errors import StreamError
from sahool_dlq.jetstream.api import ask
from sahool_dlq.jetstream.incoming import streams_with
from sahool_dlq.jetstream.pull import PullTerms

logger = logging.getLogger(__name__)

_LONGEST_NAME = 200  # characters; the server takes 255
_NO_NAME = re.compile(r"[\s\x00-\x1f\x7f.*>/\\\ud800-\udfff]")
_MOST_IN_NAME = 255  # bytes, as the server says
_NO_CONSUMER = 10014  # the server's code for "consumer not found"
_CHANGED_MEANWHILE = (10148, 10149)  # … for a consumer to be made that exists, or to be updated
_OURS = ("ack_wait", "max_deliver", "max_ack_pending", "filter_subject")
"""Settings that are always changed in an existing consumer. With a limit of deliveries, events that
reach it are lost.
"""


def durable_name(text: str) -> str:
    """`text` as the name of a durable consumer: characters that the server accepts are kept."""
    text = text.replace(">", "all").replace("*", "any")
    return re.sub(r"[^!-~]|[./\\]", "_", text)[:_LONGEST_NAME]


def default_durable(service: str, subject: str) -> str:
    """The default name of a service's durable consumer on a filter."""
    return durable_name(f"{service}-{subject}")


def parts_of(address: str | None) -> tuple[str, str] | None:
    """Stream and durable of `<stream>/<durable>`; None if it is not a valid address."""
    stream, _, consumer = (address or "").partition("/")
    return (stream, consumer) if is_name(stream) and is_name(consumer) else None


def is_name(text: str) -> bool:
    """Whether a stream or consumer can have this name.

    Names from messages can be anything, so they are checked before they are part of a request: the
    client refuses others with an error, and the server ends the connection for long ones.
    """
    return not _NO_NAME.search(text) and 0 < len(text.encode()) <= _MOST_IN_NAME


async def ensure_consumer(
    js: JetStreamContext,
    stream: str,
    wanted: ConsumerConfig,
    group: str | None = None,
    *,
    must_start_there: bool = False,
) -> PullTerms:
    """Create the consumer `wanted.name`, or adopt the one with that name; returns how to pull from
    it.

    Of an existing one only the filter, `ack_wait`, `max_ack_pending` and the limit of deliveries
    are changed, and a `backoff` is removed, because it would override the delay of retries. All
    other settings stay, including those that nats-py does not know. `group` is the priority group
    to pull for, if it has several.

    Raises StreamError for an existing consumer that cannot be pulled from with acknowledgements of
    single, complete messages, that has another group, or, with `must_start_there`, that began
    elsewhere than `wanted` says; and the server's error if it refuses.
    """
    new = {name: value for name, value in wanted.as_dict().items() if value is not None}
    try:
        info = await _make_or_adopt(js, stream, new, group, must_start_there)
    except APIError as error:
        if error.err_code not in _CHANGED_MEANWHILE:
            raise
        # another process did the same
        info = await _make_or_adopt(js, stream, new, group, must_start_there)
    config = info["config"]
    until = config.get("pause_until")
    if until and datetime.fromisoformat(until) > datetime.now(UTC):
        logger.warning("Consumer %s on %s is paused until %s", wanted.name, stream, until)
    return PullTerms(
        _group(stream, config, group),
        max_batch=config.get("max_batch") or 0,
        max_expires_seconds=(config.get("max_expires") or 0) / 1e9,
        created=info["created"],
    )


async def _make_or_adopt(
    js: JetStreamContext,
    stream: str,
    new: dict[str, Any],
    group: str | None,
    must_start_there: bool,
) -> dict[str, Any]:
    info = await _info(js, stream, new["name"])
    config = info["config"] if info else new
    _group(stream, config, group)  # before anything is made or changed
    if info is None:
        return await _put(js, stream, "create", new)
    _check(stream, config)
    if must_start_there:
        _check_start(stream, info, new)
    changed = _adopted(config, new)
    return info if changed == config else await _put(js, stream, "update", changed)


def _adopted(existing: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    dropped = ("backoff", "filter_subject", "filter_subjects")
    kept = {name: value for name, value in existing.items() if name not in dropped}
    return kept | {name: new[name] for name in _OURS if name in new}


def _check(stream: str, config: dict[str, Any]) -> None:
    if config.get("deliver_subject"):
        kind = "is a push consumer"
    elif config.get("ack_policy") != AckPolicy.EXPLICIT.value:
        kind = "does not use explicit acknowledgements"
    elif config.get("headers_only"):
        kind = "delivers headers only, no events"
    else:
        return
    raise StreamError(
        f"Consumer {config['name']} on {stream} exists and {kind}: choose another consumer_name,"
        " or delete it (`nats consumer rm`)."
    )


def _check_start(stream: str, info: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise StreamError if a consumer began elsewhere: the server never changes that."""
    is_as_wanted = _start(info["config"]) == _start(new)
    # A recreated one with `new` begins at the time of its first creation, see Intake.
    if new.get("deliver_policy") == DeliverPolicy.NEW:
        since = _start(info["config"])[2]
        is_as_wanted |= since is not None and since < datetime.fromisoformat(info["created"])
    if not is_as_wanted:
        raise StreamError(
            f"Consumer {new['name']} on {stream} exists and began at"
            f" {_start_in_words(info['config'])}, not at {_start_in_words(new)}, and NATS cannot"
            f" change that: leave out deliver_policy to continue at its position, choose another"
            " consumer_name, or delete it (`nats consumer rm`)."
        )


def _start(config: dict[str, Any]) -> tuple[str, int | None, datetime | None]:
    at = config.get("opt_start_time")
    return (
        DeliverPolicy(config.get("deliver_policy", "all")).value,
        config.get("opt_start_seq") or None,
        datetime.fromisoformat(at) if at else None,
    )


def _start_in_words(config: dict[str, Any]) -> str:
    policy, sequence, at = _start(config)
    return " ".join([policy, *(str(each) for each in (sequence, at) if each)])


def _group(stream: str, config: dict[str, Any], wanted: str | None) -> str | None:
    groups: list[str] = config.get("priority_groups") or []
    if wanted in groups:
        return wanted
    if wanted is None and len(groups) < 2:
        return groups[0] if groups else None
    has = f"the priority groups {', '.join(groups)}" if groups else "no priority groups"
    raise StreamError(
        f"Consumer {config['name']} on {stream} has {has}: "
        + ("give one of them as priority_group." if groups else "leave out priority_group.")
    )


async def _info(js: JetStreamContext, stream: str, name: str) -> dict[str, Any] | None:
    """The server's full information about a consumer; None if there is none with this name."""
    try:
        info = await ask(js, f"CONSUMER.INFO.{stream}.{name}")
    except APIError as error:
        if error.err_code == _NO_CONSUMER:
            return None
        raise
    info["config"].setdefault("name", name)  # nats-server 2.10 leaves out that of a durable
    return info


async def _put(
    js: JetStreamContext, stream: str, action: str, config: dict[str, Any]
) -> dict[str, Any]:
    where = [stream, config["name"], *filter(None, [config.get("filter_subject")])]
    what = f"CONSUMER.CREATE.{'.'.join(where)}"
    return await ask(js, what, stream_name=stream, action=action, config=config)


async def consumers_of(js: JetStreamContext, subject: str) -> list[str]:
    """`<stream>/<durable>` of every durable consumer that gets messages published on `subject`.

    Also those of streams that source or mirror it.
    """
    found: list[str] = []
    for stream, stored_as in (await streams_with(js, subject)).items():
        offset = 0
        while page := await js.consumers_info(stream, offset):
            offset += len(page)
            for info in page:
                config = info.config
                filters = config.filter_subjects or [config.filter_subject or ">"]
                pairs = itertools.product(filters, stored_as)
                if config.durable_name and any(overlaps(*pair) for pair in pairs):
                    found.append(f"{stream}/{config.durable_name}")
    return sorted(found)
