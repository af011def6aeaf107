"""Durable pull consumers on the server, and how an existing one is adopted."""

import logging
import re
from datetime import UTC, datetime
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError

from pipelines.deadletter.subjects import matches
from pipelines.errors import StreamError
from pipelines.jetstream.api import ask
from pipelines.jetstream.pull import PullTerms
from pipelines.jetstream.streams import find_streams

logger = logging.getLogger(__name__)

_LONGEST_NAME = 200  # characters; the server takes 255
_NO_NAME = re.compile(r"[^!-~]|[.*>/\\]")
_NO_CONSUMER = 10014  # the server's code for "consumer not found"
_CHANGED_MEANWHILE = (10148, 10149)  # … for a consumer to be made that exists, or to be updated
_OURS = ("ack_wait", "max_deliver", "max_ack_pending", "filter_subject")
"""What an existing consumer can not be left. A limit of deliveries loses what reaches it."""


def durable_name(text: str) -> str:
    """`text` as the name of a durable consumer: what the server takes in one stays as it is."""
    text = text.replace(">", "all").replace("*", "any")
    return re.sub(r"[^!-~]|[./\\]", "_", text)[:_LONGEST_NAME]


def parts_of(address: str | None) -> tuple[str, str] | None:
    """Stream and durable of `<stream>/<durable>`; None where no consumer can have that address."""
    stream, _, consumer = (address or "").partition("/")
    is_one = all(name and not _NO_NAME.search(name) for name in (stream, consumer))
    return (stream, consumer) if is_one else None


async def ensure_consumer(
    js: JetStreamContext, stream: str, wanted: ConsumerConfig, group: str | None = None
) -> PullTerms:
    """Make the consumer `wanted.name`, or adopt the one of that name; how it is to be pulled.

    Of an existing one only the filter, `ack_wait`, `max_ack_pending` and the limit of deliveries
    are changed, and a `backoff` taken away, which would overrule how long a retry waits. Whatever
    else was set stays as it is, also what nats-py does not know. `group` is the priority group to
    pull for, where it has several.

    Raises StreamError for an existing consumer that can not be pulled from and acknowledged one by
    one with the whole message, or has another group, and the server's error where it refuses.
    """
    new = {name: value for name, value in wanted.as_dict().items() if value is not None}
    try:
        info = await _make_or_adopt(js, stream, new, group)
    except APIError as error:
        if error.err_code not in _CHANGED_MEANWHILE:
            raise
        info = await _make_or_adopt(js, stream, new, group)  # another process did the same
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
    js: JetStreamContext, stream: str, new: dict[str, Any], group: str | None
) -> dict[str, Any]:
    info = await _info(js, stream, new["name"])
    config = info["config"] if info else new
    _group(stream, config, group)  # before anything is made or changed
    if info is None:
        return await _put(js, stream, "create", new)
    _check(stream, config)
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
        kind = "is not acknowledged explicitly"
    elif config.get("headers_only"):
        kind = "delivers headers only, no events"
    else:
        return
    raise StreamError(
        f"Consumer {config['name']} on {stream} exists and {kind}: choose another consumer_name,"
        " or delete it (`nats consumer rm`)."
    )


def _group(stream: str, config: dict[str, Any], wanted: str | None) -> str | None:
    groups: list[str] = config.get("priority_groups") or []
    if wanted in groups:
        return wanted
    if wanted is None and len(groups) < 2:
        return groups[0] if groups else None
    has = f"the priority groups {', '.join(groups)}" if groups else "no priority groups"
    raise StreamError(
        f"Consumer {config['name']} on {stream} has {has}: "
        + ("name one of them as priority_group." if groups else "leave out priority_group.")
    )


async def _info(js: JetStreamContext, stream: str, name: str) -> dict[str, Any] | None:
    """All that the server says of a consumer; None where there is none of this name."""
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
    """`<stream>/<durable>` of every durable consumer that gets what is published on `subject`."""
    found: list[str] = []
    for stream in await find_streams(js, subject):
        offset = 0
        while page := await js.consumers_info(stream, offset):
            offset += len(page)
            for info in page:
                config = info.config
                filters = config.filter_subjects or [config.filter_subject or ">"]
                if config.durable_name and any(matches(each, subject) for each in filters):
                    found.append(f"{stream}/{config.durable_name}")
    return sorted(found)
