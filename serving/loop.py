"""The engine loop: one thread, one batch, every request. A tick is pick, pass, update, outcomes."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable

import torch

from addiffusion.errors import AdDiffusionError
from addiffusion.metrics import Meters, NoMeters
from addiffusion.poisoned import poison_of
from serving.errors import ImageError, RequestError, UnavailableError
from serving.limits import Limits
from serving.messages import Cancel, Close, Message, Refused, Steer, Submit
from serving.model import ServedModel
from serving.shared_batch import SharedBatch

_log = logging.getLogger(__name__)
_NO_METERS = NoMeters()
_NO_LIMITS = Limits()


class EngineLoop:
    """Draws the images of all requests in one thread of its own.

    It is told by messages and tells by calls, so that nothing of it is shared with other threads. Without work it waits
    for its next message. After an error that is not of one image alone the engine is made anew, and the images under
    way begin again, once; after one that says that the device is lost, every request is refused.
    """

    def __init__(self, model: ServedModel, *, limits: Limits = _NO_LIMITS, meters: Meters = _NO_METERS) -> None:
        """A loop that has not begun.

        Args:
            model: what draws.
            limits: what may wait.
            meters: carries the metrics.

        Raises:
            ConfigError: the model can't be sampled as configured.
        """
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._shared = SharedBatch(model, limits=limits, meters=meters, clock=time.monotonic)
        self._thread = threading.Thread(target=self._run, name="engine loop", daemon=True)
        self._refusal: RequestError | None = None
        self._ends_at_s = math.inf
        self._at_work_since_s = math.inf

    @property
    def stalled_s(self) -> float:
        """Seconds that the present tick has taken so far; 0 between ticks."""
        return max(0.0, time.monotonic() - self._at_work_since_s)

    @property
    def refusal(self) -> RequestError | None:
        """Why nothing can be drawn any more; None while it can."""
        return self._refusal

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def send(self, message: Message) -> None:
        """Give it a message, from any thread."""
        self._messages.put(message)

    def close(self, *, within_s: float) -> bool:
        """Finish what is under way and end; what is not done in time is answered by an error.

        Returns:
            Whether it has ended.
        """
        self.send(Close(within_s=within_s))
        if self._thread.ident is not None:
            self._thread.join(within_s + 10)
        return not self._thread.is_alive()

    # ---------------------------------------------------------------- its own thread

    def _run(self) -> None:
        shared = self._shared
        while shared.busy or self._ends_at_s == math.inf:
            self._take_messages()
            if time.monotonic() > self._ends_at_s:
                shared.fail_all(UnavailableError("This server is shutting down.", retry_after_s=5))
            elif shared.busy:
                self._guarded(self._tick)

    def _tick(self) -> None:
        self._shared.pick()
        self._shared.network_pass()
        self._shared.update()
        self._shared.outcomes()

    def _take_messages(self) -> None:
        if not self._shared.busy:
            self._guarded(self._take, self._messages.get())
        while True:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                return
            self._guarded(self._take, message)

    def _take(self, message: Message) -> None:
        match message:
            case Submit() if self._refusal is not None:
                message.tell(Refused(request_id=message.order.request_id, error=self._refusal))
            case Submit():
                self._shared.submit(message)
            case Cancel():
                self._shared.cancel(message)
            case Steer():
                self._shared.steer(message)
            case Close():
                self._refusal = UnavailableError("This server is shutting down.", retry_after_s=5)
                self._ends_at_s = time.monotonic() + message.within_s

    def _guarded(self, work: Callable[..., None], *message: Message) -> None:
        self._at_work_since_s = time.monotonic()
        try:
            work(*message)
        except Exception as error:  # the border of a thread: whoever waits for an answer would wait forever
            _log.exception("the engine loop has met an error; the images under way begin again")
            for one in message:
                if isinstance(one, Submit):
                    one.tell(Refused(request_id=one.order.request_id, error=ImageError(_reason(error))))
            self._recover(error)
        self._shared.record_load()
        self._at_work_since_s = math.inf

    def _recover(self, error: Exception) -> None:
        poison = poison_of(error)
        if poison is not None:
            lost = f"This server has lost its device ({poison}); it has to be started again."
            self._lose(UnavailableError(lost, retry_after_s=30))
            return
        short = isinstance(error, torch.OutOfMemoryError)
        slots = max(1, self._shared.slots // 2) if short else self._shared.slots
        try:
            self._shared.begin_again(_reason(error), slots=slots)
        except Exception:
            _log.exception("the engine can't be made anew")
            self._lose(UnavailableError(f"The engine has failed: {_reason(error)}"))

    def _lose(self, refusal: RequestError) -> None:
        self._refusal = refusal
        self._shared.fail_all(refusal)


def _reason(error: Exception) -> str:
    said = error.message if isinstance(error, AdDiffusionError) else str(error).split("\n", maxsplit=1)[0]
    return said or type(error).__name__
