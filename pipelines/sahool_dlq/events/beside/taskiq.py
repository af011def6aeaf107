"""Dead letters for the tasks of Taskiq's JetStream brokers; needs the package `taskiq-nats`."""

import asyncio
import contextlib
import contextvars
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

from nats.aio.msg import Msg
from taskiq import AckableMessage, TaskiqMessage, TaskiqMiddleware, TaskiqResult
from taskiq.exceptions import NoResultError, TaskRejectedError
from taskiq_nats import PullBasedJetStreamBroker, PushBasedJetStreamBroker

from sahool_dlq.errors import StreamError
from sahool_dlq.events.beside.handlers import is_end
from sahool_dlq.events.beside.in_hand import Call
from sahool_dlq.events.beside.settlers import Settlers
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.results import DeadLetter, HandlerResult, ProcessingResult, Retry

__all__ = ["taskiq_dead_letters"]

_result: contextvars.ContextVar[TaskiqResult[Any] | None] = contextvars.ContextVar("result")
"""The error of this context's task; None if it did not fail, absent if no task began."""


def taskiq_dead_letters(
    broker: PullBasedJetStreamBroker | PushBasedJetStreamBroker, config: NATSConsumerConfig
) -> None:
    """Retry and dead-letter failures of a broker's tasks as `NATSConsumer` does.

    Call it before the broker starts. Do not use Taskiq's own retry middlewares, which would send a
    second task. It acknowledges when Taskiq does: after the end of a task, unless its `ack_type` is
    different. A task that Taskiq does not know or cannot read is dead-lettered too. Of `config` it
    uses `name`, `version`, the retries, the policies and the subjects, but not the connection.
    Raises StreamError for a broker without JetStream, which has no acknowledgements.
    """
    if not isinstance(broker, (PullBasedJetStreamBroker, PushBasedJetStreamBroker)):
        raise StreamError(
            f"{type(broker).__name__} acknowledges nothing, so no failure can be recorded: use"
            " PullBasedJetStreamBroker or PushBasedJetStreamBroker."
        )
    settlers = Settlers(config)
    begun = _Begun()
    listen = broker.listen

    async def listen_settled() -> AsyncGenerator[AckableMessage, None]:
        begun.forget_all()  # what an earlier worker took and did not begin
        async for message in _for_ever(listen):
            msg: Msg = message.ack.__self__  # type: ignore[attr-defined]  # a bound method of nats-py
            task_id, name = _task_of(broker, message.data)
            if call := await settlers.begin(msg, name):
                begun.calls[task_id].append(call)
                yield AckableMessage(data=message.data, ack=partial(begun.answer, task_id, call))

    broker.listen = listen_settled  # type: ignore[method-assign]  # taskiq has no hook for it
    broker.add_middlewares(begun)
    broker.middlewares.insert(0, broker.middlewares.pop())  # failures before it do not count


async def _for_ever(
    listen: Callable[[], AsyncGenerator[AckableMessage, None]],
) -> AsyncGenerator[AckableMessage, None]:
    """The messages of `listen`, for ever. taskiq-nats lets some timeouts of nats-py escape; they
    are not the end.
    """
    while True:
        with contextlib.suppress(TimeoutError):
            async for message in listen():
                yield message
            return


class _Begun(TaskiqMiddleware):
    """Knows the call of a Taskiq task and its result, until it is acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: defaultdict[str, list[Call]] = defaultdict(list)  # by task id

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        _result.set(None)
        running = asyncio.current_task()
        for call in self.calls.get(message.task_id, ())[:1]:
            self._forget(message.task_id, call)
            if (
                running is not None
            ):  # it may end without an acknowledgement: then the event is delivered again
                running.add_done_callback(partial(_leave, call))
        return message

    def on_error(
        self,
        message: TaskiqMessage,  # noqa: ARG002  (signature of taskiq)
        result: TaskiqResult[Any],
        exception: BaseException,  # noqa: ARG002  (signature of taskiq)
    ) -> None:
        _result.set(result)

    async def answer(self, task_id: str, call: Call) -> None:
        """Taskiq calls this to acknowledge a message."""
        self._forget(task_id, call)  # it does not begin what it cannot read
        said = _said()
        if isinstance(said, Retry) and said.error is not None and is_end(said.error):
            await call.give_back()  # the worker ends, which is no failure of the task
        else:
            await call.end(said)

    def forget_all(self) -> None:
        """Let what was taken and not begun come again."""
        for call in [each for calls in self.calls.values() for each in calls]:
            call.leave()
        self.calls.clear()

    def _forget(self, task_id: str, call: Call) -> None:
        calls = [each for each in self.calls.pop(task_id, ()) if each is not call]
        if calls:
            self.calls[task_id] = calls


def _leave(call: Call, _: asyncio.Task[Any]) -> None:
    call.leave()


def _said() -> HandlerResult:
    """The result of the task, in the form of our own handlers."""
    try:
        result = _result.get()
    except LookupError:
        return DeadLetter(
            "Taskiq does not know this task, or cannot read the message.", dlq_reason="no_task"
        )
    error = result.error if result is not None else None
    if isinstance(error, TaskRejectedError):
        return DeadLetter("The task rejected itself.", error, "rejected")
    if error is None or isinstance(error, NoResultError):  # the task was sent again
        return ProcessingResult.SUCCESS
    return Retry(error=error)


def _task_of(broker: Any, data: bytes) -> tuple[str, str]:
    """Id and name of the task in a message."""
    try:
        message = broker.formatter.loads(message=data)
        return message.task_id, message.task_name
    except Exception:  # noqa: BLE001  (whatever a formatter raises)
        return "", "unknown"
