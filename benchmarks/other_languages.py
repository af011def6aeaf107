"""Labelled failures of other languages and runtimes, generated with a fixed seed.

`foreign_messages.jsonl` holds messages with places for values, names of the schema, numbers, dates
and e-mail addresses: values vary within a failure, names make another one. `runtime_traces.jsonl`
holds traces as runtimes print them, most of them captured: `runtime_traces` varies each as deploys,
machines and log collectors do, and makes the failures near it that are others.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["foreign_messages", "kept", "runtime_traces", "split"]

FOLDER = Path(__file__).parent
_NAMES = ("price", "unit_weight", "customer", "area")
_VALUES = (
    *("alpha", "beta", "A-17", "Köln", "東京", "красный", "أحمد", "x9", "Grün", "Δελτα", "kg"),
    *("SKU-00417", "true", "12,5", "नमक", "서울", "naïve", "7f3a9c", "b"),
)
_MAILBOXES = ("ali", "sara.k", "o'brien", "müller", "li.wei+dlq", "x_1", "анна", "j-p")
_DOMAINS = ("example.com", "farm.example.org", "exämple.de", "mail.example.co.uk")
_SAMPLES = 6

Failure = tuple[str, str, str, str | None]
"""Label, error type, message, trace."""


def foreign_messages(part: str) -> Iterator[Failure]:
    """Six dead letters of each failure."""
    values = json.loads((FOLDER / "foreign_values.json").read_text())
    rng = random.Random(24)  # noqa: S311  (a benchmark)
    for number, row in enumerate(_rows("foreign_messages.jsonl", part)):
        text, own = row["error_message"], values[row["language"]]
        for name in _NAMES if "{name}" in text else [""]:
            for _ in range(_SAMPLES):
                message = text.format(
                    name=name,
                    value=rng.choice(_VALUES),
                    number="".join(rng.choice(own["digits"]) for _ in range(rng.randint(2, 7))),
                    date=rng.choice(own["dates"]),
                    email=f"{rng.choice(_MAILBOXES)}@{rng.choice(_DOMAINS)}",
                )
                yield f"{number} {name}", "SomeError", message, None


def runtime_traces(part: str) -> Iterator[Failure]:
    """Each traceback, its variations, and those of similar failures."""
    for row in _rows("runtime_traces.jsonl", part):
        kind, message = row["error_type"], row["error_message"]
        for difference, trace in {"": row["stack_trace"], **split(row)}.items():
            for varied in [trace, *kept({**row, "stack_trace": trace}).values()]:
                yield f"{row['label']} {difference}", kind, message, varied


def kept(row: Mapping[str, Any]) -> dict[str, str]:
    """The traceback of a row as other releases and log collectors would print it, by the kind of
    change.
    """
    trace: str = row["stack_trace"]
    varied = {
        "other lines": re.sub(
            r"(\.(?:py|go|s|php|rb|rs|exs?|erl|java|kt|scala|js|mjs|cs):(?:\D{1,8} ?)?"
            r"|\.php\(|line |\{line,)"
            r"(\d+)",
            lambda m: f"{m[1]}{int(m[2]) + 13}",
            trace,
        ),
        "other addresses": re.sub(r"0x[0-9a-f]{4,}", "0xc000beef40", trace),
        "other versions": re.sub(r"(\d+\.\d+\.)\d+", r"\g<1>99", trace),
        "other hashes": re.sub(
            r"8f3c2d1a|ABCD1234|DiwrgTda|Bx3kd9a_|9c41e07bd2|7d1f0a9be3c24c55|QX7ZK2LP|C4hT_w0q",
            lambda m: m[0][::-1],
            trace,
        ),
        "windows line ends": trace.replace("\n", "\r\n"),
        "containerd": re.sub("(?m)^", "2026-03-01T12:00:00.123456789Z stderr F ", trace),
        "compose": re.sub("(?m)^", "worker-1  | ", trace),
        "syslog": re.sub("(?m)^", "Mar  1 12:00:00 node-7 worker[4711]: ", trace),
        "docker": "\n".join(
            json.dumps({"log": f"{line}\n", "stream": "stderr", "time": "2026-03-01T12:00:00Z"})
            for line in trace.split("\n")
        ),
        "JSON": json.dumps({"level": "error", "msg": "cannot handle", "exc_info": trace}),
        "JSON in a string": json.dumps(json.dumps({"error": {"stack": trace}}))[1:-1],
        "escaped": trace.replace("\n", "\\n").replace("\t", "\\t"),
    }
    if row["root"]:
        other = "C:\\ci\\co\\" if "\\" in row["root"] else "/opt/build-17/checkout/"
        varied["other checkout"] = trace.replace(row["root"], other)
    return {name: other for name, other in varied.items() if other != trace}


def split(row: Mapping[str, Any]) -> dict[str, str]:
    """Tracebacks of similar failures in which the failing function has another name."""
    top: str = row["top"]
    ending = re.compile(r"[A-Za-z]+(?=[^A-Za-z]*$)")
    return {"elsewhere": row["stack_trace"].replace(top, ending.sub("otherPlace", top))}


def _rows(name: str, part: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
    return [row for row in rows if row["part"] == part]
