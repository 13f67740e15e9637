"""Arithmetic of a comparison on made-up results: matching, oracle, bank, tables."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from addiffusion.config import Config, SamplerSection
from addiffusion.errors import UsageError
from addiffusion.records import SCORE_NAMES, Prompt
from addiffusion.setting import Setting
from evaluation.comparison.bank_stops import bank_stops
from evaluation.comparison.contestants import EvalCase, full_run, make_cases, static, tickets_of
from evaluation.comparison.matching import (
    equal_nfe,
    equal_time,
    mean_stop,
    nfe_for_seconds,
    nfe_of_stop,
    random_stop,
    refined_stop,
    step_of_nfe,
)
from evaluation.comparison.metric_table import MetricTable, metric_table, tier_correlation
from evaluation.comparison.oracle import oracle, oracle_share, utility
from evaluation.comparison.results import ImageResult
from evaluation.comparison.summary import ComparisonResult, Matches, comparisons, summarise
from evaluation.comparison.tables import latex_standings, markdown_standings
from evaluation.report.html_report import render
from evaluation.report.report_data import ReportData
from evaluation.report.results_page import results_page, verdicts
from evaluation.seconds import FULL_QUEUE_NOTE, SECONDS_NOTE
from launch.comparing.evaluate_view import standings_table
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config

SAMPLER = SamplerSection(num_steps=50, warmup_steps=4, finish_steps=4)
CASES = make_cases([Prompt(prompt_id=n, text=f"p{n}", tier=n % 3 + 1) for n in range(12)], repeats=1, seed=0)
REWARD = Config().reward


def drawn(name: str, nfe: list[int] | int, clip: np.ndarray, full: MetricTable | None = None) -> MetricTable:
    """One contestant whose images look alike to DINO."""
    spent = [nfe] * len(CASES) if isinstance(nfe, int) else nfe
    results = [
        ImageResult(
            contestant=name, index=case.index, prompt_id=case.prompt.prompt_id, prompt=case.prompt.text,
            tier=case.prompt.tier, repeat=0, seed=case.seed, nfe=spent[case.index], network_evals=2 * spent[case.index],
            seconds=0.01 * spent[case.index],
            scores={"clip": float(clip[case.index]), "aesthetic": 5.0, "image_reward": 0.0},
            clip_embedding=(1.0, 0.0), dino_embedding=(0.6, 0.8),
        )
        for case in CASES
    ]  # fmt: skip
    contestant = static(name, SAMPLER) if "-" in name else full_run(SAMPLER)
    return metric_table(contestant, results, CASES, full)


@pytest.fixture
def full() -> MetricTable:
    return drawn("full", 50, np.linspace(0.2, 0.31, 12))


@pytest.mark.parametrize("finish", [0, 1, 4, 8])
def test_every_spending_has_its_stop(finish: int) -> None:
    sampler = SAMPLER.model_copy(update={"finish_steps": finish})
    spent = [nfe_of_stop(sampler, step) for step in range(4, 50)]
    assert spent[0] == 5 + finish
    assert spent[-1] == 50
    assert spent == sorted(spent)
    for nfe in set(spent):
        assert nfe_of_stop(sampler, step_of_nfe(sampler, nfe)) == nfe
    assert step_of_nfe(sampler, 1) == 4
    assert step_of_nfe(sampler, 60) == 49


def test_chance_and_fixed_stops_spend_what_the_agent_spends() -> None:
    nfe = [9, 9, 12, 20, 33, 50, 10, 11, 15, 16, 17, 18]
    dealt = [nfe_of_stop(SAMPLER, step) for step in random_stop(SAMPLER, nfe, seed=3).stop_steps or ()]
    assert sorted(dealt) == sorted(nfe)
    assert dealt != nfe
    fixed = [nfe_of_stop(SAMPLER, step) for step in mean_stop(SAMPLER, 12.25, 12, seed=0).stop_steps or ()]
    assert sorted(fixed) == [12] * 9 + [13] * 3
    refined = refined_stop(SAMPLER, 12.25, 12, refine_passes=2, seed=0)
    assert refined.refine_last
    assert sorted(nfe_of_stop(SAMPLER, step) + 2 for step in refined.stop_steps or ()) == sorted(fixed)


def test_opponents_at_equal_cost_get_the_doubt() -> None:
    names = [one.name for one in equal_nfe(["ddim", "pndm"], SAMPLER, 12.2)]
    assert names == ["ddim-13", "pndm-12"]  # PNDM-12 makes 13 passes
    assert [one.name for one in equal_nfe(["ddim"], SAMPLER, 12.0)] == ["ddim-12"]
    known = {10: 0.07, 20: 0.12, 50: 0.27}  # 0.02 + 0.005 n
    assert nfe_for_seconds(0.17, known) == 30
    assert [one.name for one in equal_time(["ddim"], SAMPLER, 0.17, known)] == ["ddim-30"]
    assert nfe_for_seconds(0.3, {10: 0.1}) == 30


def test_a_static_sampler_may_have_a_guidance_scale_of_its_own() -> None:
    own, plain = static("dpm++2m-12@3.5", SAMPLER), static("dpm++2m-12", SAMPLER)
    assert (own.title, own.sampler) == ("DPM-Solver++-12, guidance 3.5", plain.sampler)
    assert {ticket.setting for ticket in tickets_of(own, CASES)} == {Setting(guidance_scale=3.5)}
    cases = [replace(case, setting=Setting(guidance_scale=2, num_steps=9)) for case in CASES]
    assert {ticket.setting for ticket in tickets_of(own, cases)} == {Setting(guidance_scale=3.5, num_steps=9)}
    assert {ticket.setting for ticket in tickets_of(plain, cases)} == {Setting(guidance_scale=2, num_steps=9)}
    assert own.as_json() == plain.as_json() | {"name": own.name, "guidance_scale": 3.5}


@pytest.mark.parametrize("name", ["ddim", "ddim-1", "magic-20", "ddim-x", "ddim-20@", "ddim-20@x", "ddim-20@-1"])
def test_what_is_no_sampler_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no static sampler: give SOLVER-STEPS"):
        static(name, SAMPLER)


def test_the_oracle_takes_the_best_stop_and_the_cheapest_of_equals(full: MetricTable) -> None:
    base = full.scores["clip"]
    better = np.where(np.arange(12) < 6, 0.05, -0.05)
    early, late = drawn("ddim-9", 9, base + better, full), drawn("ddim-20", 20, base, full)
    best = oracle([full, early, late], "clip", full=full, reward=REWARD)
    assert list(best.scores) == sorted(full.scores)  # files of one comparison are the same whenever it is written
    assert best.nfe.tolist() == [9] * 6 + [20] * 6  # `late` equals the full run at a lower price
    by_reward = oracle([full, early, late], "reward", full=full, reward=REWARD)
    worth = [utility(one, full, REWARD) for one in (full, early, late)]
    assert np.allclose(utility(by_reward, full, REWARD), np.max(worth, axis=0))
    assert utility(full, full, REWARD) == pytest.approx(-50 * REWARD.c_nfe)
    assert oracle_share(by_reward, by_reward, full=full, reward=REWARD) == pytest.approx(1)
    assert oracle_share(full, by_reward, full=full, reward=REWARD) == pytest.approx(0)


def test_the_oracle_is_paid_as_the_run_was(full: MetricTable) -> None:
    """Every option of the reward that changes what an image is worth changes the oracle's worth alike."""
    other = drawn("ddim-9", 9, full.scores["clip"] + 0.02, full)
    other = replace(other, dino=np.tile([1.0, 0.0], (len(CASES), 1)))

    def worth(**changes: object) -> float:
        return float(utility(other, full, REWARD.model_copy(update=changes))[0])

    clip, likeness = 0.02 / 0.05, 0.2 * (0.6 - 1) / 0.1
    assert worth() == pytest.approx(clip + likeness - 0.09, abs=1e-5)
    assert worth(credit="telescoped") == pytest.approx(worth(), abs=1e-5)
    assert worth(normalise=False) == pytest.approx(0.02 + 0.2 * (0.6 - 1) - 0.09, abs=1e-5)
    assert worth(terminal_form="multiplicative") == pytest.approx((1 + clip) * (1 + likeness) - 1 - 0.09, abs=1e-5)
    assert worth(drop=("quality",)) == pytest.approx(likeness - 0.09, abs=1e-5)
    assert worth(drop=("terminal",)) == pytest.approx(clip - 0.09, abs=1e-5)
    assert worth(drop=("efficiency",)) == pytest.approx(clip + likeness, abs=1e-5)
    assert worth(c_nfe=0.5) == pytest.approx(clip + likeness - 4.5, abs=1e-5)
    weights = REWARD.weights.model_copy(update={"dino": 0.0})
    ends = 2 * 0.22 / 0.05 + 5.0 / 0.3  # weights 2 and 1 of the final CLIP and aesthetic scores; preference is 0
    assert worth(preset="phase1", weights=weights) == pytest.approx(clip + ends - 0.09, abs=1e-4)


