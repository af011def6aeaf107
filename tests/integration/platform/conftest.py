"""A platform in which every part has its own login."""

from collections.abc import Iterator

import pytest

from sahool_dlq.embedded import PostgresServer
from support.roles import Roles, opened


@pytest.fixture(scope="module")
def roles(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Roles]:
    """Tests that use it are in the group "roles": its logins are the server's."""
    with opened(tmp_path_factory.mktemp("roles"), postgres_server) as found:
        yield found
