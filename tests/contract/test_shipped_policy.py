"""Promise 5: the policy that ships on twelve prompts it has never seen, and the figures of the results page.

Its whole measurement takes an hour; that README says what the page says, no time at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.policy_files import read_policy
from addiffusion.prompts import load_prompts
from addiffusion.records import Episode
from addiffusion.reward import potential
from evaluation.comparison.contestants import agent, full_run, make_cases
from evaluation.comparison.draw import draw_cases
from evaluation.comparison.held_out import action_fractions
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.scores import paid_scores
from launch.runtime.components import unpaid
from launch.runtime.serial import serial_components

Drawn: TypeAlias = tuple[MetricTable, MetricTable, list[Episode]]

DOCS = Path(__file__).parents[2] / "docs"
RESULTS, TRAINING = ((DOCS / name).read_text(encoding="utf-8") for name in ("results.md", "training.md"))


def rows(heading: str) -> dict[str, list[str]]:
    """The first table under a heading of the results page: cells by what stands first in a row."""
    lines = RESULTS.split(f"\n## {heading}\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    return {row[0]: row[1:] for row in reversed(cells)}


EVERY_SETTING = [
    (row[0], row[1:])
    for line in RESULTS.split("\n## Every setting\n")[1].splitlines()
    if line.startswith("| guidance ") and (row := [cell.strip() for cell in line.strip("| ").split(" | ")])
]
"""Rows of its tables of policies."""


def difference(metric: str) -> tuple[str, str]:
    """Mean and interval of the agent minus the full run."""
    pattern = rf"^\| agent - always continue \(50\) \| {metric} \|.*?\| \**([+-][\d.]+)\** (\[.*?\])"
    found = re.search(pattern, RESULTS.replace("\\_", "_"), re.MULTILINE)
    assert found is not None
    return found[1], found[2]


def wins(name: str) -> float:
    """By how much the agent wins in scene score against the named one, as the page says."""
    found = re.search(rf"In scene the agent wins against {re.escape(name)}.*?: \+([\d.]+) \[\+", RESULTS)
    assert found is not None, name
    return float(found[1])


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Twelve held-out prompts, by the policy and at full length; the policy's episodes."""
    policy = read_policy("shipped")
    config: Config = unpaid(policy.config(["cluster.mode=serial", "rollout.workers=1"]))
    cases = make_cases(load_prompts(config.prompts, split="test", count=12, seed=0), repeats=1, seed=config.run.seed)
    ours = agent(config.sampler, policy=0, name="policy", title="policy", c_nfe=config.reward.c_nfe)
    with serial_components(config) as components:
        components.rollouts.set_weights(policy.weights, 1)
        judge = paid_scores(components.scoring)
        found, full = (
            draw_cases(components.rollouts, one, cases, judge=judge) for one in (ours, full_run(config.sampler))
        )
    return found.table(cases), full.table(cases), list(found.episodes.values())


def test_5_it_spends_a_part_of_the_schedule(drawn: Drawn) -> None:
    """In the embedded world the policy that ships (`--policy shipped`) spends 13.4 NFE where the full run spends 50,
    and more the harder the prompt: 10 / 14 / 17 in tiers 1 / 2 / 3.
    """
    policy, full, episodes = drawn
    nfe = policy.nfe.tolist()
    assert len(nfe) == 12
    assert np.mean(nfe) <= 20
    assert len(set(nfe)) > 1, "it decides per image"
    assert set(full.nfe.tolist()) == {50}
    fractions = action_fractions(episodes)
    assert all(fraction > 0.05 for fraction in fractions.values()), fractions
    assert [rows("Everybody")[name][0] for name in ("agent", "always continue (50)")] == ["13.4", "50.0"]
    assert [round(float(cell)) for cell in rows("By tier")["agent"][:3]] == [10, 14, 17]


def test_5_its_images_are_better(drawn: Drawn) -> None:
    """On 300 held-out prompts its images are better than the full run's: scene score 0.920 against 0.900
    (+0.020 [+0.010, +0.032]), CLIP +0.006 [+0.003, +0.010].
    """
    policy, full, _ = drawn
    assert policy.mean("clip") == pytest.approx(full.mean("clip"), abs=0.01)
    assert policy.mean("scene_soft") > full.mean("scene_soft") - 0.05
    assert "600 images of 300 held-out prompts, 2 seeds each" in RESULTS
    scenes = [rows("Everybody")[name][3][:5] for name in ("agent", "always continue (50)")]
    assert scenes == ["0.920", "0.900"]
    assert difference("scene_soft") == ("+0.020", "[+0.010, +0.032]")
    assert difference("clip") == ("+0.006", "[+0.003, +0.010]")


def test_5_it_beats_who_does_not_look() -> None:
    """In scene score it also beats DDIM, DPM-Solver++, Euler and UniPC at as many NFE (by 0.049 to 0.057) and, its
    looking and scoring counted, in as much time (28 steps: by 0.024 to 0.031), its own NFE dealt out at random (0.030),
    one step for all (0.023) and one refine and one step for all (0.015) (results: two images per prompt, every
    baseline). The schedule is one on which step counts matter.
    """
    solvers = ("DDIM", "DPM-Solver++", "Euler", "UniPC")
    for steps, least, most in ((14, 0.049, 0.057), (28, 0.024, 0.031)):
        gains = [wins(f"{solver}-{steps} ") for solver in solvers]
        assert (min(gains), max(gains)) == (least, most)
    controls = ("random stop, same NFE", "fixed stop at the agent's", "fixed stop after one refine")
    assert [wins(name) for name in controls] == [0.030, 0.023, 0.015]


