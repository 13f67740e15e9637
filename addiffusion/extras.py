"""Libraries that come with an extra: where one is missing, a sentence says which extra brings it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from addiffusion.errors import MissingExtraError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_PROJECT = "addiffusion"


@contextmanager
def named_extras() -> Generator[None]:
    """Turn an import that fails for want of an extra into one sentence.

    Raises:
        MissingExtraError: a library that an extra of this project would have brought is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = extra_of(module)
        if extra is None:
            raise
        raise MissingExtraError(
            f"{module} is not installed; it comes with the extra {extra}: `pip install '{_PROJECT}[{extra}]'`.",
            module=module,
            extra=extra,
        ) from error


def look_for(module: str) -> None:
    """Miss a library before seconds of other imports, and without importing it.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def extra_of(module: str) -> str | None:
    """The smallest extra that installs the top-level ``module``; None where none does, or where it comes without one.

    Distributions are named after their modules, up to an ending such as that of ``open_clip_torch``.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - help comes without it

    written = metadata(_PROJECT)
    required = [Requirement(text) for text in written.get_all("Requires-Dist") or ()]
    named = [one for one in required if _fits(one, module)]
    if any(_brings(one, "") for one in named):
        return None
    extras = {
        extra: sum(_brings(one, extra) for one in required)
        for extra in written.get_all("Provides-Extra") or ()
        if any(_brings(one, extra) for one in named)
    }
    return min(extras, key=lambda extra: extras[extra], default=None)


def _fits(required: Requirement, module: str) -> bool:
    name = required.name.lower().replace("-", "_")
    return name == module.lower() or name.startswith(f"{module.lower()}_")


def _brings(required: Requirement, extra: str) -> bool:
    return required.marker is None or required.marker.evaluate({"extra": extra})
