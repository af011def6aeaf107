"""The examples do what they say, run as people run them."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_simple_test_counts_what_really_happened(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "simple_test.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-3:] == [
        "Successful processes: 1",
        "Retry attempts: 6 (2 retries × 3 attempts)",
        "DLQ events: 2",
    ]
    for field in ("field-in-the-clouds", "field-off-the-map"):
        told = [line for line in lines if line.startswith(field)]
        assert told[:3] == [f"{field}: call {call} of 3 fails" for call in (1, 2, 3)]
        assert len(told) == 4
        assert "dead letter" in told[3]
    assert list(tmp_path.iterdir()) == []
