"""Shared by the soaks: faults of servers and processes, options, and the report."""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.process import BaseProcess

import nats.errors
from nats.aio.client import Client

from sahool_dlq.embedded import NatsServer, PostgresServer


async def publish(client: Client, subject: str, body: bytes, message_id: str) -> int:
    """Publish until the server acknowledges it; its sequence."""
    headers = {"Nats-Msg-Id": message_id}
    while True:
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            ack = await client.jetstream().publish(subject, body, headers=headers, timeout=2)
            return ack.seq
        await asyncio.sleep(0.1)


async def kill_for(server: NatsServer | PostgresServer, seconds: float) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.start)


async def stop_for(process: BaseProcess, seconds: float) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    os.kill(process.pid, signal.SIGCONT)


def end(process: BaseProcess, problems: list[str], what: str) -> None:
    """Kill it; it is a problem if it has ended by itself."""
    if process.exitcode is not None:
        problems.append(f"a {what} ended by itself with status {process.exitcode}")
    process.kill()
    process.join()


def traceback_in(log: str) -> list[str]:
    """The first traceback in a log, as a problem."""
    return [f"it died of:\n{log[log.index('Traceback') :][:3_000]}"] if "Traceback" in log else []


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the options; the seed, given or new, is printed."""
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    if given.seed is None:
        given.seed = random.randrange(1 << 32)
    print(f"SEED={given.seed}", flush=True)
    return given


def say(done: Counter[str], began: float, problems: list[str], *more: str) -> None:
    """Print what a run did, how long it took, and what is wrong."""
    for what, count in sorted(done.items()):
        print(f"{count:8,}  {what}")
    for line in more:
        print(line)
    print(f"{time.monotonic() - began:8,.0f}  seconds")
    for problem in problems:
        print(f"WRONG: {problem}")
