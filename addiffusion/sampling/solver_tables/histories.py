"""Tensors that each kind of diffusers scheduler remembers of earlier passes.

``order`` counts what is known: 0 at the start and after a refine. Entries are the remembered tensors in this module's
order; where a solver remembers clean predictions, the last pass's comes first.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class History(Protocol):
    """Remembered tensors of one kind of scheduler: put in before a step, taken out after it."""

    count: int
    """Remembered tensors."""
    clean_first: bool
    """Whether entry 0 is the clean prediction of the last pass."""

    def load(self, scheduler: Any, index: int, order: int, entries: list[Tensor]) -> None:
        """Set a scheduler to the state before step ``index`` with ``order`` known entries.

        Args:
            scheduler: of diffusers, with its schedule laid out; changed.
            index: schedule point.
            order: entries that are known.
            entries: ``count`` remembered tensors of one shape.
        """
        ...

    def read(self, scheduler: Any) -> list[Tensor | None]:
        """The ``count`` entries after a step; None for those not known yet."""
        ...

    def following(self, index: int, order: int) -> int:
        """``order`` after the step at ``index``."""
        ...


class NoHistory:
    """DDIM, Euler, flow-match Euler, Euler-ancestral, LCM."""

    count = 0
    clean_first = False

    def load(self, scheduler: Any, index: int, order: int, entries: list[Tensor]) -> None:
        """No entries."""

    def read(self, scheduler: Any) -> list[Tensor | None]:  # noqa: ARG002 - the protocol's signature
        """No entries."""
        return []

    def following(self, index: int, order: int) -> int:  # noqa: ARG002 - the protocol's signature
        """Always 0."""
        return 0


class DpmHistory:
    """DPM-Solver++ (arXiv:2211.01095): clean predictions of the last passes."""

    def __init__(self, solver_order: int) -> None:
        self._solver_order = solver_order
        self.count = solver_order - 1
        self.clean_first = self.count > 0

    def load(self, scheduler: Any, index: int, order: int, entries: list[Tensor]) -> None:  # noqa: ARG002
        """``model_outputs`` holds the latest last."""
        known: list[Tensor | None] = [*entries[:order]]
        scheduler.model_outputs = ([None] * self._solver_order + known[::-1])[-self._solver_order :]
        scheduler.lower_order_nums = order

    def read(self, scheduler: Any) -> list[Tensor | None]:
        """The latest first."""
        return scheduler.model_outputs[::-1][: self.count]

    def following(self, index: int, order: int) -> int:  # noqa: ARG002 - the protocol's signature
        """One more, up to what the solver uses."""
        return min(order + 1, self.count)


class UniPcHistory:
    """UniPC (arXiv:2302.04867): clean predictions of the last passes, and the sample before the last predictor."""

    clean_first = True

    def __init__(self, solver_order: int, *, lower_order_final: bool) -> None:
        self._solver_order = solver_order
        self._lower_order_final = lower_order_final
        self.count = solver_order + 1

    def load(self, scheduler: Any, index: int, order: int, entries: list[Tensor]) -> None:
        """The corrector runs at the order of the step before, which is worked out anew here."""
        size = self._solver_order
        *outputs, last_sample = entries
        known: list[Tensor | None] = [*outputs[:order]]
        scheduler.model_outputs = ([None] * size + known[::-1])[-size:]
        scheduler.timestep_list = [None] * size
        scheduler.last_sample = last_sample if order else None
        scheduler.lower_order_nums = order
        left = scheduler.num_inference_steps - index + 1 if self._lower_order_final else size
        scheduler.this_order = min(size, left, max(order, 1))

    def read(self, scheduler: Any) -> list[Tensor | None]:
        """The latest first, then the sample."""
        return [*scheduler.model_outputs[::-1], scheduler.last_sample]

    def following(self, index: int, order: int) -> int:  # noqa: ARG002 - the protocol's signature
        """One more, up to the solver's order."""
        return min(order + 1, self._solver_order)


class PndmHistory:
    """PNDM without Runge-Kutta steps (arXiv:2202.09778): raw outputs of the last passes and the first sample.

    ``order`` is the scheduler's own counter up to 4: at 1 the second point is done once more, which is why 50 steps
    are 51 passes. A slot that arrives without history anywhere else goes on with the two-step formula at once.
    """

    count = 4
    clean_first = False
    _outputs = 3
    _last_order = 4

    def load(self, scheduler: Any, index: int, order: int, entries: list[Tensor]) -> None:  # noqa: ARG002
        """``ets`` holds the latest last."""
        *outputs, first_sample = entries
        known = order if order < 2 else order - 1
        scheduler.counter = order
        scheduler.ets = outputs[:known][::-1]
        scheduler.cur_sample = first_sample if order == 1 else None

    def read(self, scheduler: Any) -> list[Tensor | None]:
        """The latest first, then the sample."""
        latest: list[Tensor | None] = [*scheduler.ets[::-1][: self._outputs]]
        return [*latest, *[None] * (self._outputs - len(latest)), scheduler.cur_sample]

    def following(self, index: int, order: int) -> int:
        """0, 1, 2, 3, 4, 4, ... from the first point; 0, 2, 3, ... from any other."""
        if order == 0:
            return 1 if index == 0 else 2
        return min(order + 1, self._last_order)
