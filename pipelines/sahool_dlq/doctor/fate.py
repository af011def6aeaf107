"""What happens to a message that always fails, at one consumer, in one sentence."""

from sahool_dlq.doctor.facts import Account, Consumer
from sahool_dlq.doctor.finding import span
from sahool_dlq.jetstream.streams import GIVEN_UP


def fate(account: Account, consumer: Consumer) -> str:
    """What a consumer's settings do with a poison message."""
    if not consumer.is_answered:
        return "It counts as handled once it is sent: its failure is not noticed."
    if account.counts_itself(consumer):
        return "NATSConsumer tries it again and then stores a dead letter: nothing is lost."
    if consumer.ack_policy == "all":
        return "The next successful event acknowledges it too: its failure is not noticed."
    age = consumer.stream.max_age_seconds
    if consumer.max_deliver is None or consumer.retry_seconds is None:
        until = f" until the stream removes it after {span(age)}" if age else ""
        return f"It is delivered again every {span(consumer.waits[-1])}, for ever{until}."
    tries = "one delivery" if consumer.max_deliver == 1 else f"{consumer.max_deliver} deliveries"
    after = f"After {tries} ({span(consumer.retry_seconds)} without an answer) it is given up"
    where = "held in the queue" if consumer.stream.is_queue else "left in the stream, undelivered"
    how_long = f"for {span(age)}" if age else "for ever"
    holders = account.holders(f"{GIVEN_UP}.{consumer.stream.name}.{consumer.name}")
    told = f"; {holders[0].name} stores the advisory." if holders else ", without notice."
    return f"{after} and {where} {how_long}{told}"
