"""`sahool_dlq.events` imports its names lazily; a missing package never breaks the import."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import sahool_dlq.events
from sahool_dlq.errors import DLQError, MissingPackageError
from sahool_dlq.lazy import lazy_getattr
from support import ROOT

SOURCE = ast.parse(Path(sahool_dlq.events.__file__).read_text())
FLAGS = {name for name in sahool_dlq.events.__all__ if name.endswith("_AVAILABLE")}


def typed_names() -> dict[str, set[str]]:
    """The names for type checkers: the imports under TYPE_CHECKING, by submodule."""
    [branch] = [node for node in SOURCE.body if isinstance(node, ast.If)]
    imports = [node for node in branch.body if isinstance(node, ast.ImportFrom)]
    return {
        (node.module or "").removeprefix("sahool_dlq.events."): {a.name for a in node.names}
        for node in imports
    }


def test_the_three_lists_agree() -> None:
    [table] = [node for node in ast.walk(SOURCE) if isinstance(node, ast.Dict)]
    lazy = {module: set(names) for module, names in ast.literal_eval(table).items()}
    assert lazy == typed_names()
    assert set(sahool_dlq.events.__all__) == FLAGS.union(*lazy.values())


def test_the_typing_test_uses_every_name() -> None:
    tree = ast.parse((ROOT / "tests" / "typing" / "api.py").read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(sahool_dlq.events.__all__) <= used


@pytest.mark.parametrize("name", sahool_dlq.events.__all__)
def test_every_name_is_there_and_is_always_the_same_object(name: str) -> None:
    assert getattr(sahool_dlq.events, name) is getattr(sahool_dlq.events, name)
    assert bool(getattr(sahool_dlq.events, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        sahool_dlq.events.Nonsense  # noqa: B018  (the access raises)
    with pytest.raises(ImportError, match="cannot import name"):
        exec("from sahool_dlq.events import Nonsense")


WITHOUT = """
import json, sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

class Hide(PathFinder):  # as if the packages were not installed
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

HIDDEN = set(sys.argv[1:])
sys.meta_path[:] = [Hide if finder is PathFinder else finder for finder in sys.meta_path]
from sahool_dlq.events import *
import sahool_dlq.events as events
values = {name: getattr(events, name) for name in events.__all__}
print(json.dumps({name: value if isinstance(value, (bool, str)) else
                  repr(value) if not value else True for name, value in values.items()}))
"""


def names_without(*packages: str) -> dict[str, Any]:
    """The public names, imported by a process that lacks some packages."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *packages], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_nats_the_import_works_and_the_flags_say_no() -> None:
    names = names_without("nats")
    assert {name for name in FLAGS if names[name]} == {
        "DLQ_MODELS_AVAILABLE",
        "METRICS_AVAILABLE",
    }
    assert names["ProcessingResult"] is names["NATSConsumerConfig"] is True
    assert names["NATSConsumer"] == (
        "<NATSConsumer needs nats, which is not installed: pip install 'sahool-dlq'.>"
    )


def test_without_anything_the_import_works() -> None:
    names = names_without("nats", "pydantic", "pydantic_core", "sqlalchemy", "prometheus_client")
    assert not any(names[name] for name in FLAGS)
    missing = set(names) - FLAGS - {"DeadLetter", "ProcessingResult", "Retry"}
    assert all("which is not installed" in names[name] for name in missing)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The object that a service gets for a name whose package is missing."""
    (tmp_path / "till.py").write_text("import sqlalchemy.orm\nclass Till: ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.setattr("sahool_dlq.lazy.import_module", lambda _: import_module("till"))
    return lazy_getattr("shop", {"till": ["Till"]})("Till")


def test_an_absent_name_says_what_to_install_however_it_is_used(stand_in: Any) -> None:
    sentence = (
        "Till needs sqlalchemy, which is not installed: pip install 'sahool-dlq[sqlalchemy]'."
    )

    def subclass() -> None:
        class Mine(stand_in): ...

    for use in (stand_in, lambda: stand_in(1, a=2), lambda: stand_in.objects, subclass):
        with pytest.raises(MissingPackageError) as caught:
            use()
        assert str(caught.value) == sentence
    assert issubclass(MissingPackageError, DLQError)
    assert issubclass(MissingPackageError, ImportError)


def test_an_absent_name_can_stand_where_types_stand(stand_in: Any) -> None:
    def annotated(thing: stand_in | None, things: list[stand_in]) -> stand_in: ...

    assert not stand_in
    assert not isinstance(1, stand_in)
    assert "pip install" in repr(stand_in)


def test_an_error_inside_our_own_modules_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"sahool_dlq\.events\.nowhere"):
        lazy_getattr("sahool_dlq.events", {"nowhere": ["Till"]})("Till")


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, sahool_dlq.events as events; before = set(sys.modules); events.NATSConsumer;"
    )
    code += "print(json.dumps([sorted(before), sorted(sys.modules)]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True)
    before, after = json.loads(done.stdout)
    assert not {"nats", "pydantic", "sqlalchemy"} & set(before)
    assert {"nats", "pydantic"} <= set(after)
    assert "sqlalchemy" not in after
