#!/usr/bin/env bash
# nats-py 2.16.0: allow_reconnect=False does not limit the first connection attempt.
#
# Expected: with allow_reconnect=False, connect() tries each server once, and raises NoServersError at once if
# none answers. The option reads as "do not try again".
#
# Observed: it tries as often as with allow_reconnect=True: max_reconnect_attempts + 1 times, with a pause of
# reconnect_time_wait before each further attempt. With the values that nats-py has for both (60 and 2 seconds)
# connect() returns after two minutes, although every attempt was refused within a millisecond.
#
# Consequence: a health check or a job that must fail soon while the server is down waits for two minutes.
# Set max_reconnect_attempts too (0 means without end), or limit connect() with asyncio.wait_for.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0
try "nats-py 2.16.0" <<'PYTHON'
import asyncio, socket, sys, time
import nats, nats.errors
from nats.aio import client

async def attempts(url, **options):
    """How many attempts were refused, and the seconds until connect() raised."""
    refused, started = [], time.monotonic()
    async def count(error):
        refused.append(error)
    try:
        await nats.connect(url, error_cb=count, max_reconnect_attempts=5, reconnect_time_wait=0.2, **options)
    except nats.errors.NoServersError:
        return len(refused), time.monotonic() - started

async def main():
    with socket.socket() as taken:  # bound, and nobody listens: every attempt is refused
        taken.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{taken.getsockname()[1]}"
        without, seconds = await attempts(url, allow_reconnect=False)
        with_it, _ = await attempts(url, allow_reconnect=True)
    usual = client.DEFAULT_MAX_RECONNECT_ATTEMPTS * client.DEFAULT_RECONNECT_TIME_WAIT
    print(f"allow_reconnect=False: {without} attempts in {seconds:.1f} s; True: {with_it}")
    print(f"With the library's own values: {usual} s")
    return 0 if without == with_it == 6 and seconds >= 0.9 and usual == 120 else 1

sys.exit(asyncio.run(main()))
PYTHON
