"""OpenTelemetry spans: consume → dead letter → drain → redrive → consume, one trace.

They cost nothing, and nothing is imported, until the application has set up OpenTelemetry itself (a
tracer provider in code, or `opentelemetry-instrument`). The trace context is in W3C form: in the
headers of events, and as `traceparent` of a dead letter.
"""

import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar

from sahool_dlq.deadletter.headers import Headers, MutableHeaders, value_of

__all__ = [
    "fail_span",
    "is_tracing",
    "send_span",
    "span",
    "spans_of_drained",
    "traced",
    "traceparent",
]

P = ParamSpec("P")
T = TypeVar("T")
_KEYS = ("traceparent", "tracestate")


def is_tracing() -> bool:
    """Whether spans are recorded in this process."""
    return _tracer() is not None


@contextmanager
def span(name: str, kind: str, parent: Headers | None = None, **attributes: Any) -> Iterator[None]:
    """A span whose parent is in `parent` (headers), else the current span.

    `kind` is consumer, producer or internal; dots of attribute names are written as `__`.
    """
    tracer = _tracer()
    if tracer is None:
        yield
        return
    with tracer.start_as_current_span(
        name,
        context=_context(parent) if parent is not None else None,
        kind=_kind(kind),
        attributes=_attributes(attributes),
    ):
        yield


def traced(
    opened: Callable[..., Any],
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Run a method in the span that `opened` creates from its arguments, if spans are recorded."""

    def decorate(
        method: Callable[P, Coroutine[Any, Any, T]],
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(method)
        async def run(*arguments: P.args, **named: P.kwargs) -> T:
            if _tracer() is None:
                return await method(*arguments, **named)
            with opened(*arguments, **named):
                return await method(*arguments, **named)

        return run

    return decorate


@asynccontextmanager
async def send_span(
    name: str, parent: Headers, headers: MutableHeaders, **attributes: Any
) -> AsyncIterator[None]:
    """A span around sending a message with `headers`, which then contain it."""
    with span(name, "producer", parent, **attributes):
        carried = _carried()
        for name in [name for name in headers if name.lower() in carried]:
            del headers[name]
        headers |= carried
        yield


def fail_span(error: BaseException) -> None:
    """Mark the current span as failed, with the error."""
    if _tracer() is None:
        return
    trace = sys.modules["opentelemetry.trace"]
    opened = trace.get_current_span()
    opened.record_exception(error)
    opened.set_status(trace.StatusCode.ERROR, type(error).__name__)


def traceparent(otherwise: str | None) -> str | None:
    """The current span for a dead letter; `otherwise` if no spans are recorded."""
    return _carried().get("traceparent", otherwise)


def spans_of_drained(letters: Iterable[Mapping[str, Any]], started_ns: int, ended_ns: int) -> None:
    """One span for each drained dead letter, in its trace."""
    tracer = _tracer()
    if tracer is None:
        return
    for letter in letters:
        tracer.start_span(
            "drain",
            context=_context({key: letter[key] for key in _KEYS if letter[key]}),
            kind=_kind("consumer"),
            start_time=started_ns,
            attributes={
                "dlq.failure_id": letter["failure_id"],
                "dlq.sequence": letter["dlq_sequence"],
            },
        ).end(ended_ns)


def _tracer() -> Any | None:
    """The tracer, if spans are recorded; else None.

    An application that records has imported the API, so it is enough to check the imported modules.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return _tracer_of(provider)


@functools.lru_cache(maxsize=4)
def _tracer_of(provider: Any) -> Any:
    return provider.get_tracer("sahool-dlq")


def _context(carrier: Headers) -> Any:
    """The context in headers; an empty one if there is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    known = {key: value for key in _KEYS if (value := value_of(carrier, key))}
    return TraceContextTextMapPropagator().extract(known, Context())


def _carried() -> dict[str, str]:
    """The current span as headers; empty if no spans are recorded."""
    if _tracer() is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def _kind(name: str) -> Any:
    return sys.modules["opentelemetry.trace"].SpanKind[name.upper()]


def _attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): v for key, v in values.items() if v is not None}
