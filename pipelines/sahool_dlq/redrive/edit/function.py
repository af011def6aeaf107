"""An edit by a Python function, called once with each event of a plan.

Its results are stored with the batch as a JSON Patch and headers. So a batch that is continued
elsewhere needs no function, and publishes what the preview showed.
"""

import copy
import importlib
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonpatch

from sahool_dlq.deadletter.body import text_of
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.edit.patch import Edit, checked_headers, storable
from sahool_dlq.redrive.origin import Event, RefusedError

__all__ = ["Function", "load_function", "result_of"]

Function = Callable[[Any, dict[str, str | list[str]]], Any]
"""Called with the body (parsed JSON, else bytes) and the headers. It changes both in place, or
returns the new body."""


def load_function(target: str, folder: Path) -> Function:
    """The function `module:name`, from the code in `folder` or from what is installed.

    Raises RedriveError if it cannot be loaded.
    """
    module, _, name = target.partition(":")
    sys.path.insert(0, str(folder))
    try:
        found = getattr(importlib.import_module(module), name) if name else None
    except Exception as error:
        raise RedriveError(f"The edit {target} cannot be loaded: {error!r}.") from error
    finally:
        sys.path.remove(str(folder))
    if not callable(found):
        raise RedriveError(f"The edit {target} is not a function: write module:function.")
    return found  # type: ignore[no-any-return]


def result_of(function: Function, event: Event) -> Edit:
    """The changes that the function makes in an event.

    Raises RefusedError if it raises, or returns what cannot be sent or stored.
    """
    before = _body(event.body)
    headers = copy.deepcopy(event.headers)
    try:
        given = copy.deepcopy(before)
        returned = function(given, headers)
        after = given if returned is None else returned
    except Exception as error:  # noqa: BLE001 (whatever the user's code raises)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        raise RefusedError(f"the edit raised {error!r} at {where}") from None
    return Edit(_operations(before, after), _header_changes(event.headers, headers))


def _body(body: bytes) -> Any:
    try:
        return json.loads(text_of(body)[0])
    except (ValueError, RecursionError):
        return body


def _operations(before: Any, after: Any) -> list[dict[str, Any]] | None:
    if isinstance(before, bytes):
        if after != before:
            raise RefusedError("it cannot be edited, because it is not JSON")
        return None
    try:
        operations = json.loads(json.dumps(jsonpatch.make_patch(before, after).patch))
    except (TypeError, ValueError, RecursionError) as error:
        raise RefusedError(f"the edit returned what is not JSON: {error}") from None
    if unstorable := storable(json.dumps(operations)):
        raise RefusedError(f"the edit returned {unstorable}, which PostgreSQL cannot store")
    return operations or None


def _header_changes(before: Any, after: Any) -> Any:
    changes = {name: held for name, held in after.items() if before.get(name) != held}
    changes |= dict.fromkeys(name for name in before if name not in after)
    if not changes:
        return None
    try:
        return checked_headers(changes)
    except RedriveError as error:
        raise RefusedError(f"the edit returned wrong headers: {error}") from None
