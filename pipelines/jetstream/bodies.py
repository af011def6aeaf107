"""A body that was too large for a dead letter, out of the object store.

nats-py's `get` looks for the number of pending messages at a fixed place of each reply. It is at
another with the server's feature flag `js_ack_fc_v2`, and `get` waits for ever, as it does where a
chunk is gone. It takes flow control besides, and so rights that nothing else here needs.
"""

from nats.js import JetStreamContext


async def stored_body(js: JetStreamContext, bucket: str, name: str) -> bytes:
    """The object `name`, chunk by chunk.

    Raises nats-py's JetStream errors where the bucket, the object or a chunk is not there.
    """
    info = await (await js.object_store(bucket)).get_info(name)
    chunks, missing, sequence = [], info.size or 0, 1
    while missing > 0:
        chunk = await js.get_msg(f"OBJ_{bucket}", sequence, f"$O.{bucket}.C.{info.nuid}", next=True)
        chunks.append(chunk.data or b"")
        missing -= len(chunks[-1])
        sequence = (chunk.seq or sequence) + 1
    return b"".join(chunks)
