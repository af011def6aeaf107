"""Rules about the limits of an account, and about what could not be checked."""

from collections.abc import Iterator

from sahool_dlq.doctor.delivery_rules import NEAR
from sahool_dlq.doctor.facts import Account
from sahool_dlq.doctor.finding import Said, Severity, dlq, nats, span

_APART_SECONDS = 30.0
_USED = (
    ("storage", "max_storage"),
    ("memory", "max_memory"),
    ("streams", "max_streams"),
    ("consumers", "max_consumers"),
)


def near_limits(account: Account) -> Iterator[Said]:
    """The account accepts no more data when a limit is reached."""
    tiers = account.info.get("tiers") or {"": account.info}
    for tier, info in tiers.items():
        of_tier = f" of {tier}" if tier else ""
        for what, name in _USED:
            used, most = info.get(what, 0), (info.get("limits") or {}).get(name, 0)
            if most > 0 and used >= NEAR * most:
                yield Said(
                    Severity.LOSES if used >= most else Severity.MAY_LOSE,
                    f"The account has used {used:,} of {most:,} {what}{of_tier}: at the limit "
                    "the server refuses new data.",
                    f"Raise {name} of the account, or remove unused data:"
                    f" {nats('stream', 'report')}",
                    {what: used, name: most},
                )


def clocks(account: Account) -> Iterator[Said]:
    """Clocks differ, so times and ages of failures are wrong."""
    apart = account.clock_seconds
    if abs(apart) >= _APART_SECONDS:
        which = "ahead of" if apart > 0 else "behind"
        yield Said(
            Severity.ADVICE,
            f"The server's clock is {span(abs(apart))} {which} this machine's: ages and times "
            "of failures are wrong by this much.",
            "Synchronise both with a time server (chronyd, systemd-timesyncd).",
            {"apart_seconds": round(apart, 1)},
        )


def unseen(account: Account) -> Iterator[Said]:
    """The state of what the server does not show is unknown."""
    for request, why in account.unseen.items():
        yield Said(
            Severity.MAY_LOSE,
            f"{request} could not be checked: {why}",
            dlq("nats-permissions", "--role", "doctor"),
            {"request": request},
        )
