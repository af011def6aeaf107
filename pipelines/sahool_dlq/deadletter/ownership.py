"""Who owns a failure: the first rule of the rules file that matches, else a CODEOWNERS file.

Both are pure: the same failure and the same files give the same owner.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec
from codeowners import CodeOwners

from sahool_dlq.deadletter.fingerprint.stack_trace import FrameRules, our_places

__all__ = ["NOBODY", "Owned", "OwnerRule", "Owners", "Ownership"]

_CONDITIONS = ("service", "path", "error_type")
_SECTION = re.compile(r"\^?\[[^]]*\](?:\[\d+\])?(?P<owners>(?:\s+\S+)*)\s*")  # of GitLab


class OwnerRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An owner of the failures that meet every given condition; wildcards `*` and `?`."""

    owner: str
    service: str | None = None
    path: str | None = None  # of a frame of our code, or its class
    error_type: str | None = None  # with or without its module

    def __post_init__(self) -> None:
        if not self.owner.strip():
            raise ValueError("an owner needs a name")
        if all(getattr(self, name) is None for name in _CONDITIONS):
            raise ValueError(f"the rule of {self.owner} has no condition: {', '.join(_CONDITIONS)}")


class Ownership(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of the rules file that names owners."""

    codeowners: str | None = None
    """A CODEOWNERS file; relative to the rules file."""
    roots: dict[str, str] = {}
    """Folders of the repository by the folder that traces show: `"/app/" = "services/billing/"`.
    Without them, every end of a trace's path is tried."""
    rule: tuple[OwnerRule, ...] = ()
    """The first that matches counts."""


class Owned(NamedTuple):
    """An owner, and what named it; both None if nobody owns the failure."""

    owner: str | None = None
    source: str | None = None


NOBODY = Owned()


class Owners:
    """The owners of failures by these rules, the text of a CODEOWNERS file, and rules of frames.

    Raises ValueError, with its line, if a pattern of the file is not valid.
    """

    def __init__(
        self, rules: Ownership, codeowners: str = "", frames: FrameRules | None = None
    ) -> None:
        self._rules = rules
        self._frames = frames or FrameRules()
        self._file = CodeOwners(_checked(codeowners))
        said = msgspec.json.encode([rules, codeowners, self._frames])
        self.hash = hashlib.blake2b(said, digest_size=8).hexdigest()
        """16 hexadecimal digits; the same for the same rules."""
        self.is_empty = not rules.rule and not self._file.paths

    def of(self, service: str, error_type: str, stack_trace: str | None) -> Owned:
        """The owner of a failure: of the frame of our code that is nearest to the exception and
        has one, where a path decides.
        """
        places = our_places(stack_trace or "", self._frames)
        for rule in self._rules.rule:
            if _matches(rule, service, error_type, places):
                return Owned(rule.owner, "rule")
        owners = (self._by_file(place) for place in places)
        owner = next((owner for owner in owners if owner), None)
        return Owned(owner, "CODEOWNERS") if owner else NOBODY

    def _by_file(self, place: str) -> str | None:
        """The first owner in the last line that matches a path."""
        found = [
            self._file.matching_line(path) for path in _in_repository(place, self._rules.roots)
        ]
        owners, _, _, _ = max(found, key=lambda line: line[1] or 0, default=([], 0, None, None))
        return owners[0][1] if owners else None


def _matches(rule: OwnerRule, service: str, error_type: str, places: Sequence[str]) -> bool:
    if rule.service is not None and not fnmatchcase(service, rule.service):
        return False
    names = (error_type, error_type.rpartition(".")[2])
    if rule.error_type is not None and not any(fnmatchcase(n, rule.error_type) for n in names):
        return False
    return rule.path is None or any(fnmatchcase(place, rule.path) for place in places)


def _in_repository(place: str, roots: Mapping[str, str]) -> list[str]:
    """The paths in the repository that a path in a trace may be; with its root only one."""
    path = place.replace("\\", "/")
    known = [root for root in roots if path.startswith(root)]
    if known:
        root = max(known, key=len)
        return [(roots[root] + path.removeprefix(root)).lstrip("/")]
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _checked(text: str) -> str:
    """A CODEOWNERS file as GitHub reads it: owners of a GitLab section are put in its lines.

    In a line that GitLab excludes (`!`), a path has no owner.
    """
    default, lines = "", []
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"\s#.*", "", line).strip()
        if section := _SECTION.fullmatch(line):
            default, line = section["owners"], ""
        elif line.startswith("!"):
            line = re.split(r"(?<!\\)\s", line[1:], maxsplit=1)[0]
        elif line and not line.startswith("#") and not re.search(r"(?<!\\)\s", line):
            line += default
        try:
            CodeOwners(line)
        except (ValueError, re.error) as error:
            raise ValueError(f"CODEOWNERS, line {number}: {error}") from error
        lines.append(line)
    return "\n".join(lines)
