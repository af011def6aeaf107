"""The order of a service's versions: by PEP 440, else by SemVer, else by appearance. Pure."""

from collections.abc import Sequence
from typing import Any

from packaging.version import Version
from semver import Version as SemVer

__all__ = ["in_order", "older_than"]


def in_order(versions: Sequence[str]) -> list[str]:
    """The versions of one service, the lowest first.

    They are given in the order in which they appeared. That order is kept if they are not all
    valid by PEP 440 (`2.4`, `v2.4.1rc1`), nor all by SemVer (`2.4.0-feature.7`), and for versions
    that are equal, such as `2.4` and `2.4.0`.
    """
    places = _places(versions)
    return sorted(versions, key=lambda version: places[version])


def older_than(version: str, versions: Sequence[str]) -> set[str]:
    """Those of a service's versions that are lower than this one, in the order of `in_order`.

    If that order is by appearance, and this version has not appeared, all others are older.
    """
    places = _places(versions if version in versions else [*versions, version])
    return {other for other in versions if places[other] < places[version]}


def _places(versions: Sequence[str]) -> dict[str, Any]:
    """A key by version; equal versions have equal keys, unless they are ordered by appearance."""
    for read in (Version, _semver):
        try:
            return {version: read(version) for version in versions}
        except ValueError:  # packaging's InvalidVersion is one
            continue
    return {version: place for place, version in enumerate(versions)}


def _semver(text: str) -> SemVer:
    return SemVer.parse(text.removeprefix("v"))
