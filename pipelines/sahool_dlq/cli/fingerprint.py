"""`dlq fingerprint`."""

import sys
from itertools import islice
from typing import BinaryIO

import click
import msgspec
import polars as pl

from sahool_dlq.cli.output import errors, safe
from sahool_dlq.cli.verb import tell, verb
from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint
from sahool_dlq.deadletter.fingerprint.stack_trace import read_trace
from sahool_dlq.deadletter.sanitize import clean_text
from sahool_dlq.settings import Settings

_CHUNK = 5_000  # lines, computed together by column


class _Failure(msgspec.Struct):
    """One line; other keys are let pass."""

    error_type: str
    error_message: str
    stack_trace: str | None = None


@verb
@click.argument("file", type=click.File("rb"))
def command(settings: Settings, file: BinaryIO) -> None:
    """Print the failure group of each line of FILE (`-`: standard input), to test rules.

    A line is a JSON object with error_type, error_message and stack_trace (which may be null).
    Applies redaction and the rules of DLQ_RULES_FILE as a drain does. Prints one JSON object per
    line: the group, and what was understood (language of the trace, exceptions from root cause to
    raised, frames that count). A line that is not valid is reported on standard error, and the exit
    status is 1.
    """
    rules = settings.rules
    redactor = settings.redactor(rules)
    is_whole = True
    lines = enumerate(file, 1)
    while chunk := list(islice(lines, _CHUNK)):
        numbers, failures = [], []
        for number, line in chunk:
            if not line.strip():
                continue
            try:
                failures.append(_failure(line))
                numbers.append(number)
            except ValueError as error:
                errors.print(f"line {number}: {safe(error)}", soft_wrap=True)
                is_whole = False
        frame = pl.DataFrame(
            [msgspec.structs.astuple(failure) for failure in failures],
            schema=dict.fromkeys(_Failure.__struct_fields__, pl.String),
            orient="row",
        )
        rows = add_fingerprint(redactor.redact_frame(frame), rules.grouping).to_dicts()
        for number, row in zip(numbers, rows, strict=True):
            trace = read_trace(row["stack_trace"] or "")
            tell(
                {
                    "line": number,
                    "group_id": row["group_id"],
                    "parent_id": row["parent_id"],
                    "cause_id": row["cause_id"],
                    "type": row["error_class"],
                    "template": row["template"],
                    "language": trace.language or None,
                    "chain": list(trace.chain),
                    "frames": row["frames"].split(" < ") if row["frames"] else [],
                }
            )
    if not is_whole:
        sys.exit(1)


def _failure(line: bytes) -> _Failure:
    """The failure on a line; raises ValueError, in one sentence, where there is none."""
    try:
        failure = msgspec.json.decode(line, type=_Failure)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except msgspec.ValidationError as error:
        raise ValueError(f"not a failure: {error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    trace = failure.stack_trace
    return _Failure(
        clean_text(failure.error_type),
        clean_text(failure.error_message),
        clean_text(trace) if trace is not None else None,
    )
