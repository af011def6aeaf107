"""The example of a monitor works as it says, when run as a user runs it."""

import subprocess
import sys
from pathlib import Path

from support import ROOT

EXAMPLE = ROOT / "examples" / "dlq_monitor_example.py"


def test_every_decision_is_in_the_database_and_the_notifier_is_called(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-4:] == [
        "field-1 | TimeoutError | pending | False | 6:00:00",
        "field-2 | DatabaseError | pending | True | None",
        "field-3 | ValueError | pending | False | None",
        "test-field | ValueError | discarded | False | None",
    ]
    assert sorted(lines[:-4]) == [
        "PAGE: DatabaseError in area-service: relation fields does not exist",
        "field-1: RETRY",
        "field-2: ALERT",
        "field-3: STORE",
        "test-field: DISCARD",
    ]
    assert list(tmp_path.iterdir()) == []
