"""Which subjects can come into a stream: its own, and those of the streams that feed it.

A mirror has no subjects, and a stream with `sources` need not have any; what they get may have
another subject than where it came from. The server does not look: a consumer whose filter matches
nothing that its stream ever gets is taken, and waits for ever.
"""

import re
from collections.abc import Iterable

from nats.js import JetStreamContext
from nats.js.api import StreamSource
from nats.js.errors import NotFoundError

from pipelines.deadletter.subjects import overlaps
from pipelines.errors import NotPermittedError

_ANYTHING = (">",)
_FUNCTION = re.compile(r"\{\{\s*(\w*).*?\}\}|(?<![^.])\$\d+(?![^.])")
_MANY = ("split", "slice")  # functions that make several tokens of one


async def can_hold(js: JetStreamContext, stream: str, subject: str) -> bool | None:
    """Whether messages that a filter matches are in a stream, or can come; None: no such stream.

    True where nobody can tell: a stream of another account feeds it, or one that we may not see.
    """
    filters = await _incoming(js, stream, frozenset())
    if filters is None or any(overlaps(subject, each) for each in filters):
        return None if filters is None else True
    return bool((await js.stream_info(stream, subjects_filter=subject)).state.subjects)


async def _incoming(
    js: JetStreamContext, stream: str, seen: frozenset[str]
) -> tuple[str, ...] | None:
    """Filters of the subjects, or None where there is no such stream."""
    try:
        config = (await js.stream_info(stream)).config
    except NotFoundError:
        return None
    filters = list(config.subjects or [])
    for source in [config.mirror] if config.mirror else config.sources or []:
        filters += through(source, await _of_origin(js, source, seen | {stream}))
    transform = config.subject_transform
    if transform and any(overlaps(transform.src or ">", each) for each in filters):
        filters.append(_destination(transform.dest))
    return tuple(filters)


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
    """What of an origin's subjects a mirror or source lets through, as it calls them."""
    transforms = source.subject_transforms or []
    if source.filter_subject:
        wanted = [(source.filter_subject, source.filter_subject)]
    else:
        wanted = [(each.src or ">", each.dest or each.src or ">") for each in transforms]
    if not wanted:
        return list(origin)
    return [
        _destination(dest) for src, dest in wanted if any(overlaps(src, each) for each in origin)
    ]


def _destination(pattern: str) -> str:
    """The filter of what a transform makes: `a.{{wildcard(1)}}.b` is `a.*.b`."""
    tokens = []
    for token in _FUNCTION.sub(lambda found: f"{{{found[1] or ''}}}", pattern).split("."):
        if "{" not in token:
            tokens.append(token)
        elif any(name in token.lower() for name in _MANY):
            return ".".join([*tokens, ">"])
        else:
            tokens.append("*")
    return ".".join(tokens)
