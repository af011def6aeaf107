"""A dead-letter platform for NATS JetStream.

The folders follow the data: `events` (services consume and fail), `deadletter` (what a failure
is), `stores` (stream, lake, database), `drain`, `analysis`, `redrive`, and `cli` on top.
"""
