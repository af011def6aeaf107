"""Each verb does its work with the user and login that docs/security.md names for it."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from sahool_dlq.cli import VERBS, _command
from sahool_dlq.events import NATSPublisher
from sahool_dlq.events.publishing.publisher import NATSConfig
from sahool_dlq.jobs.drain import drain_log
from support.platform_log import environment
from support.roles import Roles, logged, service

pytestmark = pytest.mark.xdist_group("roles")

BY_HAND = "--reason test --by ana --json"
# Arguments; user of NATS, login of PostgreSQL. In this order: what one needs, those before it made.
CASES = [
    ("migrate", "operator", "postgres"),
    ("status", "drain", "drain"),
    ("status", "drain", "analyst"),
    ("drain", "drain", "drain"),
    ("marts", "drain", "drain"),
    ("groups", "drain", "analyst"),
    ("incidents", "drain", "analyst"),
    ("show {0}", "drain", "analyst"),
    ("why {group}", "reader", "analyst"),
    ("get {0} --raw --reason test", "reader", "reader"),
    ("export {0} --raw --reason test --output {home}/raw.jsonl", "reader", "reader"),
    ("export {0} --output {home}/masked.jsonl", "drain", "analyst"),
    ("deploys", "drain", "analyst"),
    ("report --json", "drain", "analyst"),
    ("alerts check", "drain", "alerts"),
    ("doctor --listen 0", "doctor", "analyst"),
    ("policy", "redriver", "redriver"),
    (f"park {{0}} {BY_HAND}", "redriver", "redriver"),
    (f"unpark {{0}} {BY_HAND}", "redriver", "redriver"),
    (f"group {{group}} --owner team-a {BY_HAND}", "redriver", "redriver"),
    (f"redrive {{0}} --yes {BY_HAND}", "redriver", "redriver"),
    ("policy run --by ana", "redriver", "redriver"),
    ("replay --consumer {durable} --since 1h --limit 1 --dry-run", "redriver", "redriver"),
    (f"replay --consumer {{durable}} --since 1h --limit 1 --yes {BY_HAND}", "redriver", "redriver"),
    ("batches", "redriver", "redriver"),
    (f"resolve {{1}} {BY_HAND}", "redriver", "redriver"),
    (f"discard {{2}} {BY_HAND}", "redriver", "redriver"),
    ("bridge --once", "bridge", "analyst"),
    ("redact --dry-run --limit 5", "drain", "drain"),
    ("adopt SAHOOL_EVENTS/quiet --proof --yes --reason test --by ana", "operator", "maintenance"),
    ("adopt SAHOOL_EVENTS/quiet --undo --yes --reason test --by ana", "operator", "maintenance"),
    ("audit", "drain", "auditor"),
    ("sql SELECT(1)", "drain", "analyst"),
    ("views", "drain", "analyst"),
    ("copy {home}/copy", "drain", "analyst"),
    ("maintain", "drain", "drain"),
    ("regroup", "drain", "drain"),
    ("verify", "drain", "drain"),
    ("verify --repair", "redriver", "maintenance"),
    ("erase --tenant nobody --yes --reason test --by ana", "operator", "maintenance"),
]
ELSEWHERE = {
    "up": "uses servers of its own",
    "demo": "test_demo.py, with --secured",
    "try": "test_demo.py, with --secured",
    "monitor": "test_roles_in_kubernetes.py",
    "exporter": "test_roles_in_kubernetes.py",
    "import": "test_imports.py: the other stream needs rights of its own",
    "incident": "reads what incidents reads",
    "contract": "reads what why reads",
    "deploy": "asks Prefect only",
    "serve": "test_serve.py; it does what other verbs do",
    "mcp": "test_mcp.py; it does what other verbs do",
    **dict.fromkeys(
        ("tokens", "nats-permissions", "fingerprint", "completion", "simulate", "tables"), ""
    ),
}


def test_every_verb_is_tried_or_asks_no_server() -> None:
    tried = {arguments.partition(" ")[0] for arguments, _, _ in CASES}
    assert tried | ELSEWHERE.keys() == VERBS.keys()
    assert not tried & ELSEWHERE.keys()


@pytest.fixture(scope="module")
def names(roles: Roles) -> dict[str, str]:
    """Ids of failures and their group, a durable, and a folder: for the arguments."""
    asyncio.run(_fail(roles))
    rows = roles.rows(
        "analyst",
        "SELECT id::text, group_id, consumer_name FROM dlq.failed_events"
        " WHERE event_id LIKE 'v%' ORDER BY event_id",
    )
    ids = {str(number): row[0] for number, row in enumerate(rows)}
    return {**ids, "group": rows[0][1], "durable": rows[0][2], "home": str(roles.home)}


async def _fail(roles: Roles) -> None:
    publisher = NATSPublisher(NATSConfig(servers=[roles.nats_url("service")]))
    assert await publisher.connect()
    for number in range(4):
        event = json.dumps({"event_id": f"v{number}"}).encode()
        assert await publisher.publish("sahool.analysis.ndvi", event)
    await publisher.close()
    async with service(roles, TimeoutError("slow tile")):
        await logged(roles, 2 + 4)
    await drain_log(roles.settings("drain", "drain"))


@pytest.mark.parametrize(
    ("arguments", "user", "login"), CASES, ids=[" ".join(each) for each in CASES]
)
async def test_a_verb_does_its_work_with_its_rights(
    roles: Roles,
    names: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    user: str,
    login: str,
) -> None:
    wanted = environment(roles.settings(user, login), DLQ_REDRIVE_DELAY_SECONDS="0")
    for name, value in wanted.items():
        if name.startswith("DLQ_"):
            monkeypatch.setenv(name, value)
    words = [each.format(*names.values(), **names) for each in arguments.split()]
    async with service(roles):
        done = await asyncio.to_thread(CliRunner().invoke, _command(), words)
    assert "does not permit" not in done.stderr
    assert "permission denied" not in done.stderr
    assert done.exit_code == 0, done.output
