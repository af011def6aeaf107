#!/usr/bin/env bash
# Prefect 3.8.8: a worker with --limit ends when a suspended run is resumed before its process has ended.
#
# One would guess: a run that suspends itself leaves its process; whoever resumes it, at whatever moment, lets
# the worker start it again. At worst the worker waits until the first process is gone.
#
# What happens: with --limit the worker keeps a place for each run by its id. A run that is resumed while its
# first process still takes its leave has its place yet; taking it a second time raises "this borrower is
# already holding one of this CapacityLimiter's tokens", which nothing catches: the worker ends, and no run of
# any deployment is started any more. Without --limit the worker goes on, and the run completes.
#
# Why it matters: an approval by a script, or by a person who is quick, stops every schedule of that worker.
# Limit work queues and deployments instead, and let a supervisor start the worker again.
source "$(dirname "$0")/lib.sh"
install prefect==3.8.8 "fastapi<0.151" "sqlalchemy[asyncio]<2.1"
try "Prefect 3.8.8" <<'PYTHON'
import json, os, socket, subprocess, sys, time, urllib.request
from pathlib import Path

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
folder = Path(sys.argv[1])
url = f"http://127.0.0.1:{port}/api"
environment = os.environ | {
    "PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "1",
}
(folder / "suspending.py").write_text(
    "import time\nfrom prefect import flow, suspend_flow_run\n\n"
    "@flow(persist_result=True)\ndef waits():\n"
    "    try:\n        suspend_flow_run(timeout=600)\n"
    "    finally:\n        time.sleep(15)  # it takes its leave\n"
)
(folder / "prefect.yaml").write_text(
    "deployments:\n- name: waits\n  entrypoint: suspending.py:waits\n  work_pool: {name: local}\n"
    "  pull:\n  - prefect.deployments.steps.set_working_directory: {directory: '" + str(folder) + "'}\n"
)

def prefect(*arguments, wait=True):
    command = [sys.executable, "-m", "prefect", *arguments]
    run = subprocess.run if wait else subprocess.Popen
    return run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
               stderr=subprocess.DEVNULL, **({"check": True} if wait else {}))

def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data, {"Content-Type": "application/json"})) as answer:
        return json.loads(answer.read() or b"null")

def until(look, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except OSError:
            pass
        time.sleep(0.5)
    return None

def resumed_at_once(*options):
    """Whether the worker lives after a run was resumed before its process has ended, and the run's state."""
    worker = prefect("worker", "start", "--pool", "local", *options, wait=False)
    try:
        [deployment] = call("/deployments/filter", {})
        run = call(f"/deployments/{deployment['id']}/create_flow_run", {})["id"]
        until(lambda: call(f"/flow_runs/{run}")["state_type"] == "PAUSED")
        call(f"/flow_runs/{run}/resume", {})
        until(lambda: worker.poll() is not None or call(f"/flow_runs/{run}")["state_type"] == "COMPLETED", 90)
        return worker.poll() is None, call(f"/flow_runs/{run}")["state_type"]
    finally:
        worker.terminate()
        worker.wait()

server = prefect("server", "start", "--port", str(port), wait=False)
try:
    until(lambda: call("/health"))
    prefect("work-pool", "create", "local", "--type", "process")
    prefect("deploy", "--all", "--no-prompt")
    limited, free = resumed_at_once("--limit", "6"), resumed_at_once()
finally:
    server.terminate()
    server.wait()
print("with --limit 6: the worker", *("lives;" if limited[0] else "ended;", "the run is", limited[1]))
print("without:        the worker", *("lives;" if free[0] else "ended;", "the run is", free[1]))
sys.exit(limited[0] or free != (True, "COMPLETED"))
PYTHON
