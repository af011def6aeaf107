"""The blocks and the automation templates on a real Prefect server, as people use them."""

import asyncio
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml
from prefect_api import Platform, until
from pydantic import SecretStr

from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.settings import Settings
from support import ROOT
from support.platform_log import query
from support.redriving import Service, event_ids, fail

pytestmark = pytest.mark.xdist_group("prefect")  # one Prefect server is enough

FLOW = """
import asyncio, json, sys
from prefect import flow
from sahool_dlq.orchestration.blocks import DlqPlatform, NatsConnection

@flow
def mine():
    platform = DlqPlatform.load("prod")
    drained = platform.drain().drained
    [(group,)] = platform.query("SELECT group_id FROM groups").rows()
    planned = platform.dry_run(group=group[:6]).plan.count
    report = platform.redrive(group=group[:6], reason="the sensor is back")
    return drained, group, planned, report.state, report.outcomes

@flow
async def too():
    platform = await DlqPlatform.aload("prod")
    state = await platform.astatus()
    return state.failures

_, nats_url, dsn, lake = sys.argv
streams = {f"{name}_stream": f"B_{name}" for name in ("events", "dlq", "totals", "attempts")}
DlqPlatform(
    nats=NatsConnection(url=nats_url),
    postgres_dsn=dsn,
    lake_uri=lake,
    options={"subject_prefix": "blocks", **streams},
).save("prod", overwrite=True)
print(json.dumps([mine(), asyncio.run(too())]))
"""
EVENT = """
from sahool_dlq.orchestration.show import happened
from prefect.events.worker import EventsWorker
happened("dlq.groups.escalating", "dlq.groups", "2 groups", {"groups": []},
         groups=["1f0c"], services=["tiles"])
happened("dlq.groups.escalating", "dlq.groups", "3 groups", {"groups": []},
         groups=[f"g{n}" for n in range(500)], services=["billing", "tiles"])
EventsWorker.instance().drain()
"""


def run(platform: Platform, *words: str) -> str:
    """A process of somebody who uses this Prefect server; what it printed last."""
    done = subprocess.run(
        words, env=platform.environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_flow_of_ones_own_redrives_a_group_with_a_block_and_no_variables(
    prefect_platform: Platform, migrated_dsn: str, tmp_path: Path
) -> None:
    nats_url = prefect_platform.settings.nats_url
    names = ("events", "dlq", "totals", "attempts")
    settings = Settings(
        home=tmp_path,
        nats_url=nats_url,
        postgres_dsn=SecretStr(migrated_dsn),
        lake_uri=str(tmp_path / "lake"),
        subject_prefix="blocks",
        **{f"{name}_stream": f"B_{name}" for name in names},
    )
    client = await nats.connect(nats_url.get_secret_value())
    await ensure_streams(client.jetstream(timeout=60), settings.stream_names)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 3)
        service.error = None
        words = (nats_url.get_secret_value(), migrated_dsn, settings.lake)
        said = await asyncio.to_thread(run, prefect_platform, sys.executable, "-c", FLOW, *words)
    await client.close()
    (drained, group, planned, state, outcomes), failures = json.loads(said.splitlines()[-1])
    assert (drained, planned, state, outcomes) == (3, 3, "done", {"succeeded": 3})
    assert failures == {"resolved": 3}
    assert sorted(event_ids(service)) == ["e0", "e1", "e2"]
    [batch] = query(settings, "SELECT requested_by, reason, selection FROM redrive_batches")
    assert (batch["requested_by"], batch["reason"]) == ("flow mine", "the sensor is back")
    assert batch["selection"]["group_id"] == group
    stored = json.dumps(prefect_platform.call("/block_documents/filter", {}))
    assert '"prod"' in stored
    assert migrated_dsn not in stored


class Received(BaseHTTPRequestHandler):
    """Keeps what a notification says."""

    said: list[Any]

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.said.append(json.loads(self.rfile.read(size)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002
        """Nothing."""


def test_the_templates_make_automations_that_hear_of_a_service(
    prefect_platform: Platform, tmp_path: Path
) -> None:
    said: list[Any] = []
    handler = type("Handler", (Received,), {"said": said})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made: list[str] = []
    try:
        save = (
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as B;"
            f"print(B(name='x', url='http://127.0.0.1:{server.server_port}/', method='POST',"
            " json_data={'subject': '{{subject}}', 'body': '{{body}}'},"
            ").save('inbox', overwrite=True))"
        )
        block = run(prefect_platform, sys.executable, "-c", save).split()[-1]
        deployment = prefect_platform.deployments()["report"]["id"]
        text = (ROOT / "deploy/automations.yaml").read_text()
        text = text.replace("NOTIFICATION_BLOCK", block).replace("DEPLOYMENT\n", f"{deployment}\n")
        (tmp_path / "automations.yaml").write_text(text)
        names = {each["name"] for each in yaml.safe_load(text)["automations"]}
        prefect = str(Path(sys.executable).parent / "prefect")
        create = ("automation", "create", "--from-file", str(tmp_path / "automations.yaml"))
        run(prefect_platform, prefect, "--no-prompt", *create)
        found = {a["name"]: a["id"] for a in prefect_platform.call("/automations/filter", {})}
        made = [found[name] for name in names]
        run(prefect_platform, sys.executable, "-c", EVENT)
        until(lambda: said or None, "the notification", 120)
        assert [each["subject"] for each in said] == ["Failures of billing escalate"]
        assert said[0]["body"].startswith("3 groups: dlq groups --service billing")
    finally:
        for automation in made:
            prefect_platform.call(f"/automations/{automation}", method="DELETE")
        server.shutdown()
        server.server_close()