def test_7_it_begins_again_what_will_not_do() -> None:
    """A policy that sees the scores of one preview of each image (`--policy shipped-previews`) begins those again that
    will not do, and goes on with the better attempt. Over guidance 1.5 to 5 and 20 and 50 steps (120 held-out
    prompts each) it is better than the full run at 38 % of its passes, and no image takes more than the full run:
    scene score +0.046 [+0.028, +0.068]; than one refine and one step for all at its NFE: +0.043 [+0.026, +0.064];
    and than static samplers at their best guidance scale: +0.058 [+0.032, +0.092]; in each of the eight settings it
    is shown to lose less than 1 % of the full run's score. So are four other training seeds (+0.049 to +0.055 at 39
    to 50 % of the passes, 8 of 8 each). On 300 prompts at guidance 2 and 50 steps it is, at six prices from 6 to 24
    passes, better than every static sampler at its best guidance scale with as many (by 0.032 to 0.055, every lower
    bound above 0); at the lowest price its images have a scene score of 0.956 for 23.9 passes, the full run's
    0.900; the best of four draws by an early preview has 0.940 for 19.0, or 0.954 for 35.0 (results, training,
    hand-made opponents).
    """
    policy = read_policy("shipped-previews")
    config = unpaid(policy.config(["cluster.mode=serial", "rollout.workers=1", "sampler.num_steps=20"]))
    cases = make_cases(load_prompts(config.prompts, split="test", count=12, seed=0), repeats=1, seed=config.run.seed)
    ours = agent(config.sampler, policy=0, name="policy", title="policy", c_nfe=config.reward.c_nfe)
    with serial_components(config) as components:
        components.rollouts.set_weights(policy.weights, 1)
        found = draw_cases(components.rollouts, ours, cases, judge=paid_scores(components.scoring))
    episodes = list(found.episodes.values())
    tries = [int(episode.attempts.max()) + 1 for episode in episodes]
    seen = [int(np.isfinite(episode.scores[:-1, 0]).sum()) for episode in episodes]
    refines = [int((episode.actions == Action.REFINE).sum()) for episode in episodes]
    assert max(tries) > 1, "some image begins again"
    assert all(count <= tried + refined for count, tried, refined in zip(seen, tries, refines, strict=True))
    weights = config.reward.model_copy(update={"bound": None})
    for one in episodes:
        shown = np.flatnonzero(np.isfinite(one.scores[:-1, 0]))
        gains = np.diff(potential(weights, one.scores[shown]))
        assert (gains[one.actions[shown[:-1]] == Action.REDRAW] >= 0).all(), "the better attempt goes on"
    assert found.table(cases).nfe.mean() <= 15
    assert found.table(cases).nfe.max() <= 20, "the full run's"
    settings = rows("Every setting")
    first, *others = (settings[name] for name in ("shipped-previews", *(f"previews-{seed}" for seed in (1, 2, 3, 4))))
    assert first[1] == "38%"
    worst = [int(cells[2]) for name, cells in EVERY_SETTING if name.endswith(" steps")]
    whole = [int(name.split()[-2]) for name, _ in EVERY_SETTING if name.endswith(" steps")]
    assert len(worst) == 40
    assert all(most <= steps for most, steps in zip(worst, whole, strict=True))
    assert [one[4] for one in (first, *others)] == ["8 of 8"] * 5
    assert [first[5], first[7], first[10]] == [
        "**+0.046 [+0.028, +0.068]**",
        "**+0.043 [+0.026, +0.064]**",
        "**+0.058 [+0.032, +0.092]**",
    ]
    gains, shares = [float(one[5][2:8]) for one in others], [int(one[1].rstrip("%")) for one in others]
    assert (min(gains), max(gains), min(shares), max(shares)) == (0.049, 0.055, 39, 50)
    assert "0.956 [0.940, 0.968] for 23.9" in TRAINING
    best = rows("Hand-made opponents")
    dialled = [best[price] for price in ("1", "0.2", "0.1", "0.04", "0.0126", "0.0063")]
    assert [dialled[0][0], dialled[-1][0], dialled[-1][2]] == ["6.2", "23.9", "0.956"]
    over_static = [re.findall(r"[+-][\d.]+", cells[5]) for cells in dialled]
    assert min(float(low) for _, low, _ in over_static) > 0
    assert (min(gain for gain, *_ in over_static), max(gain for gain, *_ in over_static)) == ("+0.032", "+0.055")
    assert best["always continue (50)"][2][:5] == "0.900"
    assert [best[f"best of 4 at {step}"][1:3] for step in ("2 (DDIM-10)", "4 (DDIM-20)")] == [
        ["19.0", "0.940 [0.923, 0.954]"],
        ["35.0", "0.954 [0.938, 0.966]"],
    ]
