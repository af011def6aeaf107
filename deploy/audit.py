"""`make audit`: known vulnerabilities of the packages in the lock files.

pip-audit prints "No known vulnerabilities found" and exits with 0 also if the database knows none
of the packages, as with an index that is only a mirror. Here that is an error.

Needs pip-audit in the environment of this Python. Exits with 0 if every package was looked up and
none has a known vulnerability, 1 if one has, 2 if some could not be looked up.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OPTIONS = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "-f", "json")
_MOST_NAMES = 5


def main(arguments: Sequence[str]) -> int:
    """Audit lock files; arguments from the first one that begins with `-` are for pip-audit."""
    options = next((i for i, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    code = 0
    for lock in arguments[:options]:
        found, said = verdict(*_run(lock, arguments[options:]))
        print(f"{lock}: {said}", file=sys.stderr if found else sys.stdout)
        code = max(code, found)
    return code


def verdict(report: str, trouble: str) -> tuple[int, str]:
    """The exit status and what to print, from pip-audit's JSON and its other output."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        last = (trouble.strip().splitlines() or ["it said nothing"])[-1]
        return 2, f"no advisory database can be reached, so nothing is known ({last[:120]})."
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    affected = [each for each in packages if each.get("vulns")]
    lines = [
        f"  {each['name']} {each['version']}: {vulnerability['id']}, fixed in"
        f" {', '.join(vulnerability['fix_versions']) or 'no version'}"
        for each in affected
        for vulnerability in each["vulns"]
    ]
    if unknown or not packages:
        names = ", ".join(unknown[:_MOST_NAMES]) + (" …" if len(unknown) > _MOST_NAMES else "")
        lines.insert(
            0,
            f"the advisory database knows {len(packages) - len(unknown)} of {len(packages)}"
            f" packages, so nothing is known of the rest ({names}): use one that does, such as"
            ' make audit ARGS="-s osv".',
        )
        return 2, "\n".join(lines)
    if affected:
        return 1, "\n".join([f"{len(affected)} packages have known vulnerabilities:", *lines])
    return 0, f"{len(packages)} packages, no known vulnerability."


def _run(lock: str, options: Sequence[str]) -> tuple[str, str]:
    pip_audit = Path(sys.executable).with_name("pip-audit")
    done = subprocess.run(
        [str(pip_audit), *_OPTIONS, *options, "-r", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout, done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
