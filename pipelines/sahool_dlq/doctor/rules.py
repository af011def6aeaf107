"""All rules of the doctor in one table, and the diagnosis from them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sahool_dlq.doctor import account_rules, consumer_rules, delivery_rules, stream_rules
from sahool_dlq.doctor.facts import Account, Consumer, Stream
from sahool_dlq.doctor.finding import Finding, Said, Severity

ACCOUNT = "account"

OF_CONSUMERS: dict[str, Callable[[Account, Consumer], Said | None]] = {
    "loops": consumer_rules.loops,
    "bare-naks": consumer_rules.bare_naks,
    "given-up-unheard": consumer_rules.unheard,
    "given-up-before": consumer_rules.unheard_before,
    "terminated-unheard": consumer_rules.terminated_unheard,
    "ack-none": consumer_rules.ack_none,
    "ack-all": consumer_rules.ack_all,
    "one-delivery": consumer_rules.one_delivery,
    "held-in-queue": consumer_rules.held,
    "retries-outlast-age": consumer_rules.outlasts,
    "removed-undelivered": delivery_rules.overtaken,
    "nearly-removed": delivery_rules.nearly_overtaken,
    "max-ack-pending": delivery_rules.full,
    "paused": delivery_rules.paused,
    "stalled": delivery_rules.stalled,
    "filter-of-nothing": delivery_rules.unmatched,
    "deleted-when-idle": delivery_rules.forgotten,
    "consumer-in-memory": delivery_rules.in_memory,
    "redelivered-share": delivery_rules.repeated,
}
OF_STREAMS: dict[str, Callable[[Account, Stream], Said | None]] = {
    "queue-unclaimed": stream_rules.unclaimed,
    "queue-drops-work": stream_rules.drops_work,
    "keeps-latest": stream_rules.keeps_latest,
    "in-memory": stream_rules.in_memory,
    "one-replica": stream_rules.one_replica,
    "written-later": stream_rules.written_later,
    "unconfirmed": stream_rules.unconfirmed,
    "refuses-when-full": stream_rules.refuses,
    "log-too-short": stream_rules.log_is_short,
    "log-can-be-emptied": stream_rules.log_can_be_emptied,
    "log-doubles": stream_rules.log_doubles,
    "advisories-unread": stream_rules.advisories_unread,
    "advisories-short": stream_rules.advisories_short,
}
OF_ACCOUNT: dict[str, Callable[[Account], Iterable[Said]]] = {
    "near-limits": account_rules.near_limits,
    "clocks-apart": account_rules.clocks,
    "unseen": account_rules.unseen,
}


def diagnose(account: Account) -> list[Finding]:
    """The problems of an account, the worst first."""
    order = list(Severity)
    found = _consumers(account), _streams(account), _account(account)
    findings = [each for part in found for each in part]
    return sorted(findings, key=lambda each: (order.index(each.severity), each.subject, each.rule))


def _consumers(account: Account) -> Iterator[Finding]:
    for consumer in account.consumers:
        if consumer.is_durable:
            for rule, look in OF_CONSUMERS.items():
                yield from _finding(rule, consumer.address, look(account, consumer))


def _streams(account: Account) -> Iterator[Finding]:
    for stream in account.streams:
        for rule, look in OF_STREAMS.items():
            yield from _finding(rule, stream.name, look(account, stream))


def _account(account: Account) -> Iterator[Finding]:
    for rule, look in OF_ACCOUNT.items():
        for said in look(account):
            yield from _finding(rule, ACCOUNT, said)


def _finding(rule: str, subject: str, said: Said | None) -> Iterator[Finding]:
    if said is not None:
        values: tuple[Any, ...] = tuple(said)
        severity, sentence, command, evidence = values
        yield Finding(rule, severity, subject, sentence, command, evidence)
