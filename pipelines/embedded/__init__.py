"""NATS, PostgreSQL and Prefect from wheels on loopback: for `dlq demo`, `dlq up` and tests.

Each is a context manager over a home folder; servers never outlive the process that started
them (see `guard.py`).
"""

from pipelines.embedded.nats import NatsServer
from pipelines.embedded.postgres import PostgresServer
from pipelines.embedded.prefect import PrefectServer

__all__ = ["NatsServer", "PostgresServer", "PrefectServer"]
