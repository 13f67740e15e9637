"""What every trained part of the embedded world shares: one protocol and one resumable loop.

How a part is written (tokenizer, autoencoder, diffusion, clip, dino, aesthetic, preference)::

    class ClipPart:
        name = "clip"

        def train(self, context: TrainingContext) -> PartReport:
            steps, size = context.steps(6_000), context.batch_size(cpu=64, cuda=512)
            with initialised_by(context.seed, self.name):      # same initial weights whatever ran before
                model = build_clip()

            def loss(step: int) -> StepLoss:                   # pure in (weights, context.seed, step)
                batch = scene_batch(derive_seed(context.seed, self.name), step, size)
                total = contrastive(model, batch, context.device)
                return StepLoss(total=total, metrics={"loss": total})

            result = run_training(Objective(name=self.name, module=model, loss=loss), context, steps=steps)
            save_clip(model, context.out / "clip")             # `model` now holds the averaged weights
            return result.report(metrics={"recall": recall(model)})

Rules that make a killed run resume bit by bit: ``loss`` draws everything it needs from
``(context.seed, step)``; the loop also seeds torch's global stream per step, so dropout is covered; no state
outside ``module`` changes between steps. An objective with ``shards`` splits every step into that many calls of
``loss``, which run side by side on threads of their own: on a CPU that is a quarter faster than threads inside each
operation, and the result does not depend on how many cores there are.

``run_training`` puts the module on ``context.device``, goes on from ``context.work/<name>/checkpoint.pt`` when there is
one, and returns at once when it is complete. Mean metrics go to ``context.work/<name>/losses.jsonl`` and to
``context.on_progress``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from addiffusion.embedded.making.context import (
    Part,
    PartReport,
    Progress,
    TrainingBudget,
    TrainingContext,
    ignore_progress,
)
from addiffusion.embedded.making.state import LossLog, load_state, save_state
from addiffusion.errors import CheckpointError
from addiffusion.seeds import derive_seed
from addiffusion.torch_typed import fork_rng, manual_seed

__all__ = [
    "Objective",
    "Part",
    "PartReport",
    "Progress",
    "Recipe",
    "StepLoss",
    "TrainingBudget",
    "TrainingContext",
    "TrainingResult",
    "ignore_progress",
    "initialised_by",
    "run_training",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Optimiser settings of one objective: AdamW, linear warm-up, constant, linear decay."""

    lr: float = 1.0e-3
    weight_decay: float = 1.0e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 150
    decay_from: float = 0.5
    """Fraction of the run after which the learning rate falls linearly to ``lr_floor * lr``."""
    lr_floor: float = 0.02
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    """Decay of the averaged weights; 0 keeps the last weights instead."""

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of 0-based ``step`` out of ``steps``."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (1 - step / steps) / max(1e-9, 1 - self.decay_from)
        return self.lr * warmup * max(self.lr_floor, min(1.0, left))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoss:
    """The loss to minimise and what to log of it (0-d tensors or numbers)."""

    total: Tensor
    metrics: Mapping[str, Tensor | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What ``run_training`` minimises."""

    name: str
    module: nn.Module
    """Everything that is trained or saved; several networks go into one ``nn.ModuleDict``."""
    loss: Callable[[int], StepLoss]
    """Loss of a 0-based step: pure in (weights, step)."""
    recipe: Recipe = Recipe()
    shards: int = 1
    """Calls of ``loss`` per step, with arguments ``step * shards + k``; their gradients are averaged. Above 1 they run
    at the same time, so ``loss`` must not use torch's global random stream nor change the module's buffers."""
    export: Callable[[], None] | None = None
    """Called at every checkpoint while the module holds the averaged weights: writes them where they are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """The end of a loop: the module holds the averaged weights."""

    part: str
    steps: int
    seconds: float
    last: Mapping[str, float]

    def report(self, metrics: Mapping[str, float] | None = None) -> PartReport:
        """The part's report: ``metrics`` next to the last logged losses."""
        return PartReport(
            part=self.part, steps=self.steps, seconds=self.seconds, metrics={**self.last, **(metrics or {})}
        )


@contextlib.contextmanager
def initialised_by(seed: int, name: str) -> Generator[None]:
    """Within it, torch's global stream depends on ``(seed, name)`` only; the outer stream is restored after it."""
    with fork_rng():
        manual_seed(derive_seed(seed, name, "init"))
        yield


def run_training(objective: Objective, context: TrainingContext, *, steps: int) -> TrainingResult:
    """Minimises ``objective`` for ``steps`` steps in all, going on from its checkpoint when there is one.

    Raises:
        CheckpointError: the checkpoint is corrupt or belongs to another part, seed or number of steps.
    """
    began = time.monotonic()
    run = _Run(objective, context, steps)
    with fork_rng():
        for step in range(run.restore(), steps):
            run.advance(step, began)
    run.adopt_average()
    return TrainingResult(part=objective.name, steps=steps, seconds=time.monotonic() - began, last=run.log.last)


class _Run:
    """The moving state of one loop: weights, optimiser, average and open log window."""

    def __init__(self, objective: Objective, context: TrainingContext, steps: int) -> None:
        self.objective, self.context, self.steps = objective, context, steps
        objective.module.to(context.device)
        recipe = objective.recipe
        self.parameters = [p for p in objective.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.average = [p.detach().clone() for p in self.parameters]
        self.workers = ThreadPoolExecutor(objective.shards, initializer=torch.set_num_threads, initargs=(1,))
        self.checkpoint = context.folder(objective.name) / "checkpoint.pt"
        self.log = LossLog(context.folder(objective.name) / "losses.jsonl")

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on before its tensors are used."""
        recipe = json.dumps(asdict(self.objective.recipe), sort_keys=True)
        return {"part": self.objective.name, "seed": self.context.seed, "steps": self.steps, "recipe": recipe}

    def restore(self) -> int:
        """Loads the checkpoint; returns the number of steps done, 0 without one."""
        done = self._load() if self.checkpoint.exists() else 0
        self.log.keep_until(done)
        return done

    def advance(self, step: int, began: float) -> None:
        """One optimiser step, then the checkpoint and the log row when they are due."""
        manual_seed(derive_seed(self.context.seed, self.objective.name, "step", step))
        self.objective.module.train()
        for metrics in self._differentiate(step):
            self.log.add(metrics)
        self._descend(step)
        done = step + 1
        saving = done % self.context.checkpoint_every == 0 or done == self.steps
        if saving or done % self.context.log_every == 0:
            self._report(done, time.monotonic() - began)
        if saving:
            self._save(done)

    @contextlib.contextmanager
    def averaged(self) -> Generator[None]:
        """Within it the module holds the averaged weights, in evaluation mode."""
        latest = [p.detach().clone() for p in self.parameters]
        self.adopt_average()
        try:
            yield
        finally:
            _copy(latest, self.parameters)

    def adopt_average(self) -> None:
        """Puts the averaged weights into the module and switches it to evaluation."""
        if self.objective.recipe.ema_decay > 0:
            _copy(self.average, self.parameters)
        self.objective.module.eval()

    def _load(self) -> int:
        state = load_state(self.checkpoint, self.identity)
        try:
            self.objective.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            _copy(state["average"], self.average)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint {self.checkpoint} does not fit the part's network ({error}); delete it to start anew.",
                path=str(self.checkpoint),
            ) from error
        return int(state["step"])

    def _differentiate(self, step: int) -> list[Mapping[str, Tensor | float]]:
        """Leaves the mean gradient over the shards in the parameters; returns each shard's metrics."""
        shards = self.objective.shards
        calls = range(step * shards, (step + 1) * shards)
        shares = [self._share(call) for call in calls] if shards == 1 else [*self.workers.map(self._share, calls)]
        for parameter, *gradients in zip(self.parameters, *(gradients for gradients, _ in shares), strict=True):
            known = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = sum(known[1:], known[0]) / shards if known else None
        return [metrics for _, metrics in shares]

    def _share(self, call: int) -> tuple[Sequence[Tensor | None], Mapping[str, Tensor | float]]:
        outcome = self.objective.loss(call)
        gradients = torch.autograd.grad(outcome.total, self.parameters, allow_unused=True)
        return gradients, {name: torch.as_tensor(value).detach() for name, value in outcome.metrics.items()}

    def _descend(self, step: int) -> None:
        recipe = self.objective.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step, self.steps)
        nn.utils.clip_grad_norm_(self.parameters, recipe.max_grad_norm)
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType] - torch leaves its closure untyped
        # A young average must forget its random start: the decay grows to its final value.
        decay = min(recipe.ema_decay, (step + 2) / (step + 11))
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters, strict=True):
                average.lerp_(parameter, 1 - decay)

    def _report(self, done: int, seconds: float) -> None:
        metrics = self.log.write(done, self.objective.recipe.learning_rate(done - 1, self.steps))
        self.context.on_progress(
            Progress(part=self.objective.name, step=done, steps=self.steps, seconds=seconds, metrics=metrics)
        )

    def _save(self, done: int) -> None:
        if self.objective.export is not None:
            with self.averaged():
                self.objective.export()
        state = {
            "identity": self.identity,
            "step": done,
            "module": self.objective.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        save_state(self.checkpoint, state)


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for old, new in zip(target, source, strict=True):
        old.copy_(new)
