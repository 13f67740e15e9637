"""A cluster that can't be joined is recognised before Ray tries for minutes, and described in one sentence."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Final

from addiffusion.errors import ClusterError
from launch.runtime.token import MODE, TOKEN, token_file, token_source

CONNECT_S: Final = 10.0
"""A head that has not taken a connection by then is not there."""


def refuse_silence(address: str) -> None:
    """Look whether anything listens at ``address``, or, for ``auto``, where Ray would look.

    Raises:
        ClusterError: no cluster is known, or nothing takes a connection.
    """
    from ray._private.services import canonicalize_bootstrap_address  # noqa: PLC0415 - only after its environment is set

    if "://" in address:  # Ray's client, which has a deadline of its own
        return
    try:
        found = canonicalize_bootstrap_address(address) or address
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:  # what Ray raises where it finds none is an OSError, too
        raise unreachable(address, str(error)) from error


def unreachable(address: str, reason: str) -> ClusterError:
    """Nothing answers there."""
    return ClusterError(
        f"no Ray cluster can be joined at {address} ({' '.join(reason.split())}): check cluster.address, and that Ray "
        "runs on the head (`ray status` there).",
        address=address,
    )


def refused_token(address: str) -> ClusterError:
    """A cluster answers, but not to this process's token."""
    here = {
        "off": f"{MODE}={os.environ.get(MODE)} switches it off",
        "environment": f"{TOKEN} holds it",
        "file": f"it lies in {token_file()}",
        "missing": f"there is none in {token_file()}",
    }[token_source()]
    return ClusterError(
        f"the cluster at {address} wants another token than this process has ({here}): copy ~/.ray/auth_token of its "
        "head here with mode 0600, or set RAY_AUTH_TOKEN_PATH.",
        address=address,
    )


def told(failure: BaseException) -> str:
    """All that ``failure`` and the errors behind it say; Ray hides the reason behind a general sentence."""
    return " ".join(" ".join(map(str, _behind(failure))).split())


def _behind(failure: BaseException | None) -> Iterator[BaseException]:
    while failure is not None:
        yield failure
        failure = failure.__cause__ or failure.__context__
