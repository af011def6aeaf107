"""Charts drawn in a separate process, each within a time limit.

The drawing library ends its process when it cannot write something, and takes minutes for very long
texts. Here that affects only one chart.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["draw"]

_SECONDS = 60  # a usual chart takes one or two


def draw(
    specs: Sequence[dict[str, Any]], version: str, seconds: int = _SECONDS
) -> list[str | None]:
    """Each specification of Vega-Lite `version` as SVG; None if it could not be drawn.

    No chart may take more than `seconds`.
    """
    drawn: list[str | None] = []
    while len(drawn) < len(specs):
        lines = _draw_in_child(specs[len(drawn) :], version, seconds)
        drawn += map(json.loads, lines)
        if len(drawn) < len(specs):  # it ended at this one
            drawn.append(None)
    return drawn


def _draw_in_child(specs: Sequence[dict[str, Any]], version: str, seconds: int) -> list[str]:
    """The output until its end: one complete line for each drawn chart."""
    child = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps({"specs": specs, "version": version, "seconds": seconds}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        check=False,
    )
    return [line for line in child.stdout.splitlines(keepends=True) if line.endswith("\n")]


def _main() -> None:
    wanted = json.load(sys.stdin)
    import vl_convert

    for spec in wanted["specs"]:
        signal.alarm(wanted["seconds"])  # its default is to end the process at any point
        print(json.dumps(vl_convert.vegalite_to_svg(spec, wanted["version"])), flush=True)


if __name__ == "__main__":
    _main()
