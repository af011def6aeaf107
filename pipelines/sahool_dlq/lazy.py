"""Names of a package that are imported on first use, or reported as missing."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

from sahool_dlq.errors import MissingPackageError

_INSTALLS = {
    "sqlalchemy": "sahool-dlq[sqlalchemy]",
    "faststream": "sahool-dlq[faststream]",
    "taskiq": "sahool-dlq[taskiq]",
    "taskiq_nats": "sahool-dlq[taskiq]",
    "prometheus_client": "sahool-dlq[metrics]",
    "psycopg": "sahool-dlq[pipelines,embedded]",
}
"""The extra that contains a package; others come with sahool-dlq itself."""


def is_installed(*packages: str) -> bool:
    """Whether all of these packages can be imported; none is imported for this check."""
    return all(find_spec(package) is not None for package in packages)


def lazy_getattr(package: str, names: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562) for `names`: the public names by submodule.

    A name whose module needs a package that is not installed becomes a stand-in, so that an
    import of many names never fails because of one: see `_Missing`.
    """
    module_of = {name: module for module, members in names.items() for name in members}

    @cache
    def getattr_(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{module_of[name]}"), name)
        except ModuleNotFoundError as error:
            needed = (error.name or "").partition(".")[0]
            if needed == package.partition(".")[0]:
                raise
            return _stand_in(name, needed)

    return getattr_


class _Missing(type):
    """The type of a stand-in for a name whose package is missing.

    It is falsy and usable in annotations and `isinstance`; calling it, subclassing it or reading an
    attribute raises MissingPackageError.
    """

    sentence: str

    def __init__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> None:
        super().__init__(name, bases, space)
        if bases:
            raise MissingPackageError(cls.sentence)

    def __call__(cls, *_: Any, **__: Any) -> NoReturn:
        raise MissingPackageError(cls.sentence)

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):  # questions that Python asks of any class
            raise AttributeError(name)
        raise MissingPackageError(cls.sentence)

    def __bool__(cls) -> bool:
        return False

    def __repr__(cls) -> str:
        return f"<{cls.sentence}>"


def _stand_in(name: str, package: str) -> _Missing:
    install = _INSTALLS.get(package, "sahool-dlq")
    sentence = f"{name} needs {package}, which is not installed: pip install '{install}'."
    return _Missing(name, (), {"sentence": sentence})
