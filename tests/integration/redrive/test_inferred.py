"""Without an acknowledgement, no history of a stream and a consumer is inferred as a success."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

from sahool_dlq.bridge.run import bridging
from sahool_dlq.embedded import NatsServer
from sahool_dlq.jetstream.acks import is_ack
from sahool_dlq.jetstream.pull import delivery_of
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.jetstream.streams import ensure_ack_stream
from sahool_dlq.redrive.publish.acks import AckFollower, following_acks
from sahool_dlq.redrive.publish.heard import Place
from sahool_dlq.redrive.publish.inferred import Advisories, end_of_foreign
from sahool_dlq.redrive.publish.sent_acks import SentAcks, listening
from sahool_dlq.settings import Settings
from support.foreign_consumers import Platform, opened
from support.seed import SEED

pytestmark = pytest.mark.xdist_group("inferred")  # they have a NATS of their own

HISTORIES, STEPS = 40, 8
RETENTIONS = [RetentionPolicy.LIMITS, RetentionPolicy.LIMITS, RetentionPolicy.INTEREST]


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with NatsServer(tmp_path_factory.mktemp("inferred"), has_login=False) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        yield platform


@dataclass
class History:
    """A stream `S<number>` with its consumer `c`, on which random operations are done."""

    platform: Platform
    number: int
    told: list[str] = field(default_factory=list)
    hands: list[Msg] = field(default_factory=list)  # delivered, not answered
    acknowledged: set[tuple[int, int]] = field(default_factory=set)  # events, whenever

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{SEED}-{self.number}")
        self.stream, self.subject = f"S{self.number}", f"s{self.number}.a"
        self.config = StreamConfig(
            name=self.stream,
            subjects=[f"s{self.number}.>"],
            retention=self.rng.choice(RETENTIONS),
            max_msgs_per_subject=self.rng.choice([-1, -1, 1]),
        )
        self.sample_freq = self.rng.choice([None, None, "50%", "100%"])

    @property
    def js(self) -> JetStreamContext:
        return self.platform.js

    async def begin(self) -> None:
        await self.js.add_stream(self.config)
        await self.make_consumer("all")
        await self.publish()

    async def make_consumer(self, since: str) -> None:
        config = ConsumerConfig(
            durable_name="c", ack_policy="explicit", ack_wait=30, max_deliver=5,
            deliver_policy=since, sample_freq=self.sample_freq,
        )  # fmt: skip
        await self.js.add_consumer(self.stream, config)

    async def publish(self) -> int:
        return (await self.js.publish(self.subject, b"{}")).seq

    async def pull(self) -> None:
        sub = await self.js.pull_subscribe_bind("c", self.stream)
        try:
            self.hands += await sub.fetch(self.rng.choice([1, 3]), timeout=0.2)
        except TimeoutError:
            pass
        finally:
            await sub.unsubscribe()

    async def answer(self) -> None:
        if not self.hands:
            await self.pull()
        if self.hands:
            msg = self.hands.pop(self.rng.randrange(len(self.hands)))
            said = self.rng.choice([b"+ACK", b"", b"+ACK", b"-NAK", b"+WPI", b"+TERM no"])
            await self.platform.client.publish(msg.reply, said)
            await self.platform.client.flush()
            if is_ack(said):
                self.acknowledged.add(delivery_of(msg).event)

    async def reset(self) -> None:
        last = (await self.js.stream_info(self.stream)).state.last_seq
        body = json.dumps({"seq": self.rng.randint(1, last + 1)}).encode()
        where = f"$JS.API.CONSUMER.RESET.{self.stream}.c"
        await self.platform.client.request(where, body, timeout=10)

    async def make_consumer_anew(self) -> None:
        await self.js.delete_consumer(self.stream, "c")
        await self.make_consumer(self.rng.choice(["all", "new", "last"]))

    async def make_stream_anew(self) -> None:
        last = (await self.js.stream_info(self.stream)).state.last_seq
        await self.js.delete_stream(self.stream)
        await self.js.add_stream(self.config)
        await self.make_consumer("all")
        for _ in range(last):  # so that others get the sequences
            await self.publish()

    async def delete(self) -> None:
        state = (await self.js.stream_info(self.stream)).state
        if state.messages:
            await self.js.delete_msg(self.stream, self.rng.randint(state.first_seq, state.last_seq))

    async def purge(self) -> None:
        await self.js.purge_stream(self.stream, subject=self.subject)

    async def go_on(self) -> None:
        """Do some random steps."""
        steps = {
            self.pull: 4, self.answer: 8, self.publish: 3, self.reset: 2, self.delete: 1,
            self.make_consumer_anew: 2, self.make_stream_anew: 1, self.purge: 1,
        }  # fmt: skip
        for step in self.rng.choices(list(steps), list(steps.values()), k=STEPS):
            self.told.append(step.__name__)
            try:
                await step()
            except (NotFoundError, APIError) as error:  # no such message, consumer or stream
                self.told.append(str(error.description))


async def test_success_is_never_told_without_an_acknowledgement_of_that_event(
    platform: Platform,
) -> None:
    settings = platform.settings
    await ensure_ack_stream(platform.js, settings.stream_names)
    histories = [History(platform, number) for number in range(HISTORIES)]
    for each in histories:
        await each.begin()
    advisories = Advisories(settings.advisory_stream, settings.bridge_durable)
    addresses = [f"{each.stream}/c" for each in histories]
    async with (
        bridging(settings),
        following_acks(platform.client, settings.ack_stream, addresses) as told,
        listening(platform.client, told.untold) as sent,
    ):
        results = await asyncio.gather(
            *(_end(platform, each, told, sent, advisories) for each in histories)
        )
    for each, (event, end) in zip(histories, results, strict=True):
        assert end is None or event in each.acknowledged, (each.number, each.told)
    ends = [end for _, end in results]
    assert {"proved", "inferred", None} <= set(ends)
    # It also says where events were: lost by the stream, or replaced by others.
    missed = [
        (each.number, each.told)
        for each, (event, end) in zip(histories, results, strict=True)
        if event in each.acknowledged and end is None and each.sample_freq != "100%"
        and "make_stream_anew" not in each.told
    ]  # fmt: skip
    assert missed == []


async def _end(
    platform: Platform, history: History, told: AckFollower, sent: SentAcks, advisories: Advisories
) -> tuple[tuple[int, int], str | None]:
    """The redriven event, and its reported outcome."""
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    mark = await told.mark(f"{history.stream}/c")
    sequence = await history.publish()
    stored = await stored_message(platform.client, history.stream, sequence)
    assert stored is not None
    place = Place(history.stream, sequence, "c")
    end = asyncio.create_task(
        end_of_foreign(platform.js, told, sent, place, mark, advisories, outcome)
    )
    await history.go_on()
    try:
        said = await asyncio.wait_for(end, 5)
    except TimeoutError:
        said = None
    return (sequence, stored.timestamp_ns), said
