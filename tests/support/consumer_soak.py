"""Two processes of one service, killed and ended at random beside a NATS that is restarted.

At the end no event is lost; none was dead-lettered without a call, none with fewer calls than its
retries allow, none both handled and dead-lettered; and each process that was told to end did so in
time. `make soak` runs it after the drains' soak.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import nats
import nats.errors

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import ConsumerContext, DeadLetter, NATSConsumer, NATSConsumerConfig
from sahool_dlq.events.results import HandlerResult
from support import ROOT
from support.consumer_log import SUCCESS, Log, in_full, opened
from support.soak_parts import read_options, say

PROCESSES = 2
MAX_RETRIES = 3
ACK_WAIT_SECONDS = 1.0
SHUTDOWN_SECONDS = 2.0
_SLOWEST = 3 * ACK_WAIT_SECONDS


class Kind(IntEnum):
    """The fate of an event."""

    GOOD = 0
    FLAKY = 1  # fails once to MAX_RETRIES times, then succeeds
    BAD = 2  # always raises
    FATAL = 3  # dead-lettered at once
    DEADLY = 4  # kills its process


def kind_of(number: int) -> Kind:
    """The kind of an event, by its number."""
    if number == 300:
        return Kind.DEADLY
    match number % 100:
        case 1 | 2 | 3 | 4:
            return Kind.FLAKY
        case 5 | 6:
            return Kind.BAD
        case 7:
            return Kind.FATAL
    return Kind.GOOD


class Handler:
    """The service's handler; it writes each call and each success to files of its process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._calls = os.open(folder / f"calls-{os.getpid()}", flags)
        self._successes = os.open(folder / f"successes-{os.getpid()}", flags)
        self._chance = random.Random(os.getpid())

    async def __call__(self, context: ConsumerContext) -> HandlerResult:
        number = json.loads(context.data)["n"]
        os.write(self._calls, b"%d\n" % number)
        kind = kind_of(number)
        if kind is Kind.DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self._seconds())
        if kind is Kind.BAD or (kind is Kind.FLAKY and self._nth(number) <= 1 + number // 100 % 3):
            raise ValueError(f"event {number}")
        if kind is Kind.FATAL:
            return DeadLetter("The event is wrong.")
        os.write(self._successes, b"%d\n" % number)
        return SUCCESS

    def _seconds(self) -> float:
        """Usually fast, sometimes slow; one second in five so slow that fetched events wait."""
        if self._chance.random() < 0.005:
            return self._chance.uniform(0, _SLOWEST)
        return 0.2 if time.time() % 5 < 1 else 0.001

    def _nth(self, number: int) -> int:
        """The number of this call of an event, counted over all processes."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = os.open(self._folder / f"event-{number}", flags)
        try:
            os.write(file, b".")
            return os.lseek(file, 0, os.SEEK_END)
        finally:
            os.close(file)


async def serve(config: NATSConsumerConfig, folder: Path) -> None:
    """Run the service until it is told to stop."""
    consumer = NATSConsumer(config)
    while not await consumer.connect():
        await asyncio.sleep(0.2)
    while True:
        try:
            await consumer.subscribe(Handler(folder))
            break
        except (nats.errors.Error, OSError, RuntimeError) as error:
            print(f"not subscribed yet: {error!r}", flush=True)
            await asyncio.sleep(0.2)
    await consumer.run()


@dataclass
class ConsumerSoak:
    """One run: its operations, their results, and what is wrong at the end."""

    home: Path
    events: int
    seed: int
    is_synced: bool = False  # the server writes each message to the disk before it acknowledges
    nats_server: Callable[..., NatsServer] = NatsServer
    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest_end: float = 0  # seconds that a process took to end

    @property
    def harm_count(self) -> int:
        """How often a process or the server was stopped or killed."""
        harms = ("processes killed", "processes told to end", "servers restarted", "servers killed")
        return sum(self.done[harm] for harm in harms)

    async def run(self) -> list[str]:
        """Run it; return what is wrong."""
        chance = random.Random(self.seed)
        server = self.nats_server(self.home / "nats")
        if self.is_synced:
            store = json.dumps(str(server.data))
            config = f"jetstream: {{ store_dir: {store}, sync_interval: always }}"
            server = self.nats_server(self.home / "nats", config=config)
        with server:
            async with opened(server.url) as log:
                config = log.config(
                    max_retries=MAX_RETRIES,
                    ack_wait_seconds=ACK_WAIT_SECONDS,
                    shutdown_seconds=SHUTDOWN_SECONDS,
                    max_concurrency=64,
                    dead_letter_limit_events=0,
                )
                self._config, self._folder = config, self.home / "calls"
                self._folder.mkdir()
                services = [await self._start() for _ in range(PROCESSES)]
                try:
                    working = asyncio.create_task(self._publish(log))
                    settling = asyncio.create_task(self._settled(log, working))
                    while not settling.done():
                        await asyncio.wait({settling}, timeout=chance.uniform(0.3, 2.0))
                        await self._revive(services)
                        if not working.done():
                            await self._harm(chance, services, server)
                    await settling
                    for service in services:
                        await self._terminate(service)
                    await self._check(log)
                finally:
                    for service in services:
                        with contextlib.suppress(ProcessLookupError):
                            service.kill()
        return self.problems

    async def _publish(self, log: Log) -> None:
        """Publish during the faults; the last events come after them."""
        for first in range(0, self.events, 100):
            await asyncio.gather(*(self._publish_one(log, n) for n in range(first, first + 100)))
            await asyncio.sleep(0.1)

    async def _publish_one(self, log: Log, number: int) -> None:
        await log.publish({"n": number}, headers={"Nats-Msg-Id": str(number)})
        self.done["events published"] += 1

    async def _settled(self, log: Log, working: asyncio.Task[None]) -> None:
        await working
        await log.settled(seconds=240)

    async def _start(self) -> asyncio.subprocess.Process:
        self.done["processes started"] += 1
        with (self.home / "services.log").open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "support.consumer_soak", "--serve"),
                in_full(self._config),
                str(self._folder.absolute()),
                cwd=ROOT / "tests",
                stdout=output,
                stderr=output,
            )

    async def _revive(self, services: list[asyncio.subprocess.Process]) -> None:
        for index, service in enumerate(services):
            if service.returncode is not None:
                self.done[f"processes that ended with {service.returncode}"] += 1
                services[index] = await self._start()

    async def _harm(
        self,
        chance: random.Random,
        services: list[asyncio.subprocess.Process],
        server: NatsServer,
    ) -> None:
        match chance.randrange(6):
            case 0 | 1:
                with contextlib.suppress(ProcessLookupError):
                    chance.choice(services).kill()
                self.done["processes killed"] += 1
            case 2 | 3:
                await self._terminate(chance.choice(services))
            case 4:
                self.done["servers restarted"] += 1
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
            case 5:
                self.done["servers killed"] += 1
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)

    async def _terminate(self, service: asyncio.subprocess.Process) -> None:
        """Terminate a process, and measure how long it takes."""
        if service.returncode is not None:
            return
        began = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            service.terminate()
        try:
            async with asyncio.timeout(60):
                await service.wait()
        except TimeoutError:
            self.problems.append("A process did not end within 60 s of SIGTERM.")
            service.kill()
        took = time.monotonic() - began
        self.slowest_end = max(self.slowest_end, took)
        self.done["processes told to end"] += 1
        if took > SHUTDOWN_SECONDS + 5:
            self.problems.append(f"A process took {took:.1f} s to end.")

    async def _check(self, log: Log) -> None:
        calls, successes = self._lines("calls"), self._lines("successes")
        dead: dict[int, list[str]] = defaultdict(list)
        state = (await log.js.stream_info(log.names.dead_letters)).state
        for msg in await log.stored(state.last_seq):
            letter: dict[str, Any] = json.loads(msg.data or b"")
            number = letter["original_data"]["n"]
            reason = letter["dlq_reason"]
            dead[number].append(reason)
            self.done[f"dead letters: {reason}"] += 1
            least = MAX_RETRIES + 1 if reason != "handler_dead_letter" else 1
            if calls[number] < least:
                self._wrong(number, f"{reason} after {calls[number]} calls", least)
        self.done["calls"] = calls.total()
        self.done["calls beside those needed"] = calls.total() - self.events
        for number in range(self.events):
            wanted = kind_of(number) in (Kind.BAD, Kind.FATAL, Kind.DEADLY)
            if (number in dead) is not wanted:
                self._wrong(number, f"dead letters {dead.get(number)}", wanted)
            if (number in successes) is wanted:
                self._wrong(number, f"{successes[number]} successes", not wanted)
            if "crash_loop" in dead.get(number, ()) and kind_of(number) is not Kind.DEADLY:
                self._wrong(number, "crash_loop", "another end")

    def _wrong(self, number: int, found: str, wanted: object) -> None:
        if len(self.problems) < 20:
            kind = kind_of(number).name
            self.problems.append(f"Event {number} ({kind}): {found}; wanted {wanted}.")

    def _lines(self, what: str) -> Counter[int]:
        found: Counter[int] = Counter()
        for file in self._folder.glob(f"{what}-*"):
            found.update(int(line) for line in file.read_text().splitlines())
        return found


def main() -> int:
    """Run with each setting of the server's disk, and print what was done and what is wrong."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(NATSConsumerConfig.model_validate_json(sys.argv[2]), Path(sys.argv[3])))
        return 0
    given = read_options(parser)
    is_sound = True
    for is_synced in (False, True):
        with tempfile.TemporaryDirectory(prefix="dlq-soak-") as home:
            began = time.monotonic()
            soak = ConsumerSoak(Path(home), given.events, given.seed, is_synced)
            problems = asyncio.run(soak.run())
            if problems:
                kept = Path(tempfile.gettempdir()) / f"dlq-consumer-soak-{given.seed}.log"
                kept.write_bytes((Path(home) / "services.log").read_bytes())
        print(f"sync_interval {'always' if is_synced else 'by default'}:")
        slowest = f"{soak.slowest_end:8.1f}  seconds that the slowest process took to end"
        say(soak.done, began, problems, slowest)
        is_sound &= not problems
    print("sound" if is_sound else "not sound")
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
