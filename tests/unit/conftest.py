"""Shared by unit tests of several folders."""

from collections.abc import Iterator

import pytest

from sahool_dlq.analysis.marts.views import create_views
from support.lake_log import Log


@pytest.fixture(scope="module")
def log_with_views() -> Iterator[Log]:
    """One log for all tests and examples of a module: clear it first."""
    log = Log()
    create_views(log.connection)
    yield log
    log.connection.close()
