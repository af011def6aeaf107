"""A decorated handler that is called with arguments it does not accept."""

from typing import Any

import pytest

from sahool_dlq.events import NATSConsumerConfig, ProcessingResult
from sahool_dlq.events.beside.handlers import _run, with_dead_letters
from sahool_dlq.events.results import HandlerResult, Retry


class Ended:
    """The result of a call."""

    result: HandlerResult | None = None

    async def end(self, result: HandlerResult) -> None:
        self.result = result


async def test_a_handler_that_cannot_be_called_so_has_failed() -> None:
    call: Any = Ended()

    def work() -> Any:
        raise TypeError("handle() takes 1 positional argument but 2 were given")

    await _run(call, work, 1.0)
    assert isinstance(call.result, Retry)
    assert "takes 1 positional" in str(call.result.error)


async def test_without_a_message_the_error_says_what_is_missing() -> None:
    @with_dead_letters(NATSConsumerConfig(name="pricing"))
    async def handle(_: object) -> ProcessingResult:
        return ProcessingResult.SUCCESS

    with pytest.raises(TypeError, match="handle was called without a nats-py message"):
        await handle("no message")
