"""The training loop every embedded part shares: exact resumption, averaged weights, honest errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from addiffusion.embedded.making.part import (
    Objective,
    Progress,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.errors import CheckpointError
from addiffusion.seeds import generator

STEPS = 6


class KilledError(Exception):
    """Stands for the death of the process."""


def die() -> None:
    raise KilledError


def train_toy(
    folder: Path,
    *,
    die_at: int | None = None,
    die: Callable[[], None] = die,
    seed: int = 3,
    export: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """A regression with dropout, so that torch's global stream matters."""

    def watch(progress: Progress) -> None:
        if progress.step == die_at:
            die()

    with initialised_by(seed, "toy"):
        module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def loss(step: int) -> StepLoss:
        x = torch.randn(16, 4)
        mse = (module(x) - x.sum(1, keepdim=True)).square().mean()
        return StepLoss(total=mse, metrics={"mse": mse, "index": float(step)})

    context = TrainingContext(
        out=folder,
        work=folder,
        seed=seed,
        device=torch.device("cpu"),
        checkpoint_every=3,
        log_every=1,
        on_progress=watch,
    )
    hook = None if export is None else lambda: export(module)
    run_training(Objective(name="toy", module=module, loss=loss, export=hook), context, steps=STEPS)
    return module


def weights(module: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in module.state_dict().values()]


def assert_same(one: nn.Module, two: nn.Module) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


@pytest.mark.parametrize("die_at", [1, 3, 4, 5])
def test_a_run_that_dies_goes_on_to_the_same_weights_and_log(tmp_path: Path, die_at: int) -> None:
    straight = train_toy(tmp_path / "straight")
    with pytest.raises(KilledError):
        train_toy(tmp_path / "killed", die_at=die_at)
    torch.randn(7)  # the outer stream must not matter
    assert_same(train_toy(tmp_path / "killed"), straight)
    logs = [(tmp_path / name / "toy" / "losses.jsonl").read_text() for name in ("straight", "killed")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == [1, 2, 3, 4, 5, 6]


def test_kill_minus_nine_then_resume_is_exact(tmp_path: Path) -> None:
    code = (
        "import os, runpy, signal, sys, torch\n"
        "from pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        "train = runpy.run_path(sys.argv[1])['train_toy']\n"
        "train(Path(sys.argv[2]), die_at=5, die=lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    command = [sys.executable, "-c", code, __file__, str(tmp_path / "killed")]
    killed = subprocess.run(command, check=False, timeout=200)
    assert killed.returncode == -9
    assert (tmp_path / "killed" / "toy" / "checkpoint.pt").exists()
    assert_same(train_toy(tmp_path / "killed"), train_toy(tmp_path / "straight"))


def test_a_complete_run_returns_at_once_with_the_averaged_weights(tmp_path: Path) -> None:
    first = train_toy(tmp_path)
    before = (tmp_path / "toy" / "checkpoint.pt").stat().st_mtime_ns
    assert_same(train_toy(tmp_path), first)
    assert (tmp_path / "toy" / "checkpoint.pt").stat().st_mtime_ns == before
    assert not first.training


def test_export_sees_averaged_weights_and_does_not_disturb_the_run(tmp_path: Path) -> None:
    seen: list[list[Tensor]] = []
    module = train_toy(tmp_path / "exported", export=lambda module: seen.append(weights(module)))
    assert len(seen) == 2
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], weights(module), strict=True))
    assert_same(module, train_toy(tmp_path / "plain"))


def test_a_corrupt_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    train_toy(tmp_path)
    (tmp_path / "toy" / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="delete it to train this part from the start"):
        train_toy(tmp_path)


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    train_toy(tmp_path)
    with pytest.raises(CheckpointError, match="seed=3 but this run asks for 4"):
        train_toy(tmp_path, seed=4)


def test_learning_rate_warms_up_holds_and_falls() -> None:
    recipe = Recipe(lr=1.0, warmup_steps=10, decay_from=0.5, lr_floor=0.02)
    rates = [recipe.learning_rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:50] == [1.0] * 41
    assert rates[75] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.02)


def train_sharded(folder: Path, *, shards: int, die_at: int | None = None) -> nn.Module:
    """The toy regression from streams of its own, as a sharded objective must draw."""

    def watch(progress: Progress) -> None:
        if progress.step == die_at:
            raise KilledError

    with initialised_by(3, "sharded"):
        module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(call: int) -> StepLoss:
        x = torch.randn(16, 4, generator=generator("sharded", call))
        mse = (module(x) - x.sum(1, keepdim=True)).square().mean()
        return StepLoss(total=mse, metrics={"mse": mse, "call": float(call)})

    context = TrainingContext(
        out=folder, work=folder, seed=3, device=torch.device("cpu"), checkpoint_every=2, log_every=1, on_progress=watch
    )
    run_training(Objective(name="sharded", module=module, loss=loss, shards=shards), context, steps=STEPS)
    return module


def test_shards_give_the_mean_gradient_of_their_calls(tmp_path: Path) -> None:
    module = train_sharded(tmp_path, shards=2)
    with initialised_by(3, "sharded"):
        expected = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    average = [p.detach().clone() for p in expected.parameters()]
    recipe = Recipe()
    optimizer = torch.optim.AdamW(expected.parameters(), betas=recipe.betas, weight_decay=recipe.weight_decay)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = recipe.learning_rate(step, STEPS)
        optimizer.zero_grad()
        for call in (2 * step, 2 * step + 1):
            x = torch.randn(16, 4, generator=generator("sharded", call))
            ((expected(x) - x.sum(1, keepdim=True)).square().mean() / 2).backward()
        nn.utils.clip_grad_norm_(expected.parameters(), recipe.max_grad_norm)
        optimizer.step()
        decay = min(recipe.ema_decay, (step + 2) / (step + 11))
        for mean, weight in zip(average, expected.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - decay)
    for mine, theirs in zip(module.parameters(), average, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_sharded_run_that_dies_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    straight = train_sharded(tmp_path / "straight", shards=2)
    with pytest.raises(KilledError):
        train_sharded(tmp_path / "killed", shards=2, die_at=5)
    assert_same(train_sharded(tmp_path / "killed", shards=2), straight)
    rows = [json.loads(line) for line in (tmp_path / "killed" / "sharded" / "losses.jsonl").read_text().splitlines()]
    assert [row["call"] for row in rows] == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]
