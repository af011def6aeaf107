"""The last message of each subject of a stream."""

from collections.abc import AsyncGenerator

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.pull import Puller, PullStalledError, delivery_of

_MOST = 100_000


async def latest_messages(client: Client, stream: str, subject: str) -> AsyncGenerator[Msg, None]:
    """The last message of every subject that the filter matches; empty if there is no such stream.

    Raises ServerUnavailableError if the server stops answering.
    """
    js = client.jetstream()
    try:
        info = await js.add_consumer(
            stream,
            ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                filter_subject=subject,
                inactive_threshold=60,
                mem_storage=True,
            ),
        )
    except NotFoundError:
        return
    puller, is_stalled = Puller(client, stream, info.name), False
    await puller.open()
    try:
        async for msg in puller.pull(_MOST):
            yield msg
            if delivery_of(msg).pending == 0:
                break
    except PullStalledError as error:
        is_stalled = True
        raise ServerUnavailableError(f"Reading stream {stream} stalled ({error}).") from error
    finally:
        if not is_stalled:  # else nobody would answer; the consumer goes when it is idle
            await puller.close()
            await js.delete_consumer(stream, info.name)