def test_an_image_without_a_score_that_counts_has_no_worth(full: MetricTable) -> None:
    lost = {**full.scores, "clip": np.where(np.arange(12) == 3, np.nan, full.scores["clip"])}
    worth = utility(replace(full, scores=lost), full, REWARD)
    assert np.flatnonzero(np.isnan(worth)).tolist() == [3]
    free = REWARD.model_copy(update={"weights": REWARD.weights.model_copy(update={"clip": 0.0})})
    assert np.isfinite(utility(replace(full, scores=lost), full, free)).all()


def test_where_nothing_can_be_gained_there_is_no_share(full: MetricTable) -> None:
    assert oracle_share(full, full, full=full, reward=REWARD) is None
    worse = drawn("ddim-9", 49, full.scores["clip"] - 0.2, full)
    assert oracle_share(worse, full, full=full, reward=REWARD) is None
    nobody = replace(full, nfe=np.full(12, np.nan))
    assert oracle_share(nobody, nobody, full=full, reward=REWARD) is None
    found = replace(result(full), oracle_share=None)
    assert summarise(found)["oracle_share"] is None


def test_nfe_that_follows_the_tier_is_seen(full: MetricTable) -> None:
    assert tier_correlation(drawn("ddim-9", [10 * case.prompt.tier for case in CASES], full.scores["clip"])) == (
        pytest.approx(1)
    )
    assert np.isnan(tier_correlation(full))


