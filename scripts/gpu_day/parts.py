"""What is measured on a GPU, each part a function of its size that returns figures for one JSON file.

Each runs in a process of its own (`scripts/gpu_day/__main__.py`), so that one that fails, hangs or takes all memory
leaves the others as they are.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final, Literal

from torch import Tensor

from addiffusion.actions import Action
from addiffusion.assets import weights_path
from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone
from addiffusion.backbones.random_weights import RandomKind
from addiffusion.config import BackboneSection, RefineSection, SamplerSection
from addiffusion.configuration.files import load_config
from addiffusion.embedded.making.context import TrainingBudget
from addiffusion.embedded.making.training import train_embedded
from addiffusion.embedded.world.scenes import IMAGE_SIZE
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.factory import load_suite
from addiffusion.scorers.pretrained import random_suite
from addiffusion.scorers.suite import ScorerSuite
from launch.bench.client import call_for, requests
from launch.bench.collect import bench_collect
from launch.bench.engine import bench_engine, make_backbone
from launch.bench.orders import EngineOrder
from launch.bench.setup import collect_setup
from scripts.gpu_day.measuring import Part, Size

Precision = Literal["float32", "bfloat16"]
Compile = Literal["off", "default", "cuda_graphs"]
_PROMPTS: Final = ("a red circle left of a blue square", "a green star", "two yellow rings", "a blue square")
_SAMPLER: Final = SamplerSection(num_steps=20, warmup_steps=2, finish_steps=1)
_REFINE_AT, _STOP_AT = 4, 8
"""Decisions of every image: continue, once refine, then stop."""


def agreement(size: Size) -> dict[str, Any]:
    """The embedded model in float32 here and on the CPU: how far latents are apart after a refine and a stop."""
    backbones = (load_backbone(BackboneSection(device=device)) for device in ("cpu", size.device))
    there, here = (_drawn(backbone, range(len(_PROMPTS))) for backbone in backbones)
    apart = [float((one - other.cpu()).abs().max()) for one, other in zip(there, here, strict=True)]
    return {"images": len(apart), "largest_difference": max(apart), "bitwise": max(apart) == 0.0}


def determinism(size: Size) -> dict[str, Any]:
    """The same image alone, in another slot and beside others: bitwise, or how far apart; float32 and bfloat16."""
    dtypes: tuple[Precision, ...] = ("float32",) if size.tiny else ("float32", "bfloat16")
    return {"by_dtype": {dtype: _determinism(size, dtype) for dtype in dtypes}}


def _determinism(size: Size, dtype: Precision) -> dict[str, Any]:
    shape = "embedded" if size.tiny else "sd15-random"
    backbone = make_backbone(EngineOrder(backbone=shape, device=size.device, dtype=dtype))
    alone, again = (_drawn(backbone, [0])[0] for _ in range(2))
    company = _drawn(backbone, [3, 2, 1, 0])[3]
    return {
        "again": float((alone - again).abs().max()),
        "other_slot_and_company": float((alone - company).abs().max()),
        "scale": float(alone.abs().mean()),
    }


def engine(size: Size, *, backbone: RandomKind, compiled: Compile) -> dict[str, Any]:
    """`bench engine` at the shape of a model in bfloat16, with the memory it took."""
    order = EngineOrder(
        backbone="embedded" if size.tiny else backbone,
        device=size.device,
        dtype="float32" if size.tiny else "bfloat16",
        compile=compiled,
        slots=2 if size.tiny else 16,
        seconds=0.01 if size.tiny else 1.0,
        rounds=size.rounds,
        ticks=5 if size.tiny else 60,
        set_images=(1 if size.tiny else 2) if compiled == "off" and backbone == "sd15-random" else 0,  # takes long
    )
    return bench_engine(order)


def scorers(size: Size) -> dict[str, Any]:
    """Images per second of all full-size scorers together (random weights, 512 px), by the size of a pass."""
    section = load_config(overrides=[f"scorers.device={size.device}", "scorers.cache_images=0"]).scorers
    suite = load_suite(section) if size.tiny else random_suite(section)
    batches, pixels = ((2,), IMAGE_SIZE) if size.tiny else ((1, 8, 32, 64), 512)
    return {
        "images_per_s": {
            str(batch): _images_per_s(suite.with_batch_images(batch), batch, pixels, size) for batch in batches
        }
    }


def observation(size: Size) -> dict[str, Any]:
    """`bench collect` of the embedded model with each observation: what looking costs beside the network."""
    rollout = ["rollout.slots=2", "sampler.num_steps=4"] if size.tiny else ["rollout.slots=16"]
    devices = [f"backbone.device={size.device}", f"scorers.device={size.device}"]
    count = 2 if size.tiny else 48
    return {
        kind: bench_collect(
            collect_setup((), [*devices, *rollout, f"observation={{kind: {kind}, previews: []}}"], count=count)
        )
        for kind in ("clip", "latent")
    }


def denoiser(size: Size) -> dict[str, Any]:
    """The embedded denoiser trained anew on this device, below ``out``; a training that was cut goes on."""
    weights = size.out / "weights"
    if not weights.exists():
        shutil.copytree(weights_path(), weights)
    budget = TrainingBudget(max_steps=2, max_batch=4, max_pool=8) if size.tiny else TrainingBudget()
    train = partial(train_embedded, out=weights, parts=["text", "diffusion"], budget=budget, checkpoint_every=250)
    *_, report = train(device=size.device)
    return asdict(report)


def _images_per_s(suite: ScorerSuite, batch: int, pixels: int, size: Size) -> float:
    work = requests(0, batch, pixels)
    suite.score(work[0])  # whatever is slow once
    return call_for(suite.score, work, 0.01 if size.tiny else 2.0).images_per_s


def _drawn(backbone: Backbone, seeds: Sequence[int]) -> list[Tensor]:
    """Clean predictions of one image per seed, all at once, each with a refine before its stop."""
    engine = Engine(backbone, _SAMPLER, RefineSection(), slots=len(_PROMPTS), guidance_scale=2.0)
    embeddings = backbone.encode_prompts(list(_PROMPTS))
    for slot, seed in enumerate(seeds):
        engine.admit(slot, embedding=embeddings[seed], seed=seed)
    decisions = Counter[int]()
    while engine.busy:
        engine.tick()
        deciding = engine.deciding()
        decisions.update(deciding)
        engine.act({slot: _scripted(decisions[slot]) for slot in deciding})
    return list(engine.z0_pred[: len(seeds)].clone())


def _scripted(decision: int) -> Action:
    if decision >= _STOP_AT:
        return Action.STOP
    return Action.REFINE if decision == _REFINE_AT else Action.CONTINUE


_SHAPES: Final[Mapping[str, RandomKind]] = {"sd15": "sd15-random", "sdxl": "sdxl-random"}
_COMPILED: Final[Mapping[str, Compile]] = {"eager": "off", "compile": "default", "graphs": "cuda_graphs"}

PARTS: Final[Mapping[str, tuple[Part, int]]] = {
    "agreement": (agreement, 60),
    "determinism": (determinism, 60),
    **{
        f"engine_{shape}_{how}": (partial(engine, backbone=backbone, compiled=compiled), 60 if how == "eager" else 100)
        for how, compiled in _COMPILED.items()
        for shape, backbone in _SHAPES.items()
    },
    "scorers": (scorers, 60),
    "observation": (observation, 60),
    "denoiser": (denoiser, 540),
}
"""Each part with the most seconds it may take, in the order in which they run."""
