"""Errors over HTTP: problem details (RFC 9457) with the sentence that the command prints."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from sahool_dlq.errors import (
    AlertError,
    DLQError,
    FencedError,
    GroupError,
    LakeError,
    QueryError,
    RedriveError,
    SchemaError,
    SelectionError,
    ServerUnavailableError,
    StreamError,
    UnknownNameError,
)
from sahool_dlq.json_text import json_text

__all__ = ["PROBLEMS", "Problem", "answer_problems", "problem"]

logger = logging.getLogger(__name__)

# The first that fits, so subclasses come before their bases.
_STATUS: tuple[tuple[type[DLQError], int], ...] = (
    (UnknownNameError, 404),
    (QueryError, 400),
    (SelectionError, 400),
    (GroupError, 400),
    (FencedError, 409),
    (RedriveError, 409),
    (AlertError, 409),
    (ServerUnavailableError, 503),
    (SchemaError, 503),
    (StreamError, 503),
    (LakeError, 503),
    (DLQError, 500),
)


class Problem(BaseModel):
    """What went wrong."""

    type: str = Field("about:blank", description="about:blank: the status says which kind")
    title: str = Field(description="the words of the status")
    status: int
    detail: str = Field(description="one sentence: what is wrong, and what to do")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": what,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, what in {
        400: "what was given selects nothing, or cannot be used",
        401: "no token, or one that is not valid",
        403: "the token has no role with this right",
        404: "there is no such group, failure, incident or batch",
        409: "not possible in the present state",
        422: "the request is not valid",
        503: "NATS, PostgreSQL or the lake does not answer",
    }.items()
}


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An answer that says what is wrong."""
    told = Problem(
        type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail
    )
    return Response(
        json_text(told.model_dump()), status, headers, media_type="application/problem+json"
    )


def answer_problems(app: FastAPI) -> None:
    """Let every error of an app be a problem; one that is not ours says nothing of its cause."""
    app.add_exception_handler(DLQError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    if status >= 500:
        logger.warning("%s", error)
    return problem(status, str(error))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(422, f"{where} is not valid: {first['msg'].removeprefix('Value error, ')}.")


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return problem(error.status_code, f"{str(error.detail).rstrip('.')}.", headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    logger.error("An error that is a fault of ours", exc_info=error)
    return problem(500, "This is a fault of ours: the log of `dlq serve` has its traceback.")
