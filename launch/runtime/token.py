"""Ray's token: whoever has it may run code on the cluster, whoever has not is refused.

Imports no Ray, which reads ``RAY_AUTH_MODE`` when it is imported.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from addiffusion.errors import ClusterError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Environment variables of Ray's."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_TOKEN_BYTES: Final = 32

TokenSource = Literal["off", "environment", "file", "missing"]


def auth_is_off(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has switched token authentication off."""
    return environment.get(MODE, "token").lower() != "token"


def token_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the token lies."""
    given = environment.get(TOKEN_PATH)
    return Path(given).expanduser() if given else Path.home() / ".ray" / "auth_token"


def token_source(environment: Mapping[str, str] = os.environ) -> TokenSource:
    """Where Ray would take its token from."""
    if auth_is_off(environment):
        return "off"
    if environment.get(TOKEN):
        return "environment"
    return "file" if token_file(environment).is_file() else "missing"


def secure(bind: str) -> None:
    """Before Ray is started here: a token that only this user can read, which ``ray.init`` then demands.

    Raises:
        ClusterError: ``bind`` is not loopback and authentication is switched off, or the token can't be kept.
    """
    if auth_is_off():
        refuse_open(bind)
        return
    ensure_token()  # ``ray.init`` switches token mode on; set here, its modules that are loaded would not see it


def refuse_open(bind: str) -> None:
    """Without a token Ray may listen to this machine only.

    Raises:
        ClusterError: ``bind`` is another address than loopback.
    """
    if not is_loopback(bind):
        raise ClusterError(
            f"cluster.bind={bind} would let anybody who reaches that address run code here, because {MODE}="
            f"{os.environ.get(MODE)} switches the token off: unset {MODE}, or leave cluster.bind at 127.0.0.1.",
            bind=bind,
        )


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches ``address``."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def ensure_token() -> Path | None:
    """The token's file, made if there is none and closed to others; None where the environment holds the token.

    Raises:
        ClusterError: the file can't be written.
    """
    if os.environ.get(TOKEN):
        return None
    file = token_file()
    try:
        if not file.is_file():
            _write_token(file)
        if file.stat().st_uid == os.getuid() and readable_by_others(file):
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        raise ClusterError(
            f"Ray's token can't be kept in {file} ({error.strerror}): make its folder writable, or set {TOKEN}.",
            path=str(file),
        ) from error
    return file


def readable_by_others(file: Path) -> bool:
    """Whether another user of this machine could take the token."""
    return bool(file.stat().st_mode & _OTHERS)


def _write_token(file: Path) -> None:
    """Complete or not at all: another process may be about to read it, or to make one itself."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_hex(_TOKEN_BYTES))
        _publish(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _publish(partial: Path, file: Path) -> None:
    try:
        os.link(partial, file)
    except FileExistsError:  # somebody was faster: theirs is the token
        return
    except OSError:  # there are no hard links there
        if not file.exists():
            partial.replace(file)
