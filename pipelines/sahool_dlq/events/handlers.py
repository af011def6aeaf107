"""Checks that a service's functions are async, before and after the call."""

import functools
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AWAITABLE = re.compile(r"\b(Awaitable|Coroutine|Future|Task)\b")
_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function, method, partial or callable object."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return str(getattr(function, "__qualname__", type(function).__name__))


def as_async(
    function: Callable[[T], Awaitable[R]], refuse: Callable[[TypeError], R] | None = None
) -> Callable[[T], Awaitable[R]]:
    """`function`, if it is async; raises TypeError if it surely is not.

    For some it is unknown before the call: a lambda, a mock, a decorator's wrapper. If these return
    something that cannot be awaited, `refuse` gives the result; without it a TypeError is raised.
    """
    check_async(function)
    if _is_async(function):
        return function

    async def call(argument: T) -> R:
        said: object = function(argument)
        if inspect.isawaitable(said):
            result: R = await said
            return result
        error = TypeError(
            f"{name_of(function)} is not async: it returned {type(said).__name__}, which cannot be"
            " awaited; write `async def`."
        )
        if refuse is None:
            raise error
        return refuse(error)

    call.__qualname__ = name_of(function)
    return call


def check_async(function: Any) -> None:
    """Raise TypeError for a function that surely is not async."""
    if not _is_async(function) and (not callable(function) or _is_plain(function)):
        raise TypeError(
            f"{name_of(function)} is not async: write `async def`, and run blocking work with "
            "asyncio.to_thread."
        )


def _is_async(function: Any) -> bool:
    """Whether a call surely returns a coroutine, below partials and decorators."""
    while isinstance(function, functools.partial):
        function = function.func
    called = type(function).__call__ if not inspect.isroutine(function) else function
    return any(
        inspect.iscoroutinefunction(each) or _flags(each) & inspect.CO_COROUTINE
        for each in (function, called)
    )


def _flags(function: Any) -> int:
    """The flags of its code object; an AsyncMock can be recognised only by these."""
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def _is_plain(function: Any) -> bool:
    """Whether it is a `def` that takes an event and does not declare an awaitable result.

    A function without a parameter of its own (`*args, **kwargs`) passes on another's result.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = getattr(function, "__call__", None)  # noqa: B004  (bound, whatever it is)
    whole = inspect.unwrap(function)
    if _is_async(whole) or not (inspect.isfunction(function) or inspect.ismethod(function)):
        return False
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return True
    signature = inspect.signature(function, follow_wrapped=False)
    says = signature.return_annotation
    return (
        function.__name__ != "<lambda>"
        and any(each.kind in _NAMED for each in signature.parameters.values())
        and not (says is not signature.empty and _AWAITABLE.search(str(says)))
    )
