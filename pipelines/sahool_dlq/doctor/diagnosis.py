"""The findings in an account, and their output: JSON, Prometheus, Nagios, a page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from sahool_dlq.analysis.report.section import Section
from sahool_dlq.connections import open_postgres
from sahool_dlq.deadletter.sanitize import printable
from sahool_dlq.doctor.facts import Account
from sahool_dlq.doctor.fate import fate
from sahool_dlq.doctor.finding import Finding, Severity, count
from sahool_dlq.doctor.reading import STREAMS, read_account
from sahool_dlq.doctor.rules import diagnose
from sahool_dlq.errors import ReportError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.diagnoses import keep_diagnosis

_OK, _WARNING, _CRITICAL = 0, 1, 2
NAGIOS_UNKNOWN = 3
TITLE = "What happens to failures"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings, the worst first, and what each consumer does with a poison message."""

    streams: int
    findings: tuple[Finding, ...]
    fates: tuple[tuple[str, str], ...]  # <stream>/<consumer>, and a sentence
    is_blind: bool  # not even the streams were shown

    @property
    def counts(self) -> dict[Severity, int]:
        """The number of findings of each severity."""
        found = Counter(each.severity for each in self.findings)
        return {severity: found[severity] for severity in Severity}

    @property
    def is_losing(self) -> bool:
        """Whether something loses data, or nothing is known."""
        return self.is_blind or bool(self.counts[Severity.LOSES])

    @property
    def summary(self) -> str:
        """All in one sentence."""
        if self.is_blind:
            return "Nothing could be checked."
        looked = f"{count(self.streams, 'stream')}, {count(len(self.fates), 'durable consumer')}"
        found = [
            f"{number} lose data"
            if severity is Severity.LOSES and number > 1
            else f"{number} {severity}"
            for severity, number in self.counts.items()
            if number
        ]
        return f"{looked}: {', '.join(found) or 'nothing is wrong'}."


async def examine(
    settings: Settings, *, listen_seconds: float = 2.0, stalled_seconds: float = 900.0
) -> Diagnosis:
    """Check the account of DLQ_NATS_URL; raises as `read_account` does."""
    account = await read_account(
        settings, listen_seconds=listen_seconds, stalled_seconds=stalled_seconds
    )
    return diagnosis_of(account)


def diagnosis_of(account: Account) -> Diagnosis:
    """The diagnosis of an account."""
    durable = [each for each in account.consumers if each.is_durable]
    return Diagnosis(
        len(account.streams),
        tuple(diagnose(account)),
        tuple((each.address, fate(account, each)) for each in durable),
        STREAMS in account.unseen,
    )


def keep(settings: Settings, diagnosis: Diagnosis, at: datetime) -> None:
    """Store it in PostgreSQL for the alert `loses_data`."""
    names = ("rule", "severity", "subject", "sentence", "command")
    with open_postgres(settings) as connection:
        keep_diagnosis(
            connection,
            at=at,
            loses=diagnosis.counts[Severity.LOSES],
            may_lose=diagnosis.counts[Severity.MAY_LOSE],
            findings=[{name: getattr(f, name) for name in names} for f in diagnosis.findings],
        )


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """For `--json`."""
    return {
        "is_losing": diagnosis.is_losing,
        "streams": diagnosis.streams,
        "counts": {severity.name.lower(): n for severity, n in diagnosis.counts.items()},
        "findings": [asdict(each) for each in diagnosis.findings],
        "consumers": [{"consumer": name, "fate": said} for name, said in diagnosis.fates],
    }


def as_prometheus(diagnosis: Diagnosis) -> str:
    """Metrics in Prometheus' text format, for a file that its node exporter reads."""
    registry = CollectorRegistry()
    found = Gauge(
        "dlq_doctor_finding",
        "Findings of dlq doctor.",
        ["rule", "severity", "subject"],
        registry=registry,
    )
    for each in diagnosis.findings:
        found.labels(each.rule, each.severity.name.lower(), each.subject).set(1)
    total = Gauge("dlq_doctor_findings", "Number of these.", ["severity"], registry=registry)
    for severity, number in diagnosis.counts.items():
        total.labels(severity.name.lower()).set(number)
    Gauge("dlq_doctor_streams", "Streams looked at.", registry=registry).set(diagnosis.streams)
    Gauge("dlq_doctor_consumers", "Durable consumers that were checked.", registry=registry).set(
        len(diagnosis.fates)
    )
    return generate_latest(registry).decode()


def as_nagios(diagnosis: Diagnosis) -> tuple[str, int]:
    """The output and exit status of a Nagios check: 0 is well, 1 a warning, 2 critical."""
    counts = diagnosis.counts
    if diagnosis.is_losing:
        word, status = "CRITICAL", _CRITICAL
    elif counts[Severity.MAY_LOSE]:
        word, status = "WARNING", _WARNING
    else:
        word, status = "OK", _OK
    figures = " ".join(f"{severity.name.lower()}={n}" for severity, n in counts.items())
    lines = [f"DLQ {word} - {diagnosis.summary}"]
    lines += [f"{each.severity}: {each.subject}: {each.sentence}" for each in diagnosis.findings]
    first, *rest = (printable(" ".join(line.split())).replace("|", "/") for line in lines)
    return "\n".join((f"{first} | {figures}", *rest)), status


def _findings(number: int) -> str:
    return "finding" if number == 1 else "findings"


def as_sections(diagnosis: Diagnosis) -> Sequence[Section]:
    """The tables of a page; the first is its strip of numbers."""
    counts = diagnosis.counts
    strip = (
        ("streams", diagnosis.streams, ""),
        ("durable consumers", len(diagnosis.fates), ""),
        *((str(severity), number, _findings(number)) for severity, number in counts.items()),
    )
    findings = tuple(
        (f.subject, str(f.severity), f.sentence, f.command) for f in diagnosis.findings
    )
    return (
        Section("Now", ("what", "value", "of which"), strip),
        Section(
            "What is wrong",
            ("where", "state", "what", "next"),
            findings,
            "Loses data: the next event that always fails is lost or delivered for ever, or "
            "some were lost already. May lose: only if something else happens, such as a "
            "restart."
            if findings
            else "Nothing is wrong: no stream or consumer loses failed events.",
        ),
        Section(
            "What happens to an event that always fails", ("consumer", "what"), diagnosis.fates
        ),
    )


def write_page(diagnosis: Diagnosis, file: Path, now: datetime) -> None:
    """One HTML page that needs nothing else; raises ReportError if it cannot be written."""
    from sahool_dlq.analysis.report.page import as_page  # its drawing package loads for a second

    try:
        page = as_page(TITLE, as_sections(diagnosis), now, headline=diagnosis.summary)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{file} cannot be written: {error.strerror}.") from error
