"""Adds our log lines to those of a run, in a worker, `serve`, a notebook or the demo.

Prefect has a setting for that (PREFECT_LOGGING_EXTRA_LOGGERS), but reads it at import, so it works
only if it was set before.
"""

import logging
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler
from prefect.settings import get_current_settings

__all__ = ["call_the_wait_no_error", "tell_prefect"]

_OURS = "sahool_dlq"


def tell_prefect() -> None:
    """Send our loggers' lines to Prefect, from INFO or PREFECT_LOGGING_LEVEL on."""
    logger = logging.getLogger(_OURS)
    if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
        handler = APILogHandler()
        handler.addFilter(_is_of_a_run)
        logger.addHandler(handler)
    wanted = logging.getLevelName(get_current_settings().logging.level)
    logger.setLevel(min(wanted, logging.WARNING))  # if Prefect's log level is higher, warnings stay


def call_the_wait_no_error() -> None:
    """Do not log this run's last line as an error if it was suspended."""
    logger: Any = get_run_logger()
    while isinstance(logger, logging.LoggerAdapter):
        logger = logger.logger
    logger.addFilter(_is_less)  # the same again counts once


def _is_of_a_run(_: logging.LogRecord) -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _is_less(record: logging.LogRecord) -> bool:
    """Lower the level of the line that Prefect logs as an error for every incomplete run."""
    if record.getMessage().startswith("Finished in state Suspended("):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "Waiting for approval; this process ends now.", ()
    return True
