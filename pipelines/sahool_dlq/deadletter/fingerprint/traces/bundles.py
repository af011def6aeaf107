"""Names of JavaScript bundles, which contain a hash of the content from the build."""

import re

__all__ = ["is_bundle", "without_hash"]

_FILE = re.compile(
    r"(.*[/\\])?([^/\\?]+?)((?:\.(?:chunk|bundle|min|esm|prod))*\.[cm]?js)(?:\?.*)?$"
)
_MAY_BE_BUNDLE = re.compile(r"[0-9A-Z]|\.min\.|[a-f]{8}")
_MAY_HOLD_HASH = re.compile(r"[0-9A-Z]|^[a-f]{8,}$")
_ASSETS = re.compile(r"[/\\](?:assets|chunks|immutable|_nuxt|_astro|nodes|entry|static)[/\\]")
_HEX = re.compile(r"(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{6,}|[0-9a-f]{8,}")
_CAPITALS = re.compile(r"[A-Z0-9]{8}")
_MIXED = re.compile(r"(?=[A-Za-z0-9_-]*[0-9A-Z])(?=[A-Za-z0-9_-]*[a-z])[A-Za-z0-9_-]{8}")
_WORDS = re.compile(r"[A-Z]?[a-z]+(?:[A-Z][a-z]+)*[0-9]{0,4}")
_TURN = re.compile(r"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])")


def is_bundle(path: str) -> bool:
    """Whether the file's name contains a hash, or is of minified code."""
    if not _MAY_BE_BUNDLE.search(path.rpartition("/")[2]):
        return False
    file = _FILE.match(path)
    return file is not None and (".min" in file[3] or _stem(file) != file[2])


def without_hash(path: str) -> str:
    """`/srv/dist/main.8f3c2d1a.js` as `/srv/dist/main.js`."""
    file = _FILE.match(path)
    return f"{file[1] or ''}{_stem(file)}{file[3]}" if file else path


def _stem(file: re.Match[str]) -> str:
    stem = file[2]
    if not _MAY_HOLD_HASH.search(stem):
        return stem
    in_assets = bool(file[1] and _ASSETS.search(file[1]))
    if stem.isdigit() and (in_assets or file[3].count(".") > 1):
        return "<hash>"  # webpack numbers its chunks anew
    if stem[-9:-8] in ("-", ".") and _is_base64(stem[-8:], in_assets=in_assets):
        stem = stem[:-9]
    elif in_assets and len(stem) == 8 and _is_base64(stem, in_assets=in_assets):
        return "<hash>"
    parts = re.split(r"([.~_-])", stem)
    kept = [part for part in parts if not _is_hash(part)]
    if len(kept) == len(parts):
        return stem
    return re.sub(r"([.~_-])[.~_-]+", r"\1", "".join(kept)).strip(".~_-") or "<hash>"


def _is_base64(text: str, *, in_assets: bool) -> bool:
    """Eight characters as Rollup, Vite and esbuild write them."""
    if _CAPITALS.fullmatch(text):
        return True
    if not _MIXED.fullmatch(text):
        return False
    return (in_assets and not text[1:].islower()) or not _WORDS.fullmatch(text)


def _is_hash(text: str) -> bool:
    if len(text) < 6 or len(text) > 64:
        return False
    return bool(_HEX.fullmatch(text) or _CAPITALS.fullmatch(text)) or (
        len(text) >= 8 and text.isalnum() and len(_TURN.findall(text)) >= 3
    )
