"""`evaluate --guidance ... --steps ...` around toy models: a comparison for each setting, one table over them."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.errors import UsageError
from evaluation.comparison import forest
from evaluation.comparison.across import RIVALS
from evaluation.comparison.forest import FOREST
from evaluation.comparison.results import ResultStore
from evaluation.report.page_sections import write_pictures, write_section
from evaluation.report.settings_section import settings_section
from launch.comparing.across import Across, evaluate_across, settings_of
from launch.comparing.comparison_orders import EvaluateOrder
from launch.comparing.evaluate_view import settings_tables
from tests.launch.runtime.toy_components import toy_components
from tests.launch.training.toy_policy import toy_policy

pytestmark = pytest.mark.usefixtures("figures_once")


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> EvaluateOrder:
    folder = tmp_path_factory.mktemp("across")
    (folder / "prompts.txt").write_text("\n".join(f"toy scene {number}" for number in range(60)))
    return EvaluateOrder(
        policies=(str(toy_policy(folder / "policy")),), prompts=str(folder / "prompts.txt"), out=folder / "out",
        limit=8, guidance=(1.5, 3.0), steps=(8,), quick=True, stops=0, films=0, literature=False,
        samplers=("ddim-4",), without=("refine", "stop+refine"),
    )  # fmt: skip


def across_of(order: EvaluateOrder) -> Across:
    return evaluate_across(order, overrides=(), console=Console(file=io.StringIO()), roles=toy_components)


def section_of(across: Across) -> str:
    return settings_section(
        across.policies, across.rows, across.without, metric="clip", command="addiffusion settings", machine="m"
    )


@pytest.fixture(scope="module")
def across(order: EvaluateOrder) -> Across:
    return across_of(order)


def test_each_setting_is_a_comparison_of_its_own(order: EvaluateOrder, across: Across) -> None:
    names = ["g1.5-s8", "g3-s8"]
    assert sorted(one.name for one in across.path.iterdir() if one.is_dir()) == names
    for name, (_, _, overrides) in zip(names, settings_of(order), strict=True):
        manifest = json.loads((across.path / name / "comparison.json").read_text())
        asked = [f"backbone.guidance_scale={manifest['backbone']['guidance_scale']}"]
        assert [*asked, f"sampler.num_steps={manifest['sampler']['num_steps']}"] == overrides
    assert [row.title for row in across.rows["policy"]] == ["guidance 1.5, 8 steps", "guidance 3, 8 steps", "mean"]


def test_every_guidance_meets_every_number_of_steps_once() -> None:
    order = EvaluateOrder(guidance=(2.0, 2.0, 3.5), steps=(20, 50))
    assert [name for _, name, _ in settings_of(order)] == ["g2-s20", "g2-s50", "g3.5-s20", "g3.5-s50"]
    assert settings_of(EvaluateOrder(steps=(20,))) == [("20 steps", "s20", ["sampler.num_steps=20"])]


def test_the_mean_is_that_of_the_settings_and_prompts_stay_the_units(across: Across) -> None:
    *settings, mean = across.rows["policy"]
    assert mean.score == pytest.approx(np.mean([row.score for row in settings]))
    assert mean.nfe == pytest.approx(np.mean([row.nfe for row in settings]))
    for name, found in mean.against.items():
        assert found.difference == pytest.approx(np.mean([row.against[name].difference for row in settings]))
        assert found.count == 8
    assert set(mean.against) == {"full", "mean-stop", "refined-stop", "random-stop", "static", "static-anywhere"}
    assert mean.holds == (sum(row.holds == (1, 1) for row in settings), 2)
    assert mean.most == max(row.most for row in settings)


def test_the_static_sampler_at_its_best_guidance_is_that_of_one_setting(across: Across) -> None:
    *settings, mean = across.rows["policy"]
    own, best = [row.against["static"] for row in settings], [row.against["static-anywhere"] for row in settings]
    assert {one.baseline_mean for one in best} == {max(one.baseline_mean for one in own)}
    assert mean.against["static-anywhere"].difference <= mean.against["static"].difference


def test_both_tables_have_every_row_and_programs_have_the_numbers(across: Across) -> None:
    written = (across.path / "settings.md").read_text()
    assert all(f"| {row.title} |" in written for row in across.rows["policy"])
    *_, table = settings_tables(across)
    stream = io.StringIO()
    Console(file=stream, width=260).print(table)
    assert "guidance 3, 8 steps" in stream.getvalue()
    found = json.loads((across.path / "settings.json").read_text())["settings"]["policy"]
    assert found[0]["against"]["full"]["count"] == 8
    assert found[0]["holds"] in ([0, 1], [1, 1])
    assert found[-1]["holds"][1] == 2
    assert f"![]({FOREST})" in written


def test_the_forest_has_an_interval_for_each_policy_setting_and_rival(
    two: Across, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(forest, "save", lambda figure, path: drawn.append(figure) or path)
    forest.plot_settings(two.rows, two.policies, two.path / FOREST, metric=two.metric)
    (figure,) = drawn
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["guidance 3, 8 steps"]
    assert [label.get_text() for label in right.get_yticklabels()] == [RIVALS[name] for name in two.policies[0].against]
    for axes, members in ((left, [[row] for row in two.policies[:-1]]), (right, [[row] for row in two.policies])):
        assert len(axes.containers) == len(members)
    for container, row in zip(right.containers, two.policies, strict=True):
        dots, _, (bars,) = container
        np.testing.assert_allclose(dots.get_xdata().astype(float), [found.difference for found in row.against.values()])
        spans = [segment[:, 0] for segment in bars.get_segments()]
        intervals = [(found.interval.low, found.interval.high) for found in row.against.values()]
        np.testing.assert_allclose(spans, intervals)
    heights = [height for container in right.containers for height in container[0].get_ydata()]
    assert len(set(heights)) == len(heights), "no two lie on one line"


@pytest.fixture(scope="module")
def two(order: EvaluateOrder, tmp_path_factory: pytest.TempPathFactory) -> Across:
    """Two policies of other weights."""
    folder = tmp_path_factory.mktemp("two")
    second = toy_policy(folder / "second", seed=1)
    return across_of(replace(order, policies=(*order.policies, str(second)), out=folder / "out", guidance=(3.0,)))


def test_policies_share_prompts_seeds_and_whoever_needs_no_policy(two: Across) -> None:
    assert [row.title for row in two.policies] == ["policy", "second", "mean"]
    mine, other = (ResultStore(two.path / name / "g3-s8") for name in ("policy", "second"))
    for name in ("full", "ddim-4"):
        assert mine.read([name]) == other.read([name]), "seconds and all: it is the same drawing"
        first, again = mine.read([name])[name][0], other.read([name])[name][0]
        np.testing.assert_array_equal(mine.image(first), other.image(again))
    (agent, another) = (store.read(["agent"])["agent"] for store in (mine, other))
    assert [(one.prompt, one.seed) for one in agent] == [(one.prompt, one.seed) for one in another]
    assert {one.seconds for one in agent}.isdisjoint(one.seconds for one in another), "each is drawn by its policy"
    mean = two.policies[-1]
    assert mean.score == pytest.approx(np.mean([row.score for row in two.policies[:-1]]))
    assert mean.holds is not None
    assert mean.holds[1] == 2
    assert {found.count for found in mean.against.values()} == {8}, "prompts stay the units"


def test_a_section_says_first_what_does_not_hold_and_replaces_itself(two: Across, tmp_path: Path) -> None:
    section = section_of(two)
    failed, tables = section.partition("### What does not hold")[2].split("### Policies")
    for row in two.policies:
        for name, words in RIVALS.items():
            shown = name not in row.against or row.against[name].interval.low > 0
            assert (f"{row.title}, better than {words}" in failed) is not shown
    assert "| second |" in tables
    page = tmp_path / "page.md"
    page.write_text("# Results\n\n<!-- other: written by `addiffusion pareto` -->\n\n## Other\n")
    for _ in range(2):
        write_section(page, section)
    assert page.read_text().count("## Every setting") == page.read_text().count("## Other") == 1
    assert page.read_text().startswith("# Results\n\n<!-- other")
    write_pictures(page, [two.path / FOREST])
    (shown,) = re.findall(r"!\[[^]]*\]\((.+?)\)", section)
    assert (tmp_path / shown).read_bytes() == (two.path / FOREST).read_bytes()


def test_actions_that_are_taken_away_are_never_chosen_and_told_against_all(across: Across) -> None:
    whole, refine, both = across.without
    assert [row.title for row in across.without] == ["all actions", "without refine", "without stop and refine"]
    for folder in ("g1.5-s8", "g3-s8"):
        drawn = ResultStore(across.path / folder).read(["agent", "without-refine", "without-stop-refine", "full"])
        chosen = {name: {Action(action) for one in images for action in one.actions} for name, images in drawn.items()}
        assert chosen["agent"] >= {Action.STOP, Action.REFINE}, "else nothing is taken away"
        assert Action.STOP in chosen["without-refine"]
        assert Action.REFINE not in chosen["without-refine"]
        assert chosen["without-stop-refine"] == {Action.CONTINUE}
    assert both.nfe == pytest.approx(whole.nfe / whole.share), "it always goes on"
    assert both.against["full"].difference == pytest.approx(0, abs=1e-9)
    assert refine.against["agent"].difference == pytest.approx(refine.score - whole.score)
    assert set(whole.against) == {"full"}
    written, page = (across.path / "settings.md").read_text(), section_of(across)
    assert f"| without refine | {refine.nfe:.1f} |" in written
    assert "### Without an action" in page
    assert "minus the policy with all its actions" in page
    assert any("without an action" in str(table.title) for table in settings_tables(across))
    assert len(json.loads((across.path / "settings.json").read_text())["without"]) == 3


@pytest.mark.parametrize("wrong", ["fly", "continue", "refine+leap", ""])
def test_an_action_that_can_not_be_taken_away_is_refused(order: EvaluateOrder, tmp_path: Path, wrong: str) -> None:
    asked = replace(order, without=(wrong,), out=tmp_path / "out")
    with pytest.raises(UsageError, match=rf"--without {re.escape(wrong)}: give one or several of stop, refine, joined"):
        across_of(asked)
    assert not (tmp_path / "out").exists()


def test_two_policies_of_one_name_are_refused(order: EvaluateOrder, tmp_path: Path) -> None:
    (twin,) = order.policies
    with pytest.raises(UsageError, match="would share the folder policy: rename one of them"):
        across_of(replace(order, policies=(twin, str(tmp_path / "policy")), out=tmp_path / "out"))


def test_a_setting_that_can_not_be_is_refused_before_anything_is_drawn(order: EvaluateOrder, tmp_path: Path) -> None:
    changed = EvaluateOrder(policies=order.policies, prompts=order.prompts, out=tmp_path / "out", steps=(8, 2))
    with pytest.raises(UsageError, match="warmup_steps"):
        across_of(changed)
    assert not (tmp_path / "out").exists()
