"""What an observation could know early: how well features of a step foretell the scores of the finished image.

Images of training prompts, one each, by DDIM in 20 steps with guidance drawn from 1.5 to 5. For each feature a ridge
regression, judged by the Spearman rank correlation of its answers for prompts it was not fitted on: with the final
score, and with what is left of that once the prompt, its tier and the guidance scale have said what they can.

Usage: uv run python scripts/what_foretells.py [--count 800]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.configuration.files import load_config
from addiffusion.embedded.world.quality import scene_quality
from addiffusion.observation.latent import prompt_vector
from addiffusion.prompts import load_prompts
from addiffusion.ranks import rank_correlation
from addiffusion.records import SCORE_NAMES, Prompt, ScoreRequest
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.factory import load_suite
from addiffusion.threads import torch_threads
from evaluation.tables import Table
from launch.runtime.console import Stage

_STEPS: Final = 20
_AT: Final = (2, 3, 4, 6, 8)
_SLOTS: Final = 16
_SEEN: Final = ("clip", "image_reward")
_FOLDS: Final = 8
_RIDGES: Final = (10.0, 100.0, 1e3, 1e4)
Floats = NDArray[np.float64]


def main() -> None:
    """Draw, regress, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=800, help="prompts")
    count = parser.parse_args().count
    if count < _SLOTS * _FOLDS:
        parser.error(f"--count {count} is too few to judge a regression: give {_SLOTS * _FOLDS} or more")
    steps = [f"sampler.num_steps={_STEPS}", "sampler.solver=ddim", "sampler.warmup_steps=1", "sampler.finish_steps=0"]
    config, console = load_config((), steps), Console(stderr=True)
    prompts = list(load_prompts(config.prompts, split="train", count=count, seed=5))
    with torch_threads(1), torch.inference_mode():
        rows = _drawn(config, prompts, console)
    Console().print(_table(rows))


def _drawn(config: Config, prompts: list[Prompt], console: Console) -> list[dict[str, Floats]]:
    """Features and scores of each prompt's image, by name."""
    backbone, scoring = load_backbone(config.backbone), load_suite(config.scorers)
    scales, rows = np.random.default_rng(0).uniform(1.5, 5.0, len(prompts)), []
    with Stage(console, "images", total=len(prompts)) as stage:
        for start in range(0, len(prompts), _SLOTS):
            some = prompts[start : start + _SLOTS]
            rows += _batch(config, backbone, scoring, some, scales[start : start + _SLOTS])
            stage.advance(len(some))
    return rows


def _batch(
    config: Config, backbone: Backbone, scoring: Scoring, prompts: list[Prompt], scales: Floats
) -> list[dict[str, Floats]]:
    """Rows of as many prompts as there are slots, or fewer.

    Args:
        config: says how they are drawn.
        backbone: the model.
        scoring: scores previews and results.
        prompts: one image each.
        scales: guidance scale of each.
    """
    engine = Engine(backbone, config.sampler, config.refine, slots=len(prompts), guidance_scale=float(scales.max()))
    texts = backbone.encode_prompts([prompt.text for prompt in prompts])
    for slot, (text, scale) in enumerate(zip(texts, scales.tolist(), strict=True)):
        engine.admit(slot, embedding=text, seed=prompts[slot].prompt_id, guidance_scale=scale)
    rows = [
        {"prompt": np.array([*prompt_vector(text), scale, prompt.tier])}
        for text, scale, prompt in zip(texts, scales, prompts, strict=True)
    ]
    for step in range(1, _STEPS + 1):
        engine.tick()
        deciding = engine.deciding()
        if step in _AT:
            seen = _seen(engine, backbone, scoring, prompts)
            for slot, row in enumerate(rows):
                row |= {f"{name} {step}": np.asarray(values[slot], np.float64) for name, values in seen.items()}
        engine.act(dict.fromkeys(deciding, Action.CONTINUE))
    images = engine.decode(range(len(prompts)))
    scores = _scores(scoring, images, prompts)
    for slot, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        row |= {name: scores[name][slot] for name in _SEEN}
        row["scene"] = np.array([scene_quality(images[slot : slot + 1], [prompt.text]).soft])
    return rows


def _seen(engine: Engine, backbone: Backbone, scoring: Scoring, prompts: list[Prompt]) -> Mapping[str, Any]:
    """(n, width) features by name."""
    count = len(prompts)
    maps = backbone.last_pass().attention_maps(range(count, 2 * count)).flatten(2).double()
    shares = maps / maps.sum(2, keepdim=True).clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(2)
    attention = torch.cat([entropy, maps.amax(2), shares.amax(2)], 1)
    scores = _scores(scoring, engine.preview(range(count)), prompts)
    return {
        "middle features": engine.middle_features().numpy(),
        "clean prediction": engine.z0_pred.flatten(1).numpy(),
        "attention to each word": attention.numpy(),
        "preview's CLIP score": scores["clip"],
        "preview's CLIP and preference score": np.concatenate([scores["clip"], scores["image_reward"]], 1),
    }


def _scores(scoring: Scoring, images: NDArray[np.uint8], prompts: list[Prompt]) -> dict[str, Floats]:
    """(n, 1) scores by name."""
    reply = scoring.score(ScoreRequest(images=images, prompts=tuple(prompt.text for prompt in prompts)))
    return {name: reply.values[:, [SCORE_NAMES.index(name)]].astype(np.float64) for name in _SEEN}


def _table(rows: list[dict[str, Floats]]) -> Table:
    finals = {name: _stacked(rows, name)[:, 0] for name in ("scene", *_SEEN)}
    known = _stacked(rows, "prompt")
    left = {name: final - _foretold(known, final) for name, final in finals.items()}
    table = Table(title=f"rank correlation with the final score, and beyond the prompt ({len(rows)} images)", box=None)
    for column in ("at step", "feature", *finals):
        table.add_column(column, justify="left" if column == "feature" else "right")
    for name in ["prompt", *(name for name in rows[0] if name.split()[-1].isdecimal())]:
        features = _stacked(rows, name)
        found = [(_rank(features, finals[one]), _rank(features, left[one])) for one in finals]
        feature, _, step = name.rpartition(" ") if name != "prompt" else (name, "", "-")
        table.add_row(step, feature, *(f"{whole:.2f} ({beyond:+.2f})" for whole, beyond in found))
    return table


def _stacked(rows: list[dict[str, Floats]], name: str) -> Floats:
    return np.stack([row[name] for row in rows])


def _rank(features: Floats, wanted: Floats) -> float:
    return rank_correlation(_foretold(features, wanted), wanted)


def _foretold(features: Floats, wanted: Floats) -> Floats:
    """Answers for each row by a regression on the others' folds, of the ridge that is best."""
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    answers = [_folds(scaled, wanted, ridge) for ridge in _RIDGES]
    return min(answers, key=lambda answer: float(((answer - wanted) ** 2).mean()))


def _folds(features: Floats, wanted: Floats, ridge: float) -> Floats:
    answer = np.empty_like(wanted)
    fold = np.random.default_rng(0).permutation(len(wanted)) % _FOLDS
    for one in range(_FOLDS):
        rest = fold != one
        known, mean = features[rest], wanted[rest].mean()
        weights = known.T @ np.linalg.solve(known @ known.T + ridge * np.eye(len(known)), wanted[rest] - mean)
        answer[~rest] = features[~rest] @ weights + mean
    return answer


if __name__ == "__main__":
    main()
