"""Which functions are accepted as handlers, and handlers that are not async after all."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from sahool_dlq.events.handlers import as_async, name_of


async def good(event: str) -> str:
    return event.upper()


def plain(event: str) -> str:
    return event.upper()


async def with_settings(_settings: dict[str, str], event: str) -> str:
    return event.upper()


def plain_with_settings(_settings: dict[str, str], event: str) -> str:
    return event.upper()


async def generator(event: str) -> Any:
    yield event


def coroutine_maker(event: str) -> Awaitable[str]:
    return good(event)


def said_as_a_string(event: str) -> "asyncio.Task[str]":
    return asyncio.create_task(good(event))


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(event: str) -> Any:
        return function(event)

    return wrapper


def decorated_without_wraps(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Service:
    async def method(self, event: str) -> str:
        return event.upper()

    def plain(self, event: str) -> str:
        return event.upper()

    @classmethod
    async def of_class(cls, event: str) -> str:
        return event.upper()

    @staticmethod
    async def static(event: str) -> str:
        return event.upper()


class Callable_:  # noqa: N801  (Callable is a name of typing)
    async def __call__(self, event: str) -> str:
        return event.upper()


class Plain:
    def __call__(self, event: str) -> str:
        return event.upper()


SURE: list[Any] = [
    good,
    functools.partial(with_settings, {}),
    functools.partial(functools.partial(with_settings), {}),
    Service().method,
    Service.of_class,
    Service.static,
    Callable_(),
    functools.partial(Callable_()),
    AsyncMock(return_value="X"),
]
UNKNOWN: list[Any] = [
    lambda event: good(event),
    coroutine_maker,
    said_as_a_string,
    decorated(good),
    decorated(Service().method),
    decorated_without_wraps(good),
    Mock(side_effect=good),
    MagicMock(side_effect=good),
    functools.partial(decorated_without_wraps(with_settings), {}),
]
REFUSED: list[Any] = [
    plain,
    functools.partial(plain_with_settings, {}),
    decorated(plain),
    Service().plain,
    Plain(),
    generator,
    None,
    "handle",
    Service(),
]


@pytest.mark.parametrize("handler", SURE)
async def test_what_is_async_is_taken_as_it_is(handler: Any) -> None:
    assert as_async(handler) is handler
    assert await handler("x") == "X"


@pytest.mark.parametrize("handler", UNKNOWN)
async def test_what_turns_out_to_be_async_is_taken_too(handler: Any) -> None:
    taken = as_async(handler)
    assert await taken("x") == "X"
    assert name_of(taken) == name_of(handler)


@pytest.mark.parametrize("handler", REFUSED)
def test_what_is_surely_not_async_is_refused_in_a_sentence(handler: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^\S+ is not async: write `async def`, and run blocking .*\.$"
    ):
        as_async(handler)


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (lambda event: event, "<lambda>"),
        (decorated_without_wraps(plain), "wrapper"),
        (Mock(return_value="X"), "Mock"),
    ],
)
async def test_what_turns_out_not_to_be_is_refused_at_the_call(handler: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is not async: it returned str"):
        await as_async(handler)("x")
    assert str(await as_async(handler, repr)("x")).startswith("TypeError(")
