"""The code of yield-service in a folder of its own, which the fleet runs, and `dlq try` tries."""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

from sahool_dlq.demo import agronomy

HANDLER = "agronomy:estimate"
MENDED_VERSION = "1.4.3"
_FOLDER = "yield-service"
_BUG = "return plants / area_hectares"
_FIX = f"{_BUG} if area_hectares else 0.0"


def check_out(home: Path) -> Path:
    """The folder of the working copy below `home`; made if it is missing."""
    folder = home / _FOLDER
    source = Path(agronomy.__file__)
    if not (folder / source.name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / source.name)
    return folder


def mend(folder: Path) -> str:
    """Repair the bug in the working copy, as version `MENDED_VERSION`; returns the new line."""
    file = folder / Path(agronomy.__file__).name
    code = file.read_text(encoding="utf-8")
    code = code.replace(_BUG, _FIX).replace(agronomy.VERSION, MENDED_VERSION)
    file.write_text(code, encoding="utf-8")
    return _FIX


def load(folder: str) -> ModuleType:
    """The module of the working copy, in the process of the fleet."""
    sys.path.insert(0, folder)
    return importlib.import_module(HANDLER.partition(":")[0])
