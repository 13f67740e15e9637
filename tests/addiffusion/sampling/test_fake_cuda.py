"""The engine of every family on a device that exists only in name: nothing mixes devices, and little is read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone
from addiffusion.backbones.loading import load_pipeline
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.observation.latent import movement
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.build import table_on
from addiffusion.sampling.solver_tables.schedules import Schedules
from addiffusion.sampling.solver_tables.table import SolverTable
from tests.addiffusion.backbones.family_runs import section
from tests.fake_cuda import CUDA, Reads, fake_cuda

CLASSES = {
    "sd15": ("stable_diffusion", "StableDiffusionBackbone"),
    "sdxl": ("sdxl", "SdxlBackbone"),
    "sd3": ("sd3", "Sd3Backbone"),
    "flux": ("flux", "FluxBackbone"),
}
SAMPLER = SamplerSection(solver="pipeline", num_steps=4, warmup_steps=1, finish_steps=2)


@contextmanager
def on_the_device(family: str, folder: Path) -> Iterator[tuple[Backbone, SolverTable, Reads]]:
    """The family's backbone with bfloat16 weights on the device; inside ``fake_cuda`` only."""
    module, name = CLASSES[family]
    kind = getattr(import_module(f"addiffusion.backbones.{module}"), name)
    asked = section(family, folder, device="cuda", dtype="bfloat16")
    pipeline = load_pipeline(asked.model_copy(update={"device": "cpu"}), kind.pipeline_class, **kind.load_options)
    table = table_on(pipeline.scheduler, SAMPLER, RefineSection())  # made of values, on the CPU
    uncopied = property(
        lambda backbone: backbone._pipeline.scheduler
    )  # its tensors hold values, which have no copy here
    with patch.object(kind, "scheduler", uncopied), fake_cuda() as reads:
        yield kind(pipeline, asked), table, reads


@pytest.mark.parametrize("family", CLASSES)
def test_a_family_never_mixes_devices_and_reads_back_once_a_tick(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{family}_like")
    with on_the_device(family, folder) as (backbone, table, reads):
        scale = 1.0 if family == "flux" else 4.0
        refine = RefineSection()
        schedules = Schedules(backbone, SAMPLER, refine, table=table)
        engine = Engine(backbone, SAMPLER, refine, slots=3, guidance_scale=scale, schedules=schedules)
        for slot, embedding in enumerate(backbone.encode_prompts(["a red cat", "blue dog", "fog"])):
            engine.admit(slot, embedding=embedding, seed=slot)
        reads.clear()
        ticks = _to_the_end(engine)
        assert reads == {FINITE: ticks, WORDS: 1}

        assert (engine.z0_pred.device, engine.z0_pred.dtype) == (CUDA, torch.float32)
        room = torch.empty(len(engine.z0_pred), 6, engine.z0_pred[0].numel(), device=CUDA)
        assert movement(engine.z0_pred, engine.z0_pred.clone(), room).device == CUDA
        assert engine.middle_features().device == CUDA
        assert engine.decode().dtype == np.uint8


FINITE = "addiffusion/sampling/latents.py", "_finite"
"""One number a tick, so that an image that fails is noticed at once and costs no further pass."""
WORDS = "addiffusion/sampling/refining.py", "words"
"""Maps of the slots that start to refine, in one piece: their masks are made on the CPU."""


def _to_the_end(engine: Engine) -> int:
    """Ticks until every image is done: all slots continue once, refine once, and stop."""
    script, ticks = iter((Action.CONTINUE, Action.REFINE)), 0
    while engine.busy:
        engine.tick()
        ticks += 1
        deciding = engine.deciding()
        if deciding:
            engine.act(dict.fromkeys(deciding, next(script, Action.STOP)))
    return ticks


def test_mixed_devices_raise() -> None:
    """Else the tests above could not fail."""
    with fake_cuda() as reads:
        on_device = torch.zeros(2, device=CUDA)
        with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
            on_device + torch.zeros(2)
        with pytest.raises(TypeError, match=r"cpu\(\) first"):
            on_device.numpy()
        assert not reads
        assert float(on_device.sum()) == 1.0
        assert sum(reads.values()) == 1
