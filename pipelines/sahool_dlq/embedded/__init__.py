"""NATS, PostgreSQL and Prefect from wheels on loopback: for `dlq demo`, `dlq up` and tests.

Each is a context manager over a home folder; servers never outlive the process that started
them (see `guard.py`).
"""

from typing import TYPE_CHECKING

from sahool_dlq.lazy import lazy_getattr

if TYPE_CHECKING:
    from sahool_dlq.embedded.nats import NatsServer
    from sahool_dlq.embedded.postgres import PostgresServer
    from sahool_dlq.embedded.prefect import PrefectServer
else:  # each needs other packages: NATS alone is what examples and tests of services use
    __getattr__ = lazy_getattr(
        __name__,
        {"nats": ["NatsServer"], "postgres": ["PostgresServer"], "prefect": ["PrefectServer"]},
    )

__all__ = ["NatsServer", "PostgresServer", "PrefectServer"]
