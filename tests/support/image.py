"""What deploy/Dockerfile does, without Docker: `make test-image`.

Its COPY instructions are done in a folder, and its RUN instructions with `pip` and `python` of a
fresh virtual environment. Then the image's command is run there. The base image is not tested, and
neither are its users.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support import ROOT

DOCKERFILE = ROOT / "deploy/Dockerfile"
_OF_THE_SYSTEM = "useradd"  # with it begins the RUN that is not repeated here
VERBS = (["dlq", "--version"], ["dlq", "drain", "--help"], ["prefect", "version"])


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile, with their arguments."""
    lines = re.sub(r"\\\n", " ", DOCKERFILE.read_text()).splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name, _, arguments = line.partition(" ")
            yield name, arguments.strip()


def copied() -> list[str]:
    """What the image takes from the repository."""
    return [
        source
        for name, arguments in instructions()
        if name == "COPY"
        for source in arguments.split()[:-1]
    ]


def build(home: Path) -> dict[str, str]:
    """Do what the Dockerfile does in this empty folder; the environment to run programs in."""
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    work = home / "work"
    work.mkdir()
    environment = {"PATH": f"{home / 'venv/bin'}:/usr/bin:/bin", "HOME": str(home)}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for name, arguments in instructions():
        if name == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                _copy(ROOT / source, work / target)
        elif name == "RUN" and not arguments.startswith(_OF_THE_SYSTEM):
            print(f"RUN {arguments}", flush=True)
            command = arguments.replace("/tmp/", f"{home}/")
            subprocess.run(["sh", "-ec", command], cwd=work, env=environment, check=True)
    shutil.rmtree(work)  # nothing may be needed of the sources
    return environment


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, ignore=ignore)
    else:
        shutil.copy(source, target)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = build(Path(folder))
        for command in VERBS:
            print(f"$ {' '.join(command)}", flush=True)
            subprocess.run(command, cwd=folder, env=environment, check=True)
    print("The image's packages and commands work.")


if __name__ == "__main__":
    main()
