"""deploy/Dockerfile and its lock, without Docker; `make test-image` does what it says."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support import ROOT
from support.image import copied, instructions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned(lock: str) -> dict[str, str]:
    found = re.findall(r"^([\w.\[\]-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_the_image_has_the_versions_of_the_tests() -> None:
    image, tested = pinned("deploy/image.lock"), pinned("requirements.lock")
    assert image.items() <= tested.items()


def test_the_lock_has_what_the_package_requires_and_builds_with() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        *PROJECT["project"]["dependencies"],
        *extras["pipelines"],
        *extras["decoders"],
        *PROJECT["build-system"]["requires"],
    ]
    names = {canonicalize_name(Requirement(each).name) for each in wanted}
    assert names <= set(pinned("deploy/image.lock"))
    assert set(PROJECT["build-system"]["requires"]) == set(PROJECT["dependency-groups"]["build"])


def test_the_image_copies_what_there_is_and_all_that_the_wheel_is_built_of() -> None:
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["only-include"], *wheel["force-include"], *PROJECT["project"]["license-files"]]
    for each in [*needed, "README.md", "pyproject.toml"]:
        assert any(each == name or each.startswith(f"{name}/") for name in copied()), each


def test_every_package_is_checked_against_its_hash() -> None:
    installs = [text for name, text in instructions() if name == "RUN" and "pip install" in text]
    packages, own = installs
    assert "--require-hashes" in packages
    assert own.count("pip install") == 1
    assert "--no-deps /tmp/dist/*.whl" in own
