"""Stages: the consecutive parts of a run, each a task that Prefect draws, times and logs."""

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task

from sahool_dlq.errors import DLQError, ServerUnavailableError
from sahool_dlq.orchestration.logs import tell_prefect
from sahool_dlq.orchestration.show import page_address

__all__ = ["Ended", "in_one_sentence", "stage"]

P = ParamSpec("P")
Done = TypeVar("Done")
Ended = tuple[str, bool]
"""The result of a stage as text, and whether it was stopped."""

_PAUSES_SECONDS = [2.0, 10.0]
logger = logging.getLogger(__name__)


async def stage(
    name: str,
    work: Callable[[], Awaitable[Done]],
    told: Callable[[Done], str | Ended] | None = None,
    *,
    is_repeatable: bool = False,
) -> Done:
    """Do a part of a run as a task with this name; `told` gives its result as text.

    If it `is_repeatable`, it can be done twice without harm: it is tried again, after 2 and 10
    seconds, if a server was down. Nothing is cached: if a run starts again, its stages do too.
    """
    found: list[Done] = []

    @task(
        name=name,
        task_run_name=lambda: name,  # a text would be a template, and errors have braces
        retries=len(_PAUSES_SECONDS),
        retry_delay_seconds=_PAUSES_SECONDS,
        retry_condition_fn=_is_outage if is_repeatable else _never,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    async def run() -> State[Any]:
        result = await work()
        found.append(result)
        said = told(result) if told else ""
        message, is_stopped = (said, False) if isinstance(said, str) else said
        return Failed(message=message) if is_stopped else Completed(message=message or None)

    await run()  # a state that it returns is no error, whatever it says
    return found[-1]


def _is_outage(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, ServerUnavailableError)


def _never(_task: Task[..., Any], _run: TaskRun, _state: State[Any]) -> bool:
    """Not `retries=0`, because then Prefect logs the traceback of an error that is already
    reported.
    """
    return False


def in_one_sentence(flow: Callable[P, Awaitable[State]]) -> Callable[P, Awaitable[State]]:
    """A flow's function: our log lines are in the run, and an error of ours is its complete
    message.

    Its last line has the address of the page of all groups, to which Prefect's own pages have no
    link.
    """

    @wraps(flow)
    async def run(*args: P.args, **kwargs: P.kwargs) -> State:
        tell_prefect()
        try:
            return await flow(*args, **kwargs)
        except DLQError as error:
            return Failed(message=str(error), data=error)
        finally:
            logger.info("The failure groups: %s", page_address())

    return run
