"""How well fingerprints group failures: `python benchmarks/quality.py [corpus folder]`.

`library_messages` and `more_messages` were written for this project, after messages of well-known
libraries, and the recipe was tuned on them: they guard against regressions, and tell little about
other messages. The fresh ones were written later, after issues, documentation and source of other
libraries, languages and services, each lot before it was measured. On `seen` the recipe was tuned;
`held_out` came last, and nothing was changed for it, so its figures are those to expect on messages
of others. Traces are measured with what production makes of each (`variations`). Messages in other
languages and traces of other runtimes are generated with a fixed seed (`other_languages`).

Causes (`cause_id`) are measured on failures that libraries really raise, each in several programs
and installed in several places (`raised_causes`); beside them stands what the groups make of these.

Every pair of failures is a decision. Precision: of the pairs put together, how many belong
together; recall: of the pairs that belong together, how many were put together.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import other_languages
from raised_causes import raised_causes
from sahool_dlq.deadletter.fingerprint.fingerprint import fingerprint
from variations import kept, split

PARTS = ("seen", "held_out")
FRESH_MESSAGES = Path(__file__).with_name("fresh_messages.jsonl")
FRESH_TRACES = Path(__file__).with_name("fresh_traces.jsonl")


class Quality(NamedTuple):
    """Agreement of groups with labels, over pairs of failures; 1.0 if there are no pairs."""

    failures: int
    labels: int
    groups: int
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def corpus_folder() -> Path:
    """The folder of the corpus: `DLQ_CORPUS`, else next to the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "corpus"
    return Path(os.environ.get("DLQ_CORPUS", default))


def library_messages() -> Quality:
    """Messages in the wording of libraries, with varying values."""
    return _messages(Path(__file__).with_name("library_messages.jsonl"))


def more_messages() -> Quality:
    """The same, written later; some of the errors that they showed were then corrected."""
    return _messages(Path(__file__).with_name("more_messages.jsonl"))


def github_errors(corpus: Path) -> Quality:
    """Real messages without tracebacks, labelled by hand."""
    return _messages(corpus / "github_errors.jsonl")


def fresh_messages(part: str) -> Quality:
    """Messages of other libraries; `part` is one of `PARTS`."""
    return _messages(FRESH_MESSAGES, part)


def fresh_traces() -> Quality:
    """Python, Java and Node tracebacks, each with variations of the same and of other failures."""
    labels, groups = [], []
    for row in rows_of(FRESH_TRACES):
        failures = [(row["label"], row), *((row["label"], r) for r in kept(row).values())]
        failures += [(f"{row['label']}, {name}", r) for name, r in split(row).items()]
        for label, r in failures:
            labels.append(label)
            groups.append(
                fingerprint(r["error_type"], r["error_message"], r["stack_trace"]).group_id
            )
    return measure(labels, groups)


def other_messages(part: str) -> Quality:
    """Messages in other languages, generated; `part` is one of `PARTS`."""
    return _generated(other_languages.foreign_messages(part))


def other_traces(part: str) -> Quality:
    """Traces of many runtimes with their variations, generated; `part` is one of `PARTS`."""
    return _generated(other_languages.runtime_traces(part))


def _generated(failures: Iterable[other_languages.Failure]) -> Quality:
    labels, groups = [], []
    for label, error_type, message, trace in failures:
        labels.append(label)
        groups.append(fingerprint(error_type, message, trace).group_id)
    return measure(labels, groups)


def raised(by: str) -> Quality:
    """Failures that libraries raise in several programs; `by` is `cause_id` or `group_id`."""
    failures = raised_causes()
    found = [getattr(fingerprint(*failure[1:]), by) for failure in failures]
    return measure([failure.label for failure in failures], found)


def rows_of(file: Path, part: str | None = None) -> list[dict[str, Any]]:
    """The lines of a file, or those of one part."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row for row in rows if part in (None, row.get("part"))]


def _messages(file: Path, part: str | None = None) -> Quality:
    rows = rows_of(file, part)
    groups = [fingerprint(r["error_type"], r["error_message"], None).group_id for r in rows]
    return measure([row["label"] for row in rows], groups)


def jvm_crashes(corpus: Path) -> Quality:
    """Tracebacks of different crashes: every file is a separate group."""
    paths = sorted((corpus / "jvm_crashes").glob("*.log"))
    groups = []
    for path in paths:
        trace = path.read_text()
        error_type, _, message = trace.partition("\n")[0].partition(":")
        groups.append(fingerprint(error_type.strip(), message.strip(), trace).group_id)
    return measure([path.name for path in paths], groups)


def measure(labels: Sequence[Hashable], groups: Sequence[Hashable]) -> Quality:
    """Pairwise agreement of `groups` with `labels`, which are in the same order."""
    right = _pairs(zip(labels, groups, strict=True))
    together, alike = _pairs(groups), _pairs(labels)
    return Quality(
        failures=len(labels),
        labels=len(set(labels)),
        groups=len(set(groups)),
        precision=right / together if together else 1.0,
        recall=right / alike if alike else 1.0,
    )


def _pairs(values: Iterable[Hashable]) -> int:
    return sum(n * (n - 1) // 2 for n in Counter(values).values())


def main() -> None:
    """Print the table."""
    corpus = Path(sys.argv[1]) if len(sys.argv) > 1 else corpus_folder()
    measured = {"library_messages": library_messages(), "more_messages": more_messages()}
    measured |= {f"fresh_messages, {part}": fresh_messages(part) for part in PARTS}
    measured["fresh_traces"] = fresh_traces()
    measured |= {f"other_messages, {part}": other_messages(part) for part in PARTS}
    measured |= {f"other_traces, {part}": other_traces(part) for part in PARTS}
    measured |= {f"raised_causes, {by}": raised(by) for by in ("cause_id", "group_id")}
    if corpus.is_dir():
        measured |= {"github_errors": github_errors(corpus), "jvm_crashes": jvm_crashes(corpus)}
    else:
        print(f"no corpus of real failures at {corpus}: set DLQ_CORPUS", file=sys.stderr)
    print(f"{'corpus':<24} failures labels groups precision recall    F1")
    for name, q in measured.items():
        print(
            f"{name:<24} {q.failures:>8} {q.labels:>6} {q.groups:>6} "
            f"{q.precision:>9.3f} {q.recall:>6.3f} {q.f1:>5.3f}"
        )


if __name__ == "__main__":
    main()
