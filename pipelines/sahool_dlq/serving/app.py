"""The application that `dlq serve` serves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from sahool_dlq.serving import acting, reading
from sahool_dlq.serving.bounded import Bounded
from sahool_dlq.serving.models import Health
from sahool_dlq.serving.problems import PROBLEMS, answer_problems
from sahool_dlq.serving.runs import Runs
from sahool_dlq.serving.tokens import Tokens
from sahool_dlq.settings import Settings

__all__ = ["make_app"]

_AT_ONCE = 8
"""Requests whose jobs run at the same time; others wait."""

_ABOUT = """
The jobs of `dlq` over HTTP: what the command prints with `--json`, these requests answer.

Every request needs a token, which says who acts and what they may do (`dlq tokens`). All values of
events are redacted. A redrive is planned, approved, and then runs here: `POST /v1/redrives`,
`POST /v1/batches/{id}/approve`, `GET /v1/batches/{id}`. An error is a problem (RFC 9457); its
`detail` is the sentence that the command prints.
"""


def make_app(settings: Settings) -> FastAPI:
    """The application; it serves its own description, with the files that this needs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _AT_ONCE
        runs = Runs(settings)
        app.state.runs = runs
        await to_thread.run_sync(runs.__enter__)
        try:
            yield
        finally:
            await to_thread.run_sync(runs.__exit__, None, None, None)

    app = FastAPIOffline(
        redoc_url=None,
        title="sahool-dlq",
        version=version("sahool-dlq"),
        description=_ABOUT,
        lifespan=lifespan,
        responses=PROBLEMS,
        swagger_ui_parameters={"defaultModelsExpandDepth": -1, "displayRequestDuration": True},
    )
    app.state.settings, app.state.tokens = settings, Tokens(settings)
    answer_problems(app)
    app.add_middleware(Bounded)
    app.include_router(reading.router)
    app.include_router(acting.router)

    @app.get("/health", tags=["look"], responses={200: {"model": Health}})
    async def health() -> Health:
        """The service answers; it asks no server."""
        return Health()

    return app
