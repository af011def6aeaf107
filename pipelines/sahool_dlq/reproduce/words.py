"""The report of a trial as text, and as GitHub annotations: pure."""

from collections.abc import Iterator, Mapping, Sequence

from sahool_dlq.deadletter.sanitize import readable
from sahool_dlq.reproduce.verdict import GroupTrial, Kind, TrialReport

__all__ = ["EFFECTS", "annotations", "group_line", "notes", "summary"]

EFFECTS = (
    "Nothing was published, acknowledged or stored here. What the handler itself did, in "
    "databases or other services, was really done."
)
_MOST_NAMED = 5
_LONGEST_MESSAGE = 200


def group_line(group: GroupTrial, known: Mapping[str, int]) -> str:
    """`47 of 50 pass; 3 raise KeyError at price.py:41, which is another group`."""
    if not group.tried:
        return "no event could be tried"
    passed = "all" if group.is_cured and group.tried > 1 else f"{group.passed:,}"
    parts = [f"{passed} of {group.tried:,} {_verb(group.passed, 'pass', 'passes')}"]
    parts += [f"{_kind(kind)}, {_which(kind, group.group_id, known)}" for kind in group.kinds]
    return "; ".join(parts)


def summary(report: TrialReport) -> str:
    """`This code cures groups A and B (412 of 415 events), breaks none of 1,000 sampled …`."""
    cured = [group for group in report.groups if group.is_cured]
    partly = [group for group in report.groups if group.passed and not group.is_cured]
    parts = []
    if not report.groups:
        parts.append("finds no open failure to cure")
    elif cured:
        noun = "group" if len(cured) == 1 else "groups"
        parts.append(f"cures {noun} {_named([group.group_id for group in cured])}")
    else:
        parts.append("cures no group")
    if partly:
        parts.append(f"some of {_named([group.group_id for group in partly])}")
    said = " and ".join(parts)
    if report.groups:
        said += f" ({report.passed:,} of {report.tried:,} events)"
    if (successes := report.successes) is not None:
        if successes.why_none is not None:
            said += f"; no success could be tried: {successes.why_none}"
        else:
            broken = f"{report.broken:,}" if report.broken else "none"
            said += f", breaks {broken} of {successes.tried:,} sampled successes"
    return f"This code {said}."


def notes(report: TrialReport) -> Iterator[str]:
    """Further notes, one sentence each."""
    for group in report.groups:
        for reason, count in group.missing.items():
            yield f"{count:,} {_verb(count, 'events', 'event')} of {group.group_id}: {reason}."
    if report.successes is not None and report.undrained:
        yield (
            f"{report.undrained:,} messages of the log were not drained yet: a failure among them"
            " may have been taken for a success; `dlq drain` brings them in."
        )
    for untested, reason in report.untested.items():
        yield f"No test was written for {untested}: {reason}."


def annotations(report: TrialReport) -> Iterator[str]:
    """GitHub annotations at the code: an error for each broken success, else warnings."""
    for kind in report.successes.kinds if report.successes else ():
        yield _annotation("error", "a success breaks", kind, f"{_kind(kind)}: {_message(kind)}")
    for group in report.groups:
        for kind in group.kinds:
            which = _which(kind, group.group_id, report.known)
            said = f"{_kind(kind)}, {which}: {_message(kind)}"
            yield _annotation("warning", f"group {group.group_id} still fails", kind, said)
    level = "error" if report.broken else "notice"
    yield f"::{level} title=dlq try::{_escaped(summary(report))}"


def _annotation(level: str, title: str, kind: Kind, said: str) -> str:
    place = f"file={_property(kind.file)},line={kind.line}," if kind.file else ""
    return f"::{level} {place}title={_property(title)}::{_escaped(said)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _kind(kind: Kind) -> str:
    """`3 raise KeyError at price.py:41`."""
    n = kind.count
    error = "" if kind.error_type == "HandlerResult" else f" {readable(kind.error_type)}"
    at = f" at {readable(kind.at)}" if kind.at else ""
    said = {
        "raised": f"{_verb(n, 'raise', 'raises')}{error}",
        "retry": f"{_verb(n, 'return', 'returns')} RETRY" + (f" for{error}" if error else ""),
        "dead_letter": f"{_verb(n, 'return', 'returns')} DEAD_LETTER"
        + (f" for{error}" if error else ""),
        "died": f"{_verb(n, 'end', 'ends')} the process",
    }[kind.result]
    return f"{n:,} {said}{at}"


def _which(kind: Kind, group_id: str, known: Mapping[str, int]) -> str:
    if kind.group_id == group_id:
        return "as before"
    if kind.group_id in known:
        return f"which is another group ({kind.group_id}, {known[kind.group_id]:,} open)"
    return f"which is another group ({kind.group_id}, not seen before)"


def _message(kind: Kind) -> str:
    return readable(kind.error_message, _LONGEST_MESSAGE)


def _named(groups: Sequence[str]) -> str:
    shown = list(groups[:_MOST_NAMED])
    if len(groups) > len(shown):
        shown.append(f"{len(groups) - len(shown):,} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _verb(count: int, many: str, one: str) -> str:
    return one if count == 1 else many
