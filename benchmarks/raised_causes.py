"""Failures of libraries as many programs meet them: really raised, with the label of their cause.

`raised_causes.toml` holds calls that raise each cause, and the programs of several authors, who
call, wrap, retry and gather differently. Each call runs in some of them, against servers on
loopback that refuse, close, keep silent or answer with an error. `_LAYOUTS` then says where the
libraries and the program are installed. The last labels ("of ours") are failures of the programs
themselves.
"""

import contextlib
import linecache
import logging
import re
import socket
import socketserver
import threading
import tomllib
import traceback
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Failure", "raised_causes"]


class Failure(NamedTuple):
    """One failure, as a dead letter tells it."""

    label: str
    error_type: str
    error_message: str
    stack_trace: str


_HELPERS = """\
import asyncio
ONCE = {"max_reconnect_attempts": 1, "reconnect_time_wait": 0.01, "connect_timeout": 1}
def once():
    import redis.backoff, redis.retry
    return redis.retry.Retry(redis.backoff.NoBackoff(), 0)
def aonce():
    import redis.backoff, redis.asyncio.retry
    return redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
async def get(url):
    import aiohttp
    limit = aiohttp.ClientTimeout(total=0.3)
    async with aiohttp.ClientSession(raise_for_status=True, timeout=limit) as session:
        async with session.get(url) as response:
            return await response.text()
def s3(port):
    import botocore.session, botocore.config
    return botocore.session.Session().create_client("s3", "eu-west-1", use_ssl=False,
        endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="a", aws_secret_access_key="b",
        config=botocore.config.Config(retries={"max_attempts": 0}))
try:
    import pydantic
    class Order(pydantic.BaseModel):
        id: int
        area_ha: float
except ImportError: ...
"""
_LAYOUTS: tuple[tuple[str, str, str, str], ...] = (
    # the program's folder, site-packages, the standard library, separator
    ("/app/", "/usr/local/lib/python3.11/site-packages/", "/usr/local/lib/python3.11/", "/"),
    ("/usr/src/app/", "/opt/venv/lib/python3.13/site-packages/", "/usr/lib/python3.13/", "/"),
    (
        "C:\\work\\svc\\",
        "C:\\work\\svc\\.venv\\Lib\\site-packages\\",
        "C:\\Program Files\\Python312\\Lib\\",
        "\\",
    ),
    (
        "/home/ana/code/",
        "/home/ana/miniconda3/envs/geo/lib/python3.12/site-packages/",
        "/home/ana/miniconda3/envs/geo/lib/python3.12/",
        "/",
    ),
    (
        "/srv/job.runfiles/_main/",
        "/srv/job.runfiles/rules_python~~pip~pypi_311_all/site-packages/",
        "/srv/job.runfiles/rules_python~~python~python_3_11/lib/python3.11/",
        "/",
    ),
    ("/var/task/", "/opt/python/lib/python3.12/site-packages/", "/var/lang/lib/python3.12/", "/"),
    ("/build/", "/usr/lib64/python3.9/site-packages/", "/usr/lib64/python3.9/", "/"),
)
_FRAME = re.compile(r'(?m)^([ |]*File ")([^"\n]*)(", line )([0-9]+)')


@cache
def raised_causes() -> list[Failure]:
    """Each call in three programs, each in a layout; the same for the same libraries."""
    failures = []
    turn = count()
    given = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    programs = list(given["programs"].items())
    with _servers() as ports, warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        logging.disable()
        stack.callback(logging.disable, logging.NOTSET)
        for label, calls in given["calls"].items():
            is_ours = "of ours" in label
            for call in calls:
                for name, port in ports.items():
                    call = call.replace(f"{{{name}}}", str(port))
                at = int(label[-1]) if is_ours else next(turn)
                for step in (0,) if is_ours else (0, 1, 3):
                    file, source = programs[(at + step) % len(programs)]
                    error, trace = _raised(file, _HELPERS + source.replace("{call}", call))
                    kind = type(error)
                    name = kind.__qualname__
                    if kind.__module__ not in ("builtins", "__main__"):
                        name = f"{kind.__module__}.{name}"
                    placed = _placed(trace, _LAYOUTS[(at + 2 * step) % len(_LAYOUTS)])
                    failures.append(Failure(label, name, str(error), placed))
    return failures


def _raised(file: str, source: str) -> tuple[BaseException, str]:
    """What the program's `run` raises, and the trace."""
    path = f"/checkout/{file}"
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module: dict[str, Any] = {"__name__": file.removesuffix(".py").replace("/", ".")}
    try:
        exec(compile(source, path, "exec"), module)  # noqa: S102  (the programs above)
        module["run"]({"id": 7})
    except Exception as error:  # noqa: BLE001  (whatever it is)
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        trace = "".join(traceback.format_exception(type(error), error, frames))
        return error, trace
    finally:
        del linecache.cache[path]
    raise AssertionError(f"this raises nothing: {source}")


def _placed(trace: str, layout: tuple[str, str, str, str]) -> str:
    """The trace as it would read where code and libraries are installed elsewhere."""
    ours, packages, standard, separator = layout

    def placed(found: re.Match[str]) -> str:
        path, line = found[2], int(found[4]) + len(ours)
        if (folder := "/checkout/") in path:
            path = ours + path.removeprefix(folder).replace("/", separator)
        elif (folder := "/site-packages/") in path:
            path = packages + path.partition(folder)[2].replace("/", separator)
        elif library := re.match(r".*/lib/python3\.[0-9]+/", path):
            path = standard + path[library.end() :].replace("/", separator)
        return f"{found[1]}{path}{found[3]}{line}"

    return _FRAME.sub(placed, trace)


class _Closing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(4096)


class _Failing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
            b"busy"
        )


class _Silent(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(4096):
            pass


@contextlib.contextmanager
def _servers() -> Iterator[dict[str, int]]:
    """The ports: `refused` is taken, but nobody listens there."""
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        ports = {"refused": taken.getsockname()[1]}
        for name, handler in (("closing", _Closing), ("failing", _Failing), ("silent", _Silent)):
            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            ports[name] = server.server_address[1]
        yield ports
