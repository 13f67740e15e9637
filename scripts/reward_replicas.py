"""How many replicas of the reward service a rollout worker keeps busy, from the FLOPs of the published models.

FLOPs are counted while models without weights run (torch's device `meta`), so nothing is downloaded and nothing is
timed. A replica on the GPU of its worker's kind is as fast as that, times ``--scorer-rate``.

Usage: uv run python scripts/reward_replicas.py [--scorer-rate 0.07] [--passes-share 0.5] [--sustained 300]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from addiffusion.config import Config, ScorersSection
from addiffusion.configuration.files import load_config
from addiffusion.quiet_loading import quiet_loading
from scripts.full_size.published import PARTS, TAESD, Options

ROOT: Final = Path(__file__).parents[1]
_GIGA: Final = 1e9
_CLIP_TOKENS: Final = 77
_FP32_RATE: Final = 67 / 989
"""Peak of an H100 (SXM) in float32 over that in bfloat16, by its data sheet: scorers work in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A published model at its own size."""

    name: str
    model: str
    """Key of ``PARTS``."""
    pixels: int
    file: str
    """Its configuration."""
    inputs: Callable[[int], dict[str, Any]]
    """Of one pass over one row, by the side of the latent."""


def _unet(width: int, **added: Sequence[int]) -> Callable[[int], dict[str, Any]]:
    conditions = {name: torch.empty(*shape, device="meta") for name, shape in added.items()}

    def inputs(side: int) -> dict[str, Any]:
        return {
            "sample": torch.empty(1, 4, side, side),
            "timestep": torch.empty(1),
            "encoder_hidden_states": torch.empty(1, _CLIP_TOKENS, width),
            "added_cond_kwargs": conditions,
        }

    return inputs


def _sd3(side: int) -> dict[str, Any]:
    from addiffusion.backbones.sd3 import T5_TOKENS  # noqa: PLC0415 - brings diffusers' pipelines

    return {
        "hidden_states": torch.empty(1, 16, side, side),
        "timestep": torch.empty(1),
        "encoder_hidden_states": torch.empty(1, _CLIP_TOKENS + T5_TOKENS, 4096),
        "pooled_projections": torch.empty(1, 2048),
    }


def _flux(side: int) -> dict[str, Any]:
    from addiffusion.backbones.flux import T5_TOKENS  # noqa: PLC0415 - brings diffusers' pipelines

    tokens = (side // 2) ** 2
    return {
        "hidden_states": torch.empty(1, tokens, 64),
        "timestep": torch.empty(1),
        "encoder_hidden_states": torch.empty(1, T5_TOKENS, 4096),
        "pooled_projections": torch.empty(1, 768),
        "img_ids": torch.empty(tokens, 3),
        "txt_ids": torch.empty(T5_TOKENS, 3),
    }


_SDXL_INPUTS: Final = _unet(2048, text_embeds=(1, 1280), time_ids=(1, 6))
FAMILIES: Final = (
    Family(name="SD 1.5", model="sd15", pixels=512, file="stable_diffusion.yaml", inputs=_unet(768)),
    Family(name="SDXL", model="sdxl", pixels=1024, file="sdxl.yaml", inputs=_SDXL_INPUTS),
    Family(name="SD3 medium", model="sd3", pixels=1024, file="sd3.yaml", inputs=_sd3),
    Family(name="FLUX.1 schnell", model="flux", pixels=1024, file="flux.yaml", inputs=_flux),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCost:
    """What an image of a family takes on its worker and asks of the scorers, in GFLOP."""

    guided_pass: float
    decode: float
    preview: float
    """Decoding by a tiny autoencoder."""
    passes: float
    """Guided ones of an image."""
    decisions: float

    def worker(self, observation: str) -> float:
        """GFLOP of an image under ``clip``, ``clip, previews`` or ``latent``."""
        looks = {"clip": self.decode, "clip, previews": self.preview, "latent": 0.0}[observation]
        return self.passes * self.guided_pass + self.decode + self.decisions * looks

    def scored(self, observation: str) -> float:
        """Images sent to the scorers for one that is returned."""
        return 1 + (0.0 if observation == "latent" else self.decisions)

    def replicas(self, observation: str, *, scorer: float, rate: float) -> float:
        """Replicas that one worker keeps busy.

        Args:
            observation: as in ``worker``.
            scorer: GFLOP of one scored image.
            rate: FLOP/s of a replica over those of a worker.
        """
        return self.scored(observation) * scorer / (self.worker(observation) * rate)


OBSERVATIONS: Final = ("latent", "clip", "clip, previews")


def gflop(run: Callable[[], object]) -> float:
    """GFLOP of a call: a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / _GIGA


