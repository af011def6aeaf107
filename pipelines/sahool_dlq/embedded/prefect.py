"""A Prefect server, started as a program: nothing of Prefect is imported here."""

import base64
import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from sahool_dlq.embedded.server import HOST, EmbeddedServer
from sahool_dlq.errors import ServerUnavailableError

HEALTH_TIMEOUT_SECONDS = 2.0
_ANSWER_SECONDS = 20.0
NO_ANALYTICS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
# A run of a few seconds leaves some seventy event rows, and nothing deletes runs by default.
RETENTION = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "1209600",  # 14 days, in seconds
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
}


class PrefectServer(EmbeddedServer):
    """The Prefect API, UI and background services in one process, as the present user."""

    title = "Prefect"
    folder = "prefect"
    grace_seconds = 15.0
    ready_seconds = 120.0  # the first start makes the tables

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        *,
        database_dsn: str | None,  # postgresql://…, a database of its own; None: SQLite in home
        settings: Mapping[str, str] | None = None,  # more PREFECT_* variables for the server
        has_login: bool = True,
    ) -> None:
        super().__init__(home, port, has_login=has_login)
        self._database_dsn = database_dsn
        self._settings = dict(settings or {})

    @property
    def ui_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.ui_url}/api"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process needs to use this server and no other."""
        bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        return {
            "PREFECT_HOME": str(self.data),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_PROFILE": "local",  # the profile of a new PREFECT_HOME, whatever the user's is
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # an error, not a second server
            "no_proxy": f"{bypassed},{HOST}" if bypassed else HOST,
            **({"PREFECT_API_AUTH_STRING": self._login.rstrip("@")} if self._has_login else {}),
            **NO_ANALYTICS,
        }

    def _prepare(self) -> None:
        if util.find_spec("prefect") is None:
            raise ServerUnavailableError(
                "Prefect is not installed: run pip install 'sahool-dlq[pipelines]'"
            )
        super()._prepare()

    def _command(self) -> Sequence[str | Path]:
        where = ["--host", HOST, "--port", str(self.port)]
        return [sys.executable, "-m", "prefect", "server", "start", *where]

    def _environment(self) -> Mapping[str, str]:
        # The user's PREFECT_* variables are about other servers.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        database = (
            self._database_dsn.replace("postgresql://", "postgresql+asyncpg://", 1)
            if self._database_dsn
            else f"sqlite+aiosqlite:///{self.data / 'prefect.db'}"
        )
        return {
            **inherited,
            **self.environment,
            **RETENTION,
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_UI_API_URL": self.api_url,
            # By default the UI's files are copied into the installed package.
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.data / "ui"),
            **(
                {"PREFECT_SERVER_API_AUTH_STRING": self._login.rstrip("@")}
                if self._has_login
                else {}
            ),
            **self._settings,
        }

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=HEALTH_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().read() == b"true"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def start_run(self, deployment: str) -> None:
        """Start a run of a deployment whose flow has the same name.

        Raises ServerUnavailableError if the server does not accept it.
        """
        found = self._ask("GET", f"/api/deployments/name/{deployment}/{deployment}")
        self._ask("POST", f"/api/deployments/{found['id']}/create_flow_run", {})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._has_login:
            login = base64.b64encode(self._login.rstrip("@").encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise ServerUnavailableError(f"Prefect refuses {method} {path}: {answer.status}")
            return json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerUnavailableError(f"Prefect does not answer: {error!r}") from error
        finally:
            connection.close()
