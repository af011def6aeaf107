"""Contexts of the `nats` command: files with connection settings, which its users already have.

They are `nats/context/<name>.json` in XDG_CONFIG_HOME (default ~/.config); `nats/context.txt` names
the selected one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sahool_dlq.errors import SettingsError

FIELDS = {
    "url": "servers",
    "creds": "user_credentials",
    **{
        name: name
        for name in (
            *("nkey", "user_jwt", "user_seed", "user", "password", "token", "ca", "cert", "key"),
            *("tls_first", "inbox_prefix", "jetstream_domain", "jetstream_api_prefix"),
        )
    },
}
"""A context's keys, and the fields of `Access` that they fill."""
PATHS = ("creds", "nkey", "ca", "cert", "key")
_UNSUPPORTED = {
    "socks_proxy": "nats-py does not support SOCKS proxies: remove it, or give --server",
    "nsc": "nsc is not supported: create a file with `nsc generate creds` and give it as creds",
    "windows_cert_store": "the Windows certificate store is not supported: give files as cert and"
    " key",
}


def selected_context(environ: Mapping[str, str]) -> str | None:
    """The name of the context selected by `nats context select`."""
    try:
        return (_folder(environ) / "context.txt").read_text().strip() or None
    except (OSError, ValueError):
        return None


def read_context(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of a context, by the keys of FIELDS; empty values are left out.

    Raises SettingsError if there is no such context, if it is damaged, or if it needs something
    that we do not support. The error contains no part of it.
    """
    folder = _folder(environ) / "context"
    if not name or "/" in name or "\\" in name or ".." in name:
        raise SettingsError(
            f"This is not a valid name of a NATS context: {name!r}: see `nats context ls`."
        )
    file = folder / f"{name}.json"
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(each.stem for each in folder.glob("*.json"))) or "none"
        raise SettingsError(
            f"There is no NATS context {name} ({file}): there are {known}; add it with"
            f" `nats context add {name}`."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"The NATS context {file} cannot be read ({error.strerror}): let this user read it."
        ) from None
    except (ValueError, RecursionError):
        raise SettingsError(
            f"The NATS context {file} is not valid JSON: create it again."
        ) from None
    if not isinstance(said, dict):
        raise SettingsError(f"The NATS context {file} is not a JSON object: create it again.")
    for key, remedy in _UNSUPPORTED.items():
        if said.get(key):
            raise SettingsError(f"The NATS context {file} has {key}, and {remedy}.")
    found = {key: said[key] for key in FIELDS if said.get(key)}
    for key, value in found.items():
        wanted = bool if key == "tls_first" else str
        if not isinstance(value, wanted):
            kind = "true or false" if wanted is bool else "a text"
            raise SettingsError(f"The NATS context {file} has a {key} that is not {kind}.")
    return {
        key: _expanded(value, environ) if key in PATHS else value for key, value in found.items()
    }


def _expanded(path: str, environ: Mapping[str, str]) -> str:
    return str(_home(environ) / path[2:]) if path.startswith("~/") else path


def _folder(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else _home(environ) / ".config") / "nats"


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:
        return Path("/")  # a container's user may have none
