"""The subjects that can enter a stream: its own, and those of streams that feed it.

A mirror has no subjects, and a stream with `sources` may have none; the messages may have other
subjects than in their origin. The server does not check: it accepts a consumer whose filter matches
nothing in its stream, and that consumer waits for ever.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from nats.js import JetStreamContext
from nats.js.api import StreamConfig, StreamSource
from nats.js.errors import NotFoundError

from sahool_dlq.deadletter.subjects import matches, overlaps
from sahool_dlq.errors import NotPermittedError

_ANYTHING = (">",)
_WILDCARDS = frozenset("*>")
_FUNCTION = re.compile(r"\{\{\s*(\w*).*?\}\}|(?<![^.])\$\d+(?![^.])")
_MANY = ("split", "slice")  # functions that make several tokens of one


async def can_hold(js: JetStreamContext, stream: str, subject: str) -> bool | None:
    """Whether a stream has, or can get, messages that a filter matches; None if there is no such
    stream.

    True if unknown: another account's stream feeds it, or one that we may not see.
    """
    filters = await _incoming(js, stream, frozenset())
    if filters is None or any(overlaps(subject, each) for each in filters):
        return None if filters is None else True
    return bool((await js.stream_info(stream, subjects_filter=subject)).state.subjects)


async def stream_names(js: JetStreamContext) -> list[str]:
    """The names of all streams."""
    return [str(config.name) for config in await _configs(js)]


async def _configs(js: JetStreamContext) -> list[StreamConfig]:
    configs: list[StreamConfig] = []
    while page := await js.streams_info(len(configs)):
        configs += [info.config for info in page]
    return configs


async def streams_with(js: JetStreamContext, subject: str) -> dict[str, list[str]]:
    """Every stream that gets messages published on a subject, with their subjects or filters there.

    The stream that captures it comes first, then those that source or mirror it, also indirectly.
    Streams of other accounts and domains, and invisible ones, are not included.
    """
    configs = await _configs(js)
    found: dict[str, list[str]] = {}
    for config in configs:
        if any(matches(each, subject) for each in config.subjects or ()):
            found[str(config.name)] = _transformed(config, [subject])
    waiting = [config for config in configs if config.name not in found]
    while reached := {
        str(config.name): got for config in waiting if (got := _got_from(config, found))
    }:
        found |= reached
        waiting = [config for config in waiting if config.name not in reached]
    return found


def _got_from(config: StreamConfig, streams: Mapping[str, Sequence[str]]) -> list[str]:
    """The subjects under which a stream gets messages of others, by mirroring or sourcing."""
    sources = [config.mirror] if config.mirror else config.sources or []
    filters = [
        each
        for source in sources
        if not source.external and source.name in streams
        for each in through(source, streams[source.name])
    ]
    return _transformed(config, filters)


def _transformed(config: StreamConfig, filters: list[str]) -> list[str]:
    """The subjects under which a stream with a transform stores its messages."""
    transform = config.subject_transform
    if transform and any(overlaps(transform.src or ">", each) for each in filters):
        return [*filters, _destination(transform.dest)]
    return filters


async def _incoming(
    js: JetStreamContext, stream: str, seen: frozenset[str]
) -> tuple[str, ...] | None:
    """Filters of the subjects, or None if there is no such stream."""
    try:
        config = (await js.stream_info(stream)).config
    except NotFoundError:
        return None
    filters = list(config.subjects or [])
    for source in [config.mirror] if config.mirror else config.sources or []:
        filters += through(source, await _of_origin(js, source, seen | {stream}))
    return tuple(_transformed(config, filters))


async def _of_origin(
    js: JetStreamContext, source: StreamSource, seen: frozenset[str]
) -> tuple[str, ...]:
    if source.external or source.name in seen:
        return _ANYTHING
    try:
        return await _incoming(js, source.name, seen) or _ANYTHING
    except NotPermittedError:
        return _ANYTHING


def through(source: StreamSource, origin: Iterable[str]) -> list[str]:
    """The origin's subjects that a mirror or source passes, under their new names."""
    transforms = source.subject_transforms or []
    if source.filter_subject:
        wanted = [(source.filter_subject, source.filter_subject)]
    else:
        wanted = [(each.src or ">", each.dest or each.src or ">") for each in transforms]
    if not wanted:
        return list(origin)
    found: dict[str, None] = {}  # in order, each once
    for src, dest in wanted:
        for each in origin:
            if overlaps(src, each):
                is_kept = src == dest and not _WILDCARDS.intersection(each.split("."))
                found[each if is_kept else _destination(dest)] = None
    return list(found)


def _destination(pattern: str) -> str:
    """The filter of a transform's result: `a.{{wildcard(1)}}.b` is `a.*.b`."""
    tokens = []
    for token in _FUNCTION.sub(lambda found: f"{{{found[1] or ''}}}", pattern).split("."):
        if "{" not in token:
            tokens.append(token)
        elif any(name in token.lower() for name in _MANY):
            return ".".join([*tokens, ">"])
        else:
            tokens.append("*")
    return ".".join(tokens)
