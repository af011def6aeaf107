"""The files that the map in docs/architecture.md names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "pipelines" / "sahool_dlq"
ROWS = [
    line
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines()
    if line.startswith("| ") and "`" in line
]
NAMES = re.compile(r"`((?:[\w-]+/)*(?:[\w-]+\.\w+)?)`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_each_file_of_the_map_is_there(row: str) -> None:
    """A name without a folder is in a folder that the row names, or next to one of its files."""
    named = [name for name in NAMES.findall(row) if name]
    paths = [path for name in named for path in (PACKAGE / name, ROOT / name) if path.exists()]
    folders = [path if path.is_dir() else path.parent for path in paths]
    lost = [
        name
        for name in named
        if not any((folder / name).exists() for folder in (PACKAGE, ROOT, *folders))
        and not any(found for folder in folders for found in folder.rglob(name))
    ]
    assert not lost
