"""Files with passwords: only their owner can read them, from the first byte on."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


def write_private(file: Path, text: str) -> None:
    """Write a file that nobody else can read, whatever existed before."""
    handle, fresh = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # made 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
        Path(fresh).replace(file)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def make_private(home: Path, known_by: Path) -> None:
    """Create a folder that only its owner can enter; change an existing one if it is a home.

    It is a home if it contains `known_by`; other folders are not changed.
    """
    try:
        home.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if known_by.exists():
            # Root's PostgreSQL runs as another user, and must get at the data that it has there.
            is_passed = os.geteuid() == 0 and (home / "postgres" / "data").exists()
            home.chmod(0o711 if is_passed else 0o700)


def remembered_password(file: Path) -> str:
    """The password in `file`, created if there is none yet."""
    with contextlib.suppress(FileNotFoundError):
        if known := file.read_text(encoding="utf-8").strip():
            return known
    made = secrets.token_urlsafe(24)
    write_private(file, f"{made}\n")
    return made
