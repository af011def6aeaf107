"""What a power loss may leave of a Delta log on a disk: a torn last entry, a torn checkpoint.

An object store puts whole objects, so there is nothing to mend there.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def torn_log_files(table: str) -> dict[Path, str]:
    """The files of a table's log that were not written to their end, with what is wrong.

    Only the last entry can be: each was made safe before the next one began.
    """
    log = Path(table) / "_delta_log"
    if "://" in table or not log.is_dir():
        return {}
    torn = {}
    entries = sorted(log.glob("*.json"))
    if entries and (reason := _wrong_entry(entries[-1])):
        torn[entries[-1]] = reason
    for checkpoint in sorted(log.glob("*.checkpoint*.parquet"))[-1:]:
        try:
            pq.ParquetFile(checkpoint).read()
        except (OSError, pa.ArrowException):
            torn[checkpoint] = "it can not be read"
    pointer = log / "_last_checkpoint"
    if pointer.exists() and not _is_json(pointer.read_bytes()):
        torn[pointer] = "it is no JSON"
    return torn


def put_aside(file: Path) -> None:
    """Take a torn file out of the log; the table is what it was before that commit."""
    file.rename(file.with_name(file.name + ".torn"))


def _wrong_entry(entry: Path) -> str | None:
    lines = entry.read_bytes().splitlines()
    if not lines or not all(_is_json(line) for line in lines):
        return "it ends in the middle"
    kinds = {kind for line in lines for kind in json.loads(line)}
    # Every commit of ours that adds files says in the same entry which it is.
    if "add" in kinds and "txn" not in kinds:
        return "it ends before its watermark"
    return None


def _is_json(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
