"""The subjects that each NATS user may publish and subscribe to: the platform's roles, and one
service.

`deploy/nats.conf` has the roles with the default names.
"""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sahool_dlq.deadletter.subjects import event_type_of, subject_token
from sahool_dlq.jetstream.acks import ACKS
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import BODIES_BUCKET

_BODIES = f"OBJ_{BODIES_BUCKET}"
_STREAMS = ("events", "dead_letters", "totals", "advisories", "attempts", "acks")


@dataclass(frozen=True, slots=True)
class Grants:
    """The subjects of one user; the server refuses all others."""

    user: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    @property
    def password_variable(self) -> str:
        """The variable of the server's configuration, or environment, that has its password."""
        return f"NATS_{re.sub(r'[^A-Z0-9]', '_', self.user.upper())}_PASSWORD"


@dataclass(frozen=True, slots=True)
class Consumption:
    """One durable consumer of a service."""

    stream: str
    durable: str
    subject: str  # its filter


def grants_of_service(
    names: StreamNames,
    service: str,
    consumes: Sequence[Consumption],
    publishes: Iterable[str] = (),
    user: str | None = None,
    *,
    is_dlq_own: bool = False,
) -> Grants:
    """The rights of `NATSConsumer` and `NATSPublisher` for this service's consumers only.

    It can neither read events outside its filters nor change another's consumer. `publishes` are
    filters of its published events. `is_dlq_own` is for `dlq_subject_per_service`.
    """
    prefix = names.subjects.prefix
    streams = sorted({each.stream for each in consumes} | {names.events})
    granted = [
        *publishes,
        *(_dead_letters(names, each.subject, service if is_dlq_own else None) for each in consumes),
        names.subjects.redrive("succeeded"),
        *(names.subjects.total(service, each.durable) for each in consumes),
        *(f"{prefix}.attempts.{each.stream}.{each.durable}.*" for each in consumes),
        "$JS.API.STREAM.NAMES",
        *(f"$JS.API.STREAM.INFO.{each}" for each in streams),
        *(
            f"$JS.API.STREAM.INFO.{each}"
            for each in (names.dead_letters, names.totals, names.attempts, _BODIES)
        ),
        *(subject for each in consumes for subject in _of_consumer(names, each)),
        f"$O.{BODIES_BUCKET}.C.*",
        f"$O.{BODIES_BUCKET}.M.*",
    ]
    user = user or service
    return Grants(user, tuple(dict.fromkeys(granted)), (_inbox(user),))


def grants_of_role(names: StreamNames, role: str) -> Grants:
    """The rights of one of the platform's own users; raises KeyError for another name."""
    publish, subscribe = _ROLES[role]
    prefix = names.subjects.prefix
    streams = {name: getattr(names, name) for name in _STREAMS}
    values = {"prefix": prefix, "bucket": BODIES_BUCKET, "bodies": _BODIES, **streams}
    return Grants(
        role,
        tuple(each.format_map(values) for each in publish.split()),
        (_inbox(role), *(each.format_map(values) for each in subscribe.split())),
    )


def as_block(grants: Grants) -> str:
    """A user for `authorization { users: [ … ] }` of a server; its password is a variable."""
    return "\n".join(
        [
            "{",
            f"  user: {_quoted(grants.user)}, password: ${grants.password_variable}",
            "  permissions: {",
            "    publish: [",
            *(f"      {_quoted(each)}" for each in grants.publish),
            "    ]",
            f"    subscribe: [{', '.join(map(_quoted, grants.subscribe))}]",
            "  }",
            "}",
        ]
    )