def test_a_bank_gives_every_stop_and_so_the_exact_oracle(tmp_path: Path) -> None:
    bank = toy_bank(tmp_path / "bank", toy_bank_config(), count=5)
    known = [EvalCase(index=n, prompt=one.prompt, repeat=0, seed=one.seed) for n, one in enumerate(bank.trajectories)]
    cases = [*known, EvalCase(index=5, prompt=Prompt(prompt_id=99, text="never built", tier=1), repeat=0, seed=1)]
    results = [
        ImageResult(
            contestant="full", index=n, prompt_id=n, prompt=one.prompt.text, tier=1, repeat=0, seed=one.seed,
            nfe=int(one.end_nfe[-1]), network_evals=1, seconds=0.1, dino_embedding=tuple(one.dino[-1].tolist()),
            scores=dict(zip(SCORE_NAMES, map(float, one.scores[-1]), strict=True)),
        )
        for n, one in enumerate(bank.trajectories)
    ]  # fmt: skip
    whole = metric_table(full_run(SAMPLER), results, cases, None)
    stops = bank_stops(bank, cases, whole)
    assert len(stops) == len(bank.trajectories[0].end_rows)
    for end, one in enumerate(stops):
        assert one.nfe[:5].tolist() == [float(held.end_nfe[end]) for held in bank.trajectories]
        assert np.isnan(one.nfe[5])
    assert stops[-1].value("dino_similarity")[:5] == pytest.approx(1, abs=1e-5)
    best = oracle(stops, "clip", full=whole, reward=REWARD)
    expected = [float(held.ends("clip").max()) for held in bank.trajectories]
    assert best.value("clip")[:5] == pytest.approx(expected)
    by_reward = oracle(stops, "reward", full=whole, reward=REWARD)
    assert oracle_share(by_reward, by_reward, full=whole, reward=REWARD) == pytest.approx(1)


