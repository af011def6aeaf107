"""Files that hold passwords: only their owner reads them, from the first byte on."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


def write_private(file: Path, text: str) -> None:
    """Write a file that nobody else can read, whatever was there before."""
    handle, fresh = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # made 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
        Path(fresh).replace(file)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def remembered_password(file: Path) -> str:
    """The password in `file`, made up where there is none yet."""
    with contextlib.suppress(FileNotFoundError):
        if known := file.read_text(encoding="utf-8").strip():
            return known
    made = secrets.token_urlsafe(24)
    write_private(file, f"{made}\n")
    return made
