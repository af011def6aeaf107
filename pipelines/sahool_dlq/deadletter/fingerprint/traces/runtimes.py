"""Which packages only pass on what others raise: runtimes, event loops, frameworks that call us."""

import re
from enum import IntEnum
from functools import lru_cache

__all__ = ["SAME_PACKAGE", "Rank", "rank"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STANDARD_PLUMBING = _words(
    "abc _collections_abc _compression _weakref asyncio asyncore builtins codecs collections"
    " concurrent contextlib contextvars copy dataclasses encodings enum functools http importlib"
    " inspect io logging multiprocessing os pathlib posixpath queue _queue runpy select"
    " selectors shutil signal site socket socketserver ssl subprocess tempfile threading"
    " traceback types typing unittest weakref"
)
"""Modules of Python that a library or our code calls: that caller tells the cause."""

_STANDARD_TOOLS = _words(
    "array ast base64 binascii bisect bz2 calendar compression configparser csv ctypes"
    " datetime decimal difflib email fractions ftplib gettext glob gzip hashlib heapq hmac html"
    " imaplib ipaddress locale lzma marshal math mimetypes operator pickle plistlib poplib"
    " random re secrets shelve shlex smtplib statistics string struct tarfile tokenize"
    " tomllib turtle unicodedata urllib uuid wave xml xmlrpc zipfile zlib zoneinfo"
)
"""Modules of Python that raise failures of their own; json and sqlite3 are drivers for
every library that uses them.
"""

_TRANSPORTS = _words("aiohttp h11 h2 httpcore httplib2 requests websockets wsproto")
"""Clients of a protocol: a library that uses one tells more."""

_FRAMEWORKS = _words(
    "aiohappyeyeballs anyio async_timeout asgiref backoff billiard celery curio ddtrace"
    " decorator dramatiq elasticapm eventlet exceptiongroup fastapi faststream flask gevent"
    " greenlet gunicorn huey hypercorn newrelic opentelemetry prefect pytest _pytest pluggy"
    " quart retry retrying rq sanic sentry_sdk sniffio stamina starlette taskiq tenacity tornado"
    " trio uvicorn uvloop werkzeug wrapt"
)
"""Packages that call our code, retry it or watch it; what they raise tells of another failure."""

SAME_PACKAGE = {
    "aiobotocore": "botocore",
    "aioredis": "redis",
    "boto3": "botocore",
    "elastic_transport": "elasticsearch",
    "httpx": "httpcore",
    "motor": "pymongo",
    "pydantic_core": "pydantic",
    "urllib3": "requests",
    "simplejson": "json",
}
"""Packages that say a failure in the words of another, below them."""

_RUNTIME = re.compile(
    r"(?:javax?|jdk|sun|com\.sun|kotlinx?|scala|groovy|clojure|reactor|System|Microsoft|Internal"
    r"|Interop|std|core|alloc|__rustc|tokio|futures|runtime|net|syscall|internal|context|node)"
    r"(?:[.:].*)?$"
)


class Rank(IntEnum):
    """How much a package tells about a cause, the most first."""

    DRIVER = 0
    TRANSPORT = 1
    STANDARD = 2
    FRAMEWORK = 3
    PLUMBING = 4


@lru_cache(maxsize=10_000)
def rank(name: str) -> Rank:
    """The rank of a package."""
    if not name or name in _STANDARD_PLUMBING or _RUNTIME.match(name):
        return Rank.PLUMBING
    if name in _FRAMEWORKS:
        return Rank.FRAMEWORK
    if name in _STANDARD_TOOLS:
        return Rank.STANDARD
    return Rank.TRANSPORT if name in _TRANSPORTS else Rank.DRIVER