def image_cost(family: Family, passes_share: float) -> ImageCost:
    """An image of ``family`` that takes ``passes_share`` of the steps of its full run."""
    config = load_config([ROOT / "configs" / family.file], ["backbone.path=published", "prompts.source=prompts.txt"])
    parts, side = PARTS[family.model], family.pixels // 8
    network = _built(parts.get("unet") or parts["transformer"])
    autoencoder, channels = _built(parts["vae"]), parts["vae"]["latent_channels"]
    tiny = _built(TAESD | {"latent_channels": channels})
    with torch.device("meta"):
        one_pass = gflop(lambda: network(**family.inputs(side)))
        decode, preview = (
            gflop(lambda one=one: one.decode(torch.empty(1, channels, side, side))) for one in (autoencoder, tiny)
        )
    passes = max(1.0, passes_share * config.sampler.num_steps)
    return ImageCost(
        guided_pass=one_pass * (2 if config.backbone.guidance_scale > 1 else 1),
        decode=decode,
        preview=preview,
        passes=passes,
        decisions=_decisions(config, passes),
    )


def _decisions(config: Config, passes: float) -> float:
    """Of an image of so many passes: neither the warm-up's nor the finish's are any."""
    return max(1.0, passes - config.sampler.warmup_steps - config.sampler.finish_steps)


def scorer_gflop() -> dict[str, float]:
    """GFLOP of one image in each network of the reward service; texts are remembered by prompt, but ImageReward's."""
    import open_clip  # noqa: PLC0415 - seconds
    import timm  # noqa: PLC0415

    from addiffusion.scorers.image_reward import MAX_TOKENS, ImageRewardModel, ImageRewardShape  # noqa: PLC0415

    section, pixels = ScorersSection(), torch.empty(1, 3, 224, 224, device="meta")
    with quiet_loading(), torch.device("meta"):
        clip: Any = cast("Any", open_clip).create_model(section.clip.model, device="meta").eval()
        dino: Any = timm.create_model(section.dino.model).eval()
        reward: Any = ImageRewardModel(ImageRewardShape()).eval()
    text = reward.text.to_empty(device="cpu")  # it looks into its mask, which `meta` has no values for
    tokens: Tensor = torch.zeros(1, 197, reward.vision.num_features)
    ids, places = torch.zeros(1, MAX_TOKENS, dtype=torch.long), torch.arange(MAX_TOKENS)[None]
    read = gflop(lambda: text(input_ids=ids, position_ids=places, encoder_hidden_states=tokens, is_decoder=False))
    return {
        "CLIP ViT-L/14 (score, embedding, aesthetic)": gflop(lambda: clip.encode_image(pixels)),
        "DINO ViT-S/8": gflop(lambda: dino(pixels)),
        "ImageReward": gflop(lambda: reward.vision.forward_features(pixels)) + read,
    }


def page(costs: dict[str, ImageCost], scorers: dict[str, float], *, rate: float, sustained: float) -> str:
    """The tables of docs/scale.md.

    Args:
        costs: by name of the model.
        scorers: GFLOP of an image, by name.
        rate: FLOP/s of a replica over those of a worker, for the second figure of each pair.
        sustained: TFLOP/s of a worker.
    """
    scorer = sum(scorers.values())
    lines = ["| scorer | GFLOP an image |", "|---|---|"]
    lines += [f"| {name} | {value:.0f} |" for name, value in [*scorers.items(), ("all", scorer)]]
    columns = ("model", "pass", "decode", "tiny decode", "passes", "decisions", f"s at {sustained:.0f} TFLOP/s")
    lines += ["", f"| {' | '.join((*columns, *OBSERVATIONS))} |", "|---" * (len(columns) + len(OBSERVATIONS)) + "|"]
    for name, cost in costs.items():
        tera = (f"{one / 1e3:.2f}" for one in (cost.guided_pass, cost.decode, cost.preview))
        seconds = cost.worker("latent") / 1e3 / sustained
        pairs = ([cost.replicas(one, scorer=scorer, rate=at) for at in (1.0, rate)] for one in OBSERVATIONS)
        cells = (name, *tera, f"{cost.passes:.0f}", f"{cost.decisions:.0f}", f"{seconds:.2f}")
        lines.append(f"| {' | '.join((*cells, *(f'{same:.4f}; {slow:.2f}' for same, slow in pairs)))} |")
    return "\n".join(lines)


def _built(options: Options) -> Any:
    import diffusers  # noqa: PLC0415 - seconds

    with quiet_loading(), torch.device("meta"):
        return getattr(diffusers, options["_class_name"]).from_config(options).eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorer-rate", type=float, default=_FP32_RATE, help="of a replica over a worker, FLOP/s")
    parser.add_argument("--passes-share", type=float, default=0.5, help="of a full run's steps that an image takes")
    parser.add_argument("--sustained", type=float, default=300.0, help="TFLOP/s of a worker")
    given = parser.parse_args(arguments)
    costs = {f"{one.name}, {one.pixels} px": image_cost(one, given.passes_share) for one in FAMILIES}
    print(page(costs, scorer_gflop(), rate=given.scorer_rate, sustained=given.sustained))


if __name__ == "__main__":
    main()
