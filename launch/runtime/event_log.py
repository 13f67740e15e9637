"""TensorBoard's event files, written by whoever calls: a failure of the disk is the caller's, and nothing waits."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from addiffusion.files import make_folder, writing


class EventLog:
    """Scalars by step, in a file of its own in ``folder``, made with the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: RecordWriter | None = None
        self._purge_step: int | None = None

    def rewind(self, step: int) -> None:
        """Have TensorBoard forget what earlier files hold of steps after ``step``."""
        self._purge_step = step + 1

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write one value per tag, and hand them to the disk.

        Raises:
            OutputError: the disk is full, or can't be written.
        """
        make_folder(self._folder)
        with writing(self._folder):
            writer = self._opened()
            now = time.time()
            for tag, value in values.items():
                writer.write(_record(wall_time=now, step=step, summary=scalar(tag, value)))
            writer.flush()

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost, as ``add`` has said."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()

    def _opened(self) -> RecordWriter:
        if self._writer is None:
            # Second, host and process alone would be those of the file before, after a quick resume.
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{secrets.token_hex(4)}"
            self._writer = RecordWriter(str(self._folder / name))
            self._writer.write(_record(wall_time=time.time(), file_version="brain.Event:2"))
            if self._purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                self._writer.write(_record(wall_time=time.time(), step=self._purge_step, session_log=start))
        return self._writer


def _record(**fields: Any) -> bytes:
    return Event(**fields).SerializeToString()
