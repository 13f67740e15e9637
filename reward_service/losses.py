"""Count of devices lost in a row: it outlives the processes, so that restarts come to an end."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias, cast

from addiffusion.errors import OutputError, RolloutError
from addiffusion.files import write_text

MAX_LOSSES: Final = 3
"""Processes of one replica that may lose their device in a row without a pass that scored."""
End: TypeAlias = Callable[[str], None]
"""Ends the process with this reason as its last words."""


class Losses:
    """The losses of one replica since it last scored.

    They are kept in a small file of its machine: of another machine's device they say nothing.
    """

    def __init__(self, replica: str, folder: Path | None = None) -> None:
        """Read the file of ``replica``, a name that its next process has, too."""
        self._path = (folder or Path(tempfile.gettempdir())) / f"addiffusion-reward-{replica}.json"
        self.count, self.reason = _read(self._path)

    def add(self, reason: str) -> None:
        """Count a lost device, before the process ends. A full disk can't keep it from ending."""
        self.count, self.reason = self.count + 1, reason
        try:
            write_text(self._path, json.dumps({"count": self.count, "reason": reason}))
        except OutputError:
            return

    def clear(self) -> None:
        """Forget the count: a pass has scored, so the device works."""
        if self.count:
            self.count = 0
            self._path.unlink(missing_ok=True)

    def check(self, title: str) -> None:
        """Refuse to start once more.

        Raises:
            RolloutError: too many processes have lost their device in a row.
        """
        if self.count >= MAX_LOSSES:
            raise RolloutError(
                f"The reward service {title} lost its device {self.count} times in a row without scoring once "
                f"({self.reason}): find out what ails the device or which model breaks it, and resume the run.",
                count=self.count,
                reason=self.reason,
            )


def end_if_device_lost(error: BaseException, losses: Losses | None, *, what: str, end: End | None = None) -> None:
    """End the process if ``error`` says that its device is lost to it.

    Args:
        error: what a model raised.
        losses: where the loss is counted.
        what: the rest of a sentence that begins with "The reward service".
        end: None ends this process for good.
    """
    from addiffusion.poisoned import end_process, poison_of  # noqa: PLC0415 - torch, which clients do without

    reason = poison_of(error)
    if reason is None:
        return
    if losses is not None:
        losses.add(reason)
    (end or end_process)(f"The reward service {what}: its device is lost to it ({reason}).")


def _read(path: Path) -> tuple[int, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return int(content["count"]), cast("str", content["reason"])
    except (OSError, ValueError, LookupError, TypeError):  # none, or one that a full disk has cut
        return 0, ""
