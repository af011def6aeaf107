"""The order of a service's versions: by PEP 440, else by SemVer, else by appearance. Pure."""

from collections.abc import Sequence

from packaging.version import Version
from semver import Version as SemVer

__all__ = ["in_order"]


def in_order(versions: Sequence[str]) -> list[str]:
    """The versions of one service, the lowest first.

    They are given in the order in which they appeared. That order is kept if they are not all
    valid by PEP 440 (`2.4`, `v2.4.1rc1`), nor all by SemVer (`2.4.0-feature.7`), and for versions
    that are equal, such as `2.4` and `2.4.0`.
    """
    for read in (Version, _semver):
        try:
            return sorted(versions, key=read)
        except ValueError:  # packaging's InvalidVersion is one
            continue
    return list(versions)


def _semver(text: str) -> SemVer:
    return SemVer.parse(text.removeprefix("v"))
