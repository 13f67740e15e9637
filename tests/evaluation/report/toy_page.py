"""A page's data made up whole: a training, a comparison, film strips with refine masks, best and worst cases."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from addiffusion.actions import Action
from evaluation.comparison.films import Film
from evaluation.report.report_data import Case, ReportData, Spent

_PROMPTS = ("a red circle", "a red circle left of a blue square", "two stars above a <b>yellow</b> square")
_COLORS = ("#c8321e", "#1e64c8", "#28a03c", "#e0b020")
_KINDS = {"agent": "agent", "full": "control", "random-stop": "control", "mean-stop": "control", "ddim-13": "static",
          "dpm++2m-13": "static", "ddim-20": "static", "oracle-reward": "oracle", "best-of-8": "search"}  # fmt: skip
_NFE = {"agent": 12.6, "full": 50, "random-stop": 12.6, "mean-stop": 12.6, "ddim-13": 13, "dpm++2m-13": 13,
        "ddim-20": 20, "oracle-reward": 9.8, "best-of-8": 160}  # fmt: skip
_SCENE = {"agent": 0.885, "full": 0.890, "random-stop": 0.861, "mean-stop": 0.868, "ddim-13": 0.858,
          "dpm++2m-13": 0.880, "ddim-20": 0.870, "oracle-reward": 0.912, "best-of-8": 0.905}  # fmt: skip


def picture(number: int, sharpness: float = 1.0) -> np.ndarray:
    """A scene of two shapes under some noise."""
    draws = np.random.default_rng(number)
    image = Image.new("RGB", (64, 64), "#ded8cc")
    pen = ImageDraw.Draw(image)
    pen.ellipse((8, 14, 32, 38), fill=_COLORS[number % 4])
    pen.rectangle((36, 28, 56, 50), fill=_COLORS[(number + 1) % 4])
    noise = draws.normal(0, 70 * (1 - sharpness), (64, 64, 3))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def toy_film(number: int) -> Film:
    """Continues, for every other number a refine, then a stop."""
    middle = [Action.REFINE] if number % 2 else []
    actions = np.array([*[Action.CONTINUE] * (2 + number % 4), *middle, Action.CONTINUE, Action.STOP], np.int64)
    count = len(actions)
    masks = np.full((count, 16, 16), np.nan, np.float32)
    masks[actions == Action.REFINE] = np.pad(np.ones((8, 8), np.float32), ((2, 6), (6, 2)))
    rise = np.linspace(0.7, 0.86, count + 1, dtype=np.float32)[:, None]
    return Film(
        prompt=_PROMPTS[number % 3],
        tier=number % 3 + 1,
        index=number,
        nfe=count + 8,
        actions=actions,
        steps=np.arange(4, 4 + count),
        scores=np.concatenate([rise, 6 + rise, rise - 0.4], axis=1),
        images=np.stack([picture(number, 0.3 + 0.7 * row / count) for row in range(count + 1)]),
        masks=masks,
    )  # fmt: skip


def toy_summary() -> dict[str, Any]:
    """What `evaluate` would write."""
    contestants = [_contestant(name) for name in _KINDS]
    row = {"name": "agent - DDIM-13", "metric": "scene_soft", "difference": 0.027, "ci": [0.009, 0.046],
           "p_value": 0.001, "p_holm": 0.004, "count": 300}  # fmt: skip
    tie = row | {"name": "agent - DPM-Solver++-13", "difference": 0.005, "ci": [-0.004, 0.015], "p_holm": 0.4}
    loss = row | {"name": "agent - best of 8 DDIM-20", "difference": -0.02, "ci": [-0.031, -0.009], "p_holm": 0.01}
    return {
        "mean_nfe": 12.6, "mean_nfe_full": 50.0, "nfe_saved": 0.748, "scene_diff": -0.005,
        "scene_diff_ci": [-0.012, 0.001],
        "clip_diff": -0.001, "clip_diff_ci": [-0.002, 0.000], "random_stop_diff": 0.024,
        "random_stop_diff_ci": [0.01, 0.04],
        "spearman_nfe_tier": 0.43, "oracle_share": 0.62, "images": 300, "prompts": 300, "policy": "made up",
        "contestants": contestants, "comparisons": [row, tie, loss], "equal_nfe": ["ddim-13", "dpm++2m-13"],
        "skipped": {"lcm-lora-4": "no weights"},
        "non_inferiority": [{"against": "full", "metric": "scene_soft", "margin": 0.0089, "difference": -0.005,
                             "ci": [-0.012, 0.001], "p_value": 0.2, "established": False}],
    }  # fmt: skip


def _contestant(name: str) -> dict[str, Any]:
    scene, nfe = _SCENE[name], float(_NFE[name])
    seconds = None if "oracle" in name else nfe * 0.0055
    mean: dict[str, float | None] = {"nfe": nfe, "network_evals": 2 * nfe, "seconds": seconds,
            "scene_soft": scene, "clip": 0.8 + scene / 16}  # fmt: skip
    ci = {key: None if value is None else [value * 0.985, value * 1.012] for key, value in mean.items()}
    tiers = {str(tier): {"nfe": nfe * (0.7 + tier / 6), "scene_soft": scene + 0.12 - 0.08 * tier} for tier in (1, 2, 3)}
    return {
        "name": name,
        "title": name.replace("-", " "),
        "kind": _KINDS[name],
        "mean": mean,
        "ci": ci,
        "by_tier": tiers,
    }


def toy_rows(count: int = 24) -> list[dict[str, float | None]]:
    """Lines of metrics.jsonl."""
    rows: list[dict[str, float | None]] = []
    for step in range(1, count + 1):
        done = step / count
        rows.append({
            "iteration": step, "term_quality": 0.2 - 0.1 * done, "term_efficiency": -0.12 + 0.08 * done,
            "term_terminal": -0.12 + 0.1 * done, "term_refine": 0.0, "return": -0.04 + 0.08 * done,
            "nfe": 25 - 12 * done,
            "nfe_p10": 15 - 5 * done, "nfe_p90": 40 - 18 * done, "continue_frac": 0.87 - 0.12 * done,
            "stop_frac": 0.06 + 0.16 * done, "refine_frac": 0.07 - 0.04 * done, "score_clip": 0.84 + 0.02 * done,
            "score_aesthetic": 6.6 + 0.3 * done, "score_image_reward": 0.56 + 0.05 * done, "entropy": 0.5 - 0.2 * done,
            "policy_loss": None if step == 1 else -0.02, "vf_loss": 0.4 - 0.3 * done, "approx_kl": 0.01,
        })  # fmt: skip
    return rows


def toy_report(films: int = 6) -> ReportData:
    """Everything a page can hold."""
    strips = [toy_film(number) for number in range(films)]
    case = Case(prompt="a red circle", tier=1, nfe=11, score=0.4, full_score=0.9, metric="scene_soft",
                image=picture(1, 0.8), full_image=picture(1))  # fmt: skip
    spent = [
        Spent(tier=film.tier, nfe=film.nfe, actions=tuple(film.actions.tolist()), steps=tuple(film.steps.tolist()))
        for film in strips
    ]
    return ReportData(
        title="Run <first>", status="finished after 24 of 24 iterations", command="addiffusion train",
        config="ppo:\n  lr: 0.0003\n", num_steps=50, iterations=toy_rows(), summary=toy_summary(), spent=spent,
        films=strips, best=[case], worst=[case, case], notes=["A note <about> something."],
    )  # fmt: skip