def as_nsc(grants: Grants) -> str:
    """The command of nsc that adds the user to the account that is selected."""

    def listed(subjects: Iterable[str]) -> str:  # nsc reads a line of CSV
        return shlex.quote(",".join(f'"{each}"' if "," in each else each for each in subjects))

    return (
        f"nsc add user {shlex.quote(grants.user)} \\\n  --allow-pub {listed(grants.publish)} \\\n"
        f"  --allow-sub {listed(grants.subscribe)}"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _inbox(user: str) -> str:
    return f"_INBOX.{subject_token(user)}.>"


def _of_consumer(names: StreamNames, one: Consumption) -> tuple[str, ...]:
    where = f"{one.stream}.{one.durable}"
    return (
        f"$JS.API.CONSUMER.CREATE.{where}.{one.subject}",
        f"$JS.API.CONSUMER.INFO.{where}",
        f"$JS.API.CONSUMER.MSG.NEXT.{where}",
        f"{ACKS}{where}.>",
        f"{ACKS}_.*.{where}.>",
        f"$JS.API.DIRECT.GET.{names.attempts}.{names.subjects.prefix}.attempts.{where}.*",
    )


def _dead_letters(names: StreamNames, subject: str, service: str | None) -> str:
    last = event_type_of(subject)
    if last in ("*", ">"):
        return f"{names.subjects.dead_letter('any', service).removesuffix('any')}*"
    return names.subjects.dead_letter(last, service)


_SERVICE = """
{prefix}.analysis.> {prefix}.actions.>
{prefix}.dlq.* {prefix}.redrive.succeeded {prefix}.totals.*.* {prefix}.attempts.>
$JS.API.STREAM.NAMES
$JS.API.STREAM.INFO.{events} $JS.API.STREAM.INFO.{dead_letters} $JS.API.STREAM.INFO.{totals}
$JS.API.CONSUMER.CREATE.{events}.> $JS.API.CONSUMER.INFO.{events}.*
$JS.API.CONSUMER.MSG.NEXT.{events}.* $JS.ACK.{events}.> $JS.ACK._.*.{events}.>
$JS.API.STREAM.INFO.{attempts} $JS.API.STREAM.MSG.GET.{attempts}
$JS.API.STREAM.MSG.GET.{events}
$JS.API.STREAM.INFO.{bodies} $JS.API.STREAM.MSG.GET.{bodies}
$O.{bucket}.>
"""
_DRAIN = """
{prefix}.triage.alerted {prefix}.triage.unmuted {prefix}.redrive.requested
$JS.API.STREAM.NAMES
$JS.API.STREAM.INFO.{events} $JS.API.STREAM.INFO.{dead_letters} $JS.API.STREAM.INFO.{totals}
$JS.API.STREAM.MSG.GET.{dead_letters}
$JS.API.CONSUMER.CREATE.{dead_letters} $JS.API.CONSUMER.CREATE.{dead_letters}.>
$JS.API.CONSUMER.CREATE.{totals}
$JS.API.CONSUMER.MSG.NEXT.{dead_letters}.* $JS.API.CONSUMER.MSG.NEXT.{totals}.*
$JS.API.CONSUMER.DELETE.{dead_letters}.* $JS.API.CONSUMER.DELETE.{totals}.*
$JS.API.CONSUMER.INFO.{dead_letters}.* $JS.API.CONSUMER.INFO.{events}.*
$JS.ACK.{dead_letters}.> $JS.ACK._.*.{dead_letters}.>
"""
_BRIDGE = """
{prefix}.dlq.* {prefix}.triage.discarded {prefix}.totals.*.*
$JS.API.STREAM.NAMES $JS.API.STREAM.LIST $JS.API.STREAM.INFO.*
$JS.API.CONSUMER.LIST.* $JS.API.CONSUMER.INFO.*.*
$JS.API.STREAM.MSG.GET.{events} $JS.API.CONSUMER.MSG.NEXT.{events}.*
$JS.API.STREAM.MSG.GET.{advisories}
$JS.API.CONSUMER.CREATE.{advisories} $JS.API.CONSUMER.CREATE.{advisories}.*
$JS.API.CONSUMER.MSG.NEXT.{advisories}.* $JS.API.CONSUMER.DELETE.{advisories}.*
$JS.ACK.{advisories}.> $JS.ACK._.*.{advisories}.>
$JS.API.CONSUMER.CREATE.{acks} $JS.API.CONSUMER.MSG.NEXT.{acks}.* $JS.API.CONSUMER.DELETE.{acks}.*
$JS.API.CONSUMER.CREATE.{totals} $JS.API.CONSUMER.MSG.NEXT.{totals}.*
$JS.API.CONSUMER.DELETE.{totals}.*
$JS.API.STREAM.MSG.GET.{bodies} $O.{bucket}.>
"""
_REDRIVER = """
{prefix}.analysis.> {prefix}.actions.>
{prefix}.dlq.* {prefix}.dlq.imported.> {prefix}.redrive.* {prefix}.triage.* {prefix}.totals.*.*
$JS.API.STREAM.NAMES $JS.API.STREAM.LIST $JS.API.STREAM.INFO.*
$JS.API.CONSUMER.LIST.* $JS.API.CONSUMER.INFO.*.*
$JS.API.STREAM.MSG.GET.{dead_letters} $JS.API.STREAM.MSG.GET.{events}
$JS.API.STREAM.MSG.GET.{advisories}
$JS.API.CONSUMER.CREATE.{dead_letters} $JS.API.CONSUMER.CREATE.{dead_letters}.>
$JS.API.CONSUMER.CREATE.{totals} $JS.API.CONSUMER.CREATE.{events}
$JS.API.CONSUMER.CREATE.{advisories} $JS.API.CONSUMER.CREATE.{advisories}.*
$JS.API.CONSUMER.CREATE.{acks} $JS.API.CONSUMER.MSG.NEXT.{acks}.* $JS.API.CONSUMER.DELETE.{acks}.*
$JS.API.CONSUMER.MSG.NEXT.{dead_letters}.* $JS.API.CONSUMER.MSG.NEXT.{totals}.*
$JS.API.CONSUMER.MSG.NEXT.{advisories}.* $JS.API.CONSUMER.MSG.NEXT.{events}.*
$JS.API.CONSUMER.DELETE.{dead_letters}.* $JS.API.CONSUMER.DELETE.{totals}.*
$JS.API.CONSUMER.DELETE.{advisories}.*
$JS.ACK.{dead_letters}.> $JS.ACK._.*.{dead_letters}.>
$JS.ACK.{advisories}.> $JS.ACK._.*.{advisories}.>
$JS.API.STREAM.MSG.GET.{bodies} $O.{bucket}.>
"""
_DOCTOR = """
$JS.API.INFO $JS.API.STREAM.LIST $JS.API.STREAM.INFO.* $JS.API.CONSUMER.LIST.*
"""
_READER = """
$JS.API.STREAM.NAMES $JS.API.STREAM.INFO.{events} $JS.API.STREAM.INFO.{dead_letters}
$JS.API.CONSUMER.INFO.{events}.*
$JS.API.STREAM.MSG.GET.{dead_letters} $JS.API.STREAM.MSG.GET.{events}
$JS.API.STREAM.MSG.GET.{bodies}
"""
_EVERY_ACK = "$JS.ACK.{events}.> $JS.ACK.*.*.{events}.>"
_ROLES = {
    "operator": ("$JS.API.> {prefix}.totals.*.*", ""),
    "service": (_SERVICE, ""),
    "drain": (_DRAIN, ""),
    "bridge": (_BRIDGE, _EVERY_ACK),
    "doctor": (_DOCTOR, "$JS.ACK.>"),
    "reader": (_READER, ""),
    "redriver": (_REDRIVER, "{prefix}.dlq.> {prefix}.redrive.succeeded " + _EVERY_ACK),
}
ROLES = tuple(_ROLES)
