"""How good the finished images are, how good the autoencoder is, and how good the scorers are."""

from __future__ import annotations

import torch

from addiffusion.embedded.making.aesthetic_training import evaluate_aesthetic, render_embeddings
from addiffusion.embedded.making.autoencoder_training import reconstruction_quality
from addiffusion.embedded.making.clip_training import evaluate_clip
from addiffusion.embedded.making.dino_training import evaluate_dino
from addiffusion.embedded.making.preference_training import evaluate_preference
from addiffusion.embedded.models.aesthetic import load_aesthetic
from addiffusion.embedded.models.autoencoder import load_autoencoder
from addiffusion.embedded.models.clip import CLIP_WIDTH, load_clip
from addiffusion.embedded.models.dino import load_dino
from addiffusion.embedded.models.preference import load_preference
from addiffusion.embedded.models.tokenizer import build_tokenizer
from addiffusion.embedded.world.captions import vocabulary
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.quality import scene_quality
from addiffusion.embedded.world.scenes import TIERS
from addiffusion.records import Prompt
from addiffusion.seeds import derive_seed
from evaluation.model_card.drawing import CardRunner, Scores, Setting, tier_rows
from evaluation.model_card.plan import CardPlan

Figures = dict[str, float]


def measure_quality(runner: CardRunner) -> tuple[float, Figures]:
    """The best guidance scale by the validation prompts, and the checker's verdicts on the test prompts with it."""
    plan = runner.plan
    validation = runner.prompts(plan.curve_prompts_per_tier, "validation")
    figures: Figures = {}
    for guidance in plan.guidances:
        judged = _drawn(runner, validation, guidance, "guidance")
        figures[f"validation_soft_guidance_{guidance:g}"] = float(judged["scene_soft"].mean())
    best = max(plan.guidances, key=lambda guidance: figures[f"validation_soft_guidance_{guidance:g}"])
    test = runner.prompts(plan.prompts_per_tier)
    figures |= _by_tier(_drawn(runner, test, best, "quality"), test)
    for steps in plan.few_steps:
        judged = _drawn(runner, test, best, f"ddim {steps}", steps=steps)
        figures |= _by_tier(judged, test, prefix=f"ddim{steps}_")
    unseen = runner.prompts(plan.curve_prompts_per_tier, "compositional")
    figures |= _by_tier(_drawn(runner, unseen, best, "compositional"), unseen, prefix="compositional_")
    return best, figures


def _drawn(
    runner: CardRunner, prompts: tuple[Prompt, ...], guidance: float, what: str, steps: int | None = None
) -> Scores:
    setting = Setting(solver="ddim", steps=steps or runner.plan.full_steps, guidance=guidance)
    return runner.judge(runner.images(prompts, setting, what), prompts)


def _by_tier(judged: Scores, prompts: tuple[Prompt, ...], prefix: str = "") -> Figures:
    names = {"strict": "scene_strict", "soft": "scene_soft", "clip": "clip"}
    return {
        f"{prefix}{short}_tier{tier}": float(judged[name][tier_rows(prompts, tier)].mean())
        for tier in TIERS
        for short, name in names.items()
    }


def measure_autoencoder(plan: CardPlan) -> Figures:
    """PSNR and strict pass of reconstructions by both decoders, and the strict pass of the clean renders themselves."""
    model = load_autoencoder(plan.weights / "pipeline" / "vae")
    preview = load_autoencoder(plan.weights / "preview")
    figures: Figures = {}
    for tier in TIERS:
        batch = scene_batch(derive_seed(plan.seed, "card", "renders"), tier, plan.renders, tier=tier)
        figures[f"clean_strict_tier{tier}"] = scene_quality(batch.images, batch.captions).strict
        for name, value in reconstruction_quality(model, batch).items():
            figures[f"{name}_tier{tier}"] = value
        for name, value in reconstruction_quality(preview, batch).items():
            figures[f"preview_{name}_tier{tier}"] = value
    for name in ("clean_strict", "strict", "psnr_db", "preview_strict", "preview_psnr_db"):
        figures[name] = sum(figures[f"{name}_tier{tier}"] for tier in TIERS) / len(TIERS)
    return figures


def measure_scorers(plan: CardPlan) -> dict[str, Figures]:
    """Each scorer's own figures on scenes it was not trained on."""
    tokenizer = build_tokenizer(vocabulary())
    clip, _ = load_clip(plan.weights / "clip")
    preference = load_preference(plan.weights / "preference")
    head = load_aesthetic(plan.weights / "aesthetic", clip_width=CLIP_WIDTH)
    seed, count = derive_seed(plan.seed, "card", "scorers"), plan.renders
    spoiled = render_embeddings(clip, seed, count, torch.device("cpu"))
    preferred = evaluate_preference(preference, tokenizer, seed=seed, count=count)
    ordered = [share for name, share in preferred.items() if name.startswith("corrupted")]
    return {
        "clip": evaluate_clip(clip, tokenizer, seed=seed, count=count),
        "preference": {**preferred, "clean_above_corrupted": sum(ordered) / len(ordered)},
        "dino": evaluate_dino(load_dino(plan.weights / "dino"), seed=seed, count=count),
        "aesthetic": evaluate_aesthetic(head, spoiled),
    }
