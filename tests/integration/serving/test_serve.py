"""`dlq serve` on real servers: each request, each role, what goes wrong, the audit."""

import asyncio
import json
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.connections import open_lock
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.serving.bounded import MOST_BYTES
from sahool_dlq.settings import Settings
from support.platform_log import execute, query
from support.redriving import Service, event_ids, fail, quick, seen
from support.running import dlq
from support.serving import served

TIMEOUTS = {"selection": {"error_types": ["TimeoutError"]}}
SECRET = "hunter2-planted"


async def failing(settings: Settings, client: Client, service: Service, count: int) -> None:
    """Failures, drained, with their marts."""
    await fail(settings, client, service, count, password=SECRET, note="ignore all rules")
    await drain_log(settings)
    await asyncio.to_thread(build_all_marts, settings)


async def test_reading_is_what_the_command_prints_and_what_openapi_describes(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await failing(settings, client, service, 3)
    await evaluate_alerts(settings)
    async with served(settings) as api:
        group = (await api.told("analyst", "GET", "/v1/groups"))["groups"][0]["group_id"]
        verbs = {
            "/v1/status": ("status",),
            "/v1/groups": ("groups",),
            f"/v1/groups/{group[:6]}": ("show", group),
            "/v1/incidents": ("incidents",),
            "/v1/alerts": ("alerts",),
            "/v1/batches": ("batches",),
        }
        for path, words in verbs.items():
            told = await api.told("analyst", "GET", path)
            printed = json.loads((await dlq(settings, *words, "--json")).stdout)
            more = {"total": told["total"]} if "total" in told else {}
            assert told == printed | more, path
        shown = (await api.ask("analyst", "GET", f"/v1/groups/{group}")).text
        assert SECRET not in shown
        assert "ignore all rules" in shown  # data, which nobody obeys
        none = await api.told("analyst", "GET", "/v1/groups?service=none&limit=1")
        assert none == {"groups": [], "total": 0}
        page = await api.told("analyst", "GET", "/v1/groups?offset=1")
        assert page == {"groups": [], "total": 1}
        assert (await api.client.get("/health")).json() == {"status": "ok"}


async def test_a_plan_waits_for_approval_then_runs_and_the_audit_names_the_token(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with (
        Service(settings, TimeoutError("slow")).running() as service,
        served(settings) as api,
    ):
        await failing(settings, client, service, 5)
        service.error = None
        plan = await api.told("analyst", "POST", "/v1/redrives/preview", **TIMEOUTS)
        assert plan["planned"] == 5
        body = {"redrive": TIMEOUTS, "reason": "tiles are back"}
        stored = await api.told("planner", "POST", "/v1/redrives", **body)
        batch = stored["batch"]["id"]
        assert (stored["batch"]["state"], stored["plan"]["planned"]) == ("awaiting_approval", 5)
        refused = await api.ask("planner", "POST", f"/v1/batches/{batch}/approve", reason="now")
        assert refused.status_code == 403
        assert len(service.seen) == 0
        empty = await api.told("planner", "POST", "/v1/redrives", **body)
        assert empty == {"batch": None, "plan": None}  # the first batch has them
        approved = await api.ask("redriver", "POST", f"/v1/batches/{batch}/approve", reason="now")
        assert (approved.status_code, approved.json()["state"]) == (202, "running")
        done = await api.until(batch, "done")
        assert done["batch"]["outcomes"] == {"succeeded": 5}
        assert done["problem"] is None
        assert "history" not in done
        again = await api.ask("redriver", "POST", f"/v1/batches/{batch}/approve", reason="now")
        printed = await dlq(settings, "batches", "approve", batch, "--json")
        assert again.status_code == 409
        assert again.json()["detail"] == json.loads(printed.stderr)["error"]
        trail = (await api.told("auditor", "GET", f"/v1/audit?about={batch}"))["audit"]
    assert [(row["action"], row["actor"]) for row in reversed(trail)] == [
        ("redrive.planned", "planner"),
        ("redrive.awaiting_approval", "planner"),
        ("redrive.running", "redriver"),
        ("redrive.done", "planner"),
    ]
    assert {row["detail"]["channel"] for row in trail} == {"http"}
    assert sorted(event_ids(service)) == [f"e{n}" for n in range(5)]


async def test_a_batch_that_runs_is_paused_when_the_service_ends_and_resumed_later(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_per_second=5)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await failing(settings, client, service, 40)
        service.error = None
        async with served(settings) as api:
            body = {"redrive": TIMEOUTS, "reason": "tiles are back"}
            batch = (await api.told("planner", "POST", "/v1/redrives", **body))["batch"]["id"]
            await api.told("redriver", "POST", f"/v1/batches/{batch}/approve", reason="now")
            await seen(service, 12)
        [row] = query(settings, "SELECT state, state_reason FROM redrive_batches")
        assert row == {"state": "paused", "state_reason": "dlq serve was stopped"}
        assert 12 <= len(service.seen) < 40
        (settings.home / "tokens.json").unlink()
        fast = quick(settings, redrive_per_second=1_000)
        async with served(fast) as api:
            await api.told("redriver", "POST", f"/v1/batches/{batch}/resume", reason="up again")
            done = await api.until(batch, "done")
    assert done["batch"]["outcomes"] == {"succeeded": 40}
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(40))


async def test_a_batch_waits_while_the_redrive_of_another_process_runs(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    running = Service(settings, TimeoutError("slow")).running()
    async with running as service, served(settings) as api:
        await failing(settings, client, service, 2)
        service.error = None
        body = {"redrive": TIMEOUTS, "reason": "tiles are back"}
        batch = (await api.told("planner", "POST", "/v1/redrives", **body))["batch"]["id"]
        with open_lock(settings, "redrive") as lock:
            assert lock.take()
            await api.told("redriver", "POST", f"/v1/batches/{batch}/approve", reason="now")
            async with asyncio.timeout(60):
                while not (shown := await api.told("analyst", "GET", f"/v1/batches/{batch}"))[
                    "problem"
                ]:
                    await asyncio.sleep(0.1)
            assert shown["is_running"]
            assert "Another redrive is running" in shown["problem"]
            assert service.seen == []
        done = await api.until(batch, "done")
    assert (done["problem"], done["batch"]["outcomes"]) == (None, {"succeeded": 2})


async def test_decisions_and_care_of_groups_name_the_token(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with (
        Service(settings, TimeoutError("slow")).running() as service,
        served(settings) as api,
    ):
        await failing(settings, client, service, 2)
        [row] = query(settings, "SELECT DISTINCT group_id FROM failed_events")
        chosen = {"selection": {"group_id": row["group_id"][:6]}}
        parked = {**chosen, "decision": "parked", "reason": "wait for 2.4"}
        assert (await api.ask("planner", "POST", "/v1/decisions", **parked)).status_code == 403
        assert (await api.told("redriver", "POST", "/v1/decisions", **parked))["changed"] == 2
        change = {"owner": "team-a", "mute": "100 more", "reason": "known"}
        path = f"/v1/groups/{row['group_id'][:6]}"
        care = (await api.told("redriver", "PATCH", path, **change))["group"]
        assert (care["owner"], care["mute_more"]) == ("team-a", 100)
        both = await api.ask("redriver", "PATCH", path, unmute=True, **change)
        assert both.status_code == 400
        replays = {"replay": {"consumer": "ndvi", "since": "1h"}, "reason": "wrong prices"}
        assert (await api.told("planner", "POST", "/v1/replays", **replays))["batch"] is None
        execute(
            settings,
            "INSERT INTO alerts (rule, scope, subject, state, severity, value, above, since,"
            " detail, started_at, seen_at, fired_at) VALUES ('service_failing', 'all', 'ndvi',"
            " 'firing', 'critical', 0.9, 0.5, now(), '', now(), now(), now())",
        )
        alert = (await api.told("analyst", "GET", "/v1/alerts"))["alerts"][0]["id"]
        seen_to = {"ids": [alert], "reason": "rolled back"}
        refused = await api.ask("redriver", "POST", "/v1/alerts/acknowledge", **seen_to)
        assert refused.status_code == 403
        told = await api.told("alerts", "POST", "/v1/alerts/acknowledge", **seen_to)
        assert told == {"acknowledged": [alert], "untold": []}
        again = (await api.told("analyst", "GET", "/v1/alerts"))["alerts"][0]
        assert (again["acked_by"], again["ack_reason"]) == ("alerts", "rolled back")
    rows = query(settings, "SELECT action, actor, detail->>'channel' AS how FROM audit_log")
    assert {(r["action"], r["actor"], r["how"]) for r in rows} == {
        ("triage.parked", "redriver", "http"),
        ("triage.parked.done", "redriver", "http"),
        ("group.changed", "redriver", "http"),
        ("alert.acknowledged", "alerts", "http"),
    }


@pytest.mark.parametrize("token", [None, "wrong", "dlq_" + "x" * 43])
async def test_no_token_or_a_wrong_one_is_refused_with_a_sentence(
    settings: Settings, client: Client, token: str | None
) -> None:
    async with served(settings) as api:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        described = (await api.client.get("/openapi.json")).json()["paths"]
        asked = [(method, path) for path, each in described.items() for method in each]
        asked.remove(("get", "/health"))
        assert len(asked) > 17
        for method, path in asked:
            where = path.replace("{id}", "1f0c").replace("{action}", "approve")
            answer = await api.client.request(method, where, headers=headers, json={})
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"].endswith(".")


async def test_what_is_wrong_is_a_problem_with_the_sentence_of_the_command(
    settings: Settings, client: Client
) -> None:
    async with served(settings) as api:
        asked: list[tuple[str, str, str, dict[str, Any], int, str]] = [
            ("analyst", "GET", "/v1/batches/7d1e", {}, 404, "There is no batch '7d1e'"),
            ("analyst", "GET", "/v1/audit", {}, 403, "it needs the role auditor"),
            ("auditor", "GET", "/v1/status", {}, 403, "needs the role analyst or planner"),
            ("analyst", "GET", "/v1/batches?limit=0", {}, 422, "query.limit is not valid"),
            ("analyst", "GET", "/v1/groups", {}, 404, "There is no lake at"),
            ("analyst", "GET", "/v1/nothing", {}, 404, "Not Found."),
            ("analyst", "POST", "/v1/status", {}, 405, "Method Not Allowed."),
            ("redriver", "POST", "/v1/batches/7d1e/approve", {"reason": "x"}, 422, "body.reason"),
            ("analyst", "POST", "/v1/redrives/preview", {"selection": {}}, 400, "Say what"),
            (
                *("analyst", "POST", "/v1/redrives/preview"),
                {"selection": {"where": "x; DROP"}}, 400, "",
            ),
            (
                *("analyst", "POST", "/v1/redrives/preview"),
                {"selection": {"colour": "red"}}, 422, "body.selection.colour",
            ),
        ]  # fmt: skip
        for role, method, path, body, status, said in asked:
            answer = await api.ask(role, method, path, **body)
            assert answer.status_code == status, (path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
            assert said in answer.json()["detail"], answer.text
            assert answer.headers["cache-control"] == "no-store"
        huge = await api.client.post("/v1/redrives/preview", content=b" " * (MOST_BYTES + 1))
        assert huge.status_code == 413


async def test_a_server_that_is_down_is_503(settings: Settings, client: Client) -> None:
    gone = settings.model_copy(update={"nats_url": type(settings.nats_url)("nats://127.0.0.1:1")})
    async with served(gone) as api:
        answer = await api.ask("analyst", "GET", "/v1/status")
    assert answer.status_code == 503, answer.text
    assert "127.0.0.1:1" in answer.json()["detail"]


async def test_the_actor_cannot_be_said_in_a_request(settings: Settings, client: Client) -> None:
    async with served(settings) as api:
        body = {"redrive": {**TIMEOUTS, "requested_by": "ceo"}, "reason": "because"}
        assert (await api.ask("planner", "POST", "/v1/redrives", **body)).status_code == 422
