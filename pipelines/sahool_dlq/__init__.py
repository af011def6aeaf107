"""A dead-letter platform for NATS JetStream.

The folders follow the data: `events` (the library for services), `deadletter` (what a failure
is), `stores` (stream, lake, database), `drain`, `analysis`, `redrive`, and `cli` on top.
"""