def result(full: MetricTable) -> ComparisonResult:
    agent = drawn("ddim-9", [8, 9, 10] * 4, full.scores["clip"] - 0.0001, full)
    worse = drawn("ddim-13", 13, full.scores["clip"] - 0.02 - 0.001 * np.arange(12), full)
    better = drawn("euler-13", 13, full.scores["clip"] + 0.02 + 0.001 * np.arange(12), full)
    others = {"full": full, "ddim-13": worse, "euler-13": better}
    return ComparisonResult(
        agent=agent, others=others, matches=Matches(equal_nfe=("ddim-13", "euler-13")), skipped={"LCM": "no weights"},
        oracle_share=0.5, margin=0.01,
    )  # fmt: skip


def test_the_page_says_who_wins_whoever_it_is(full: MetricTable) -> None:
    found = result(full)
    summary = summarise(found)
    lines = " ".join(verdicts(found, summary))
    assert "the agent wins against DDIM-13" in lines
    assert "the agent **loses** against Euler-13" in lines
    assert "it is not worse than its whole schedule by a margin" in lines
    assert summary["nfe_saved"] == pytest.approx(1 - 9 / 50)
    assert summary["scene_diff"] is None
    assert [row["p_holm"] <= 0.05 for row in summary["comparisons"]].count(True) == 3
    page = results_page(found, summary, command="addiffusion results", machine="2 cores")
    assert "LCM: no weights." in page
    assert "share" in page


@pytest.mark.parametrize(("gap", "words"), [(0.05, "In CLIP the agent **loses** against"), (-0.05, "against none")])
def test_a_loss_in_clip_score_is_said_beside_scene_scores(full: MetricTable, gap: float, words: str) -> None:
    clip, jitter = full.scores["clip"], np.arange(12) / 1000
    scores = {"full": (0.7 + jitter, clip), "refined-stop": (0.6 + 2 * jitter, clip + gap * (1 + jitter))}
    others = {
        name: replace(drawn("ddim-9", 9, clip, full), scores={"scene_soft": scene, "clip": other})
        for name, (scene, other) in scores.items()
    }
    agent = replace(drawn("ddim-9", 9, clip, full), scores=others["full"].scores)
    found = replace(result(full), agent=agent, others=others, matches=Matches())
    lines = verdicts(found, summarise(found))
    assert sum("CLIP" in line and words in line for line in lines) == 1
    assert sum("In scene the agent wins" in line for line in lines) == 1


def test_seconds_never_stand_without_what_is_in_them(full: MetricTable, tmp_path: Path) -> None:
    found = result(full)
    summary = summarise(found)
    assert summary["seconds_note"] == SECONDS_NOTE
    assert SECONDS_NOTE in latex_standings(found)
    assert SECONDS_NOTE in results_page(found, summary, command="addiffusion results", machine="2 cores")
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(standings_table(found))
    assert SECONDS_NOTE in " ".join(console.export_text().split())
    assert SECONDS_NOTE in render(
        ReportData(title="a", status="", command="", config="", num_steps=50, summary=summary)
    )


def test_cost_and_the_pace_of_a_full_queue_are_shown_where_they_say_something(full: MetricTable) -> None:
    found = result(full)
    assert markdown_standings(found).startswith("| sampler | NFE | evals | s/image | CLIP |")
    agent = replace(found.agent, network_evals=1.5 * found.agent.nfe, seconds_full_queue=found.agent.seconds / 2)
    found = replace(found, agent=agent)
    table = markdown_standings(found)
    assert table.startswith("| sampler | NFE | evals | cost | s/image | full queue | CLIP |")
    assert "| DDIM-9 | 9.0 | 13.5 | 6.8 | 0.090 | 0.045 |" in table
    assert "| DDIM-13 | 13.0 | 26.0 | 13.0 | 0.130 | - |" in table
    assert FULL_QUEUE_NOTE in latex_standings(found)
    summary = summarise(found)
    assert summary["mean_cost"] == pytest.approx(6.75)
    assert summary["contestants"][0]["by_tier"]["1"]["cost"] == pytest.approx(6.0)
    page = render(ReportData(title="a", status="", command="", config="", num_steps=50, summary=summary))
    assert "mean cost" in page


def test_tables_hold_every_contestant_once(full: MetricTable) -> None:
    found = result(full)
    markdown, latex = markdown_standings(found), latex_standings(found)
    for title in ("DDIM-9", "always continue (50)", "DDIM-13", "Euler-13"):
        assert markdown.count(f"| {title} |") == 1
        assert latex.count(f"\n{title} &") == 1
    assert len(comparisons(found)) == 3
