"""`addiffusion evaluate` around toy models: who takes part, what is written, going on after a kill, bad input."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from addiffusion.configuration.files import load_config
from addiffusion.errors import ArchiveError, RunFolderError, UsageError
from evaluation.comparison.results import ImageResult, ResultStore, read_results
from launch.comparing.comparison_orders import EvaluateOrder
from launch.comparing.evaluate import MANIFEST, Evaluated, evaluate, make_plan
from launch.comparing.evaluate_view import standings_table
from launch.comparing.literature import Literature
from launch.runtime.folder_lock import locked
from tests.launch.comparing.cut_short import counting_components, drawn, timed_names, without
from tests.launch.runtime.toy_components import toy_components
from tests.launch.training.toy_policy import toy_policy

pytestmark = pytest.mark.usefixtures("figures_once")

PROMPTS = 60
FEW: dict[str, object] = {"quick": True, "samplers": ("ddim-4",), "films": 0, "stops": 0}
"""Changes of ``order`` where it is not the contestants that matter."""


@pytest.fixture(scope="module")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join(f"toy scene {number}" for number in range(PROMPTS)))
    return path


def order(policy: Path, prompts: Path, out: Path, **changes: object) -> EvaluateOrder:
    settings: dict[str, object] = {
        "samplers": ("ddim-4", "euler-3", "flow_euler-4"), "stops": 3, "best_of": 2, "prices": (0.05,), "films": 2,
        "limit": 8, "literature": False,
    }  # fmt: skip
    return EvaluateOrder(policies=(str(policy),), prompts=str(prompts), out=out, **(settings | changes))


def run(wanted: EvaluateOrder, roles: object = toy_components, overrides: Sequence[str] = ()) -> tuple[Evaluated, str]:
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    evaluated = evaluate(wanted, overrides=overrides, console=console, roles=roles)
    console.print(standings_table(evaluated.result))
    return evaluated, stream.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prompt_file: Path) -> tuple[Evaluated, str, Path]:
    folder = tmp_path_factory.mktemp("evaluation")
    policy = toy_policy(folder / "policy")
    return *run(order(policy, prompt_file, folder / "out", repeats=2)), policy


def test_one_process_works_on_a_comparison(finished: tuple[Evaluated, str, Path], prompt_file: Path) -> None:
    evaluated, _, policy = finished
    with locked(evaluated.path), pytest.raises(RunFolderError, match=r"out is in use by process \d+ on "):
        run(order(policy, prompt_file, evaluated.path, repeats=2))


def test_everybody_draws_the_same_pairs_and_all_of_it_is_on_disk(finished: tuple[Evaluated, str, Path]) -> None:
    evaluated, _, _ = finished
    rows = read_results(evaluated.path / "results.parquet")
    names = {row.contestant for row in rows}
    assert {"agent", "full", "price-0.05", "ddim-4", "euler-3", "converged-0.02", "best-of-2-ddim-4", "random-stop",
            "mean-stop"} <= names  # fmt: skip
    pairs = {name: {(row.index, row.seed) for row in rows if row.contestant == name} for name in names}
    assert all(pairs[name] == pairs["agent"] for name in names if not name.startswith("best-of"))
    assert len(pairs["agent"]) == 16
    assert len({seed for _, seed in pairs["agent"]}) == 16
    assert pairs["best-of-2-ddim-4"] < pairs["agent"]  # the first seed of each prompt only
    assert len(list((evaluated.path / "images" / "agent").glob("*.png"))) == 16
    for name in ("summary.json", "tables.md", "standings.tex", "comparisons.tex", "plots/pareto_clip.png"):
        assert (evaluated.path / name).stat().st_size > 0
    assert len(list((evaluated.path / "films" / "agent").glob("*.npz"))) == 2


def test_what_each_spends_is_what_it_is_called_for(finished: tuple[Evaluated, str, Path]) -> None:
    result = finished[0].result
    agent, full = result.agent, result.full
    assert full.nfe.tolist() == [8] * 16
    assert result.others["ddim-4"].nfe.tolist() == [4] * 16
    assert set(result.others["best-of-2-ddim-4"].nfe[:8].tolist()) == {8}
    dealt, own = result.others["random-stop"].nfe, np.clip(agent.nfe, 5, 8)  # 5: earliest stop with its finish
    assert Counter(dealt.tolist()) == Counter(own.tolist())
    assert result.others["mean-stop"].mean("nfe") == pytest.approx(np.clip(agent.mean("nfe"), 5, 8), abs=1 / 16)
    for name in result.matches.equal_nfe:
        assert agent.mean("nfe") <= result.others[name].mean("nfe") < agent.mean("nfe") + 1
    assert result.others["oracle-clip"].mean("clip") >= max(
        one.mean("clip") for name, one in result.others.items() if name.startswith("stop-at") or name == "full"
    )


def test_the_summary_has_the_promised_keys_and_honest_numbers(finished: tuple[Evaluated, str, Path]) -> None:
    evaluated, text, _ = finished
    summary = json.loads((evaluated.path / "summary.json").read_text())
    assert {"mean_nfe", "scene_diff", "scene_diff_ci", "clip_diff_ci", "spearman_nfe_tier", "oracle_share",
            "random_stop_diff_ci"} <= summary.keys()  # fmt: skip
    agent, full = evaluated.result.agent, evaluated.result.full
    assert summary["mean_nfe"] == pytest.approx(float(agent.nfe.mean()))
    assert summary["clip_diff"] == pytest.approx(float((agent.scores["clip"] - full.scores["clip"]).mean()))
    low, high = summary["clip_diff_ci"]
    assert low <= summary["clip_diff"] <= high
    own = next(one for one in summary["contestants"] if one["name"] == "full")["to_full"]
    assert own["cmmd"] == pytest.approx(0, abs=1e-9)
    assert own["fd_dino"] == pytest.approx(0, abs=1e-6)
    reason = "sampler.solver=flow_euler can't sample this model, which is a diffusion"
    assert summary["skipped"]["Euler (flow)-4"].startswith(reason)
    assert "Euler (flow)-4 skipped" in text
    assert "Static samplers at the agent's NFE" in text


def test_the_oracle_pays_the_price_that_was_asked_for(prompt_file: Path, tmp_path: Path) -> None:
    policy = toy_policy(tmp_path / "policy")
    chosen: dict[float, np.ndarray] = {}
    for price in (0.0, 9.0):
        wanted = order(policy, prompt_file, tmp_path / f"at-{price:g}", **{**FEW, "stops": 3})
        evaluated, _ = run(wanted, overrides=[f"reward.c_nfe={price}"])
        assert evaluated.result.agent.contestant.c_nfe == price
        assert evaluated.summary["command"].endswith(f" --quick reward.c_nfe={price}")
        chosen[price] = evaluated.result.others["oracle-reward"].nfe
    stops = [one for name, one in evaluated.result.others.items() if name.startswith("stop-at")]
    assert (
        chosen[9.0] == np.min([one.nfe for one in stops], axis=0)
    ).all()  # at 9 an NFE nothing is worth another pass
    assert chosen[0.0].mean() > chosen[9.0].mean()


def test_a_reward_that_pays_on_the_way_has_no_oracle_and_says_so(prompt_file: Path, tmp_path: Path) -> None:
    policy = toy_policy(tmp_path / "policy")
    wanted = order(policy, prompt_file, tmp_path / "out", **{**FEW, "stops": 3})
    evaluated, text = run(wanted, overrides=["reward.preset=phase1"])
    assert evaluated.summary["oracle_share"] is None
    assert "oracle-clip" in evaluated.result.others
    assert "oracle-reward" not in evaluated.result.others
    assert "oracle stop by reward skipped" in text
    assert "pays for successive predictions" in evaluated.summary["skipped"]["oracle stop by reward"]


def test_a_killed_comparison_goes_on_and_ends_in_the_same_images(
    finished: tuple[Evaluated, str, Path], prompt_file: Path, tmp_path: Path
) -> None:
    whole, _, policy = finished
    wanted, seen = order(policy, prompt_file, tmp_path / "out", repeats=2), []
    with pytest.raises(KeyboardInterrupt):
        run(wanted, counting_components(seen, 12))
    resumed, _ = run(wanted, counting_components(seen, -1))
    again, _ = run(wanted, counting_components(seen, -1))
    # Nothing is drawn again; the sampler that does not fit is asked once more, by a ticket.
    assert seen[2].tickets == 1
    assert seen[1].tickets > 0
    clocked = timed_names(resumed, whole)
    assert without(drawn(resumed.path), clocked) == without(drawn(whole.path), clocked)
    assert drawn(again.path) == drawn(resumed.path)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5)])
def test_any_number_of_workers_goes_on(
    finished: tuple[Evaluated, str, Path], prompt_file: Path, tmp_path: Path, before: int, after: int
) -> None:
    whole, _, policy = finished
    changes = {"repeats": 2, "limit": 8, **FEW}
    wanted, seen = order(policy, prompt_file, tmp_path / "out", **changes), []
    with pytest.raises(KeyboardInterrupt):
        run(wanted, counting_components(seen, 9, [before]))
    drawn_before = sum(len(read_results(part)) for part in (tmp_path / "out" / "parts").glob("*/*.parquet"))
    resumed, _ = run(wanted, counting_components(seen, -1, [after]))
    images = drawn(resumed.path)
    names = {name for name, _ in images}
    assert images.keys() == {(name, index) for name in names for index in range(16)}
    shared = names & {name for name, _ in drawn(whole.path)}
    assert {"agent", "full", "random-stop"} <= shared
    assert all(images[key] == value for key, value in drawn(whole.path).items() if key[0] in shared)
    warmed = sum(count for count in seen[1].calls if count <= after)
    assert 0 < drawn_before < len(images)
    assert seen[1].tickets <= len(images) - drawn_before + warmed


def test_workers_that_join_are_given_work_at_the_next_call(prompt_file: Path, tmp_path: Path) -> None:
    policy = toy_policy(tmp_path / "policy")
    wanted, seen = (
        order(policy, prompt_file, tmp_path / "out", **FEW, limit=12, repeats=4),
        [],
    )
    evaluated, _ = run(wanted, counting_components(seen, -1, [1, 3]))
    assert {12, 36} <= set(seen[0].calls)  # 6 rounds of 2 slots per worker
    assert max(seen[0].calls[:12]) == 12
    assert {index for name, index in drawn(evaluated.path) if name == "agent"} == set(range(48))


def test_parts_that_were_numbered_by_chunk_are_read(
    finished: tuple[Evaluated, str, Path], prompt_file: Path, tmp_path: Path
) -> None:
    """Folders of before: a chunk's number for a name, some drawn twice and some not at all by a second start."""
    whole, _, policy = finished
    shutil.copytree(whole.path, tmp_path / "out")
    for part in sorted((tmp_path / "out" / "parts" / "agent").glob("*.parquet")):
        part.rename(part.with_name(f"{int(part.name.split('-')[0]) // 12:05d}.parquet"))
    agent = tmp_path / "out" / "parts" / "agent"
    assert sorted(part.name for part in agent.glob("*.parquet")) == ["00000.parquet", "00001.parquet"]
    shutil.copy(agent / "00000.parquet", agent / "00007.parquet")
    (agent / "00001.parquet").unlink()
    wanted, seen = order(policy, prompt_file, tmp_path / "out", repeats=2), []
    resumed, _ = run(wanted, counting_components(seen, -1, [2]))
    assert {index for name, index in drawn(resumed.path) if name == "agent"} == set(range(16))
    clocked = timed_names(resumed, whole)
    assert without(drawn(resumed.path), clocked) == without(drawn(whole.path), clocked)


def test_a_comparison_that_lacks_a_pair_is_not_written_as_finished(
    prompt_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = toy_policy(tmp_path / "policy")
    wanted = order(policy, prompt_file, tmp_path / "out", **FEW)
    write = ResultStore.write

    def lossy(self: ResultStore, results: Sequence[ImageResult], images: object) -> None:
        """A disk that forgets the last image of each part of the whole schedule."""
        write(self, results[:-1] if results[0].contestant == "full" else results, images)

    with monkeypatch.context() as patched:
        patched.setattr(ResultStore, "write", lossy)
        with pytest.raises(ArchiveError, match=r"lacks 1 of 8 images of always continue \(8\) .*pair 7.*not finished"):
            run(wanted)
    assert not (tmp_path / "out" / "summary.json").exists()
    assert not (tmp_path / "out" / "results.parquet").exists()
    evaluated, _ = run(wanted)
    assert {index for name, index in drawn(evaluated.path) if name == "full"} == set(range(8))


def test_a_folder_of_another_comparison_is_refused(
    finished: tuple[Evaluated, str, Path], prompt_file: Path, tmp_path: Path
) -> None:
    whole, _, policy = finished
    with pytest.raises(RunFolderError, match="another policy, other prompts or other settings"):
        run(order(policy, prompt_file, whole.path, limit=7))
    for other in ("backbone.dtype=bfloat16", "backbone.negative_prompt=blur"):
        with pytest.raises(RunFolderError, match="another policy, other prompts or other settings"):
            run(order(policy, prompt_file, whole.path, repeats=2), overrides=[other])
    known = json.loads((whole.path / MANIFEST).read_text())["backbone"]
    assert known.keys() == {"kind", "path", "guidance_scale", "lora"}, "folders of before are gone on with"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-mother.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="something else than a comparison"):
        run(order(policy, prompt_file, tmp_path / "letters"))


def test_a_damaged_part_is_named(finished: tuple[Evaluated, str, Path], prompt_file: Path, tmp_path: Path) -> None:
    _, _, policy = finished
    wanted = order(policy, prompt_file, tmp_path / "out", **FEW, limit=6)
    run(wanted)
    part = next((tmp_path / "out" / "parts" / "full").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ArchiveError, match=r"can't be read as a Parquet file of results .* delete it"):
        run(wanted)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(("kind", "solvers"), [("sdxl", {"ddim", "dpm++2m"}), ("sd3", {"flow_euler"})])
def test_samplers_at_the_agents_nfe_are_those_the_family_knows(kind: str, solvers: set[str], *, quick: bool) -> None:
    config = load_config([], [f"backbone.kind={kind}", "backbone.path=owner/name", "prompts.source=prompts.txt"])
    plan = make_plan(EvaluateOrder(quick=quick), config, Literature(), ())
    found = set(plan.solvers)
    assert found == solvers if quick else found >= solvers
    assert {one.sampler.solver for one in plan.others} <= found | {config.sampler.solver}


def test_a_sampler_that_is_none_lists_those_there_are(prompt_file: Path, tmp_path: Path) -> None:
    policy = toy_policy(tmp_path / "policy")
    with pytest.raises(UsageError, match=r"'ddim' is no static sampler: .* ddim, dpm\+\+2m"):
        run(order(policy, prompt_file, tmp_path / "out", samplers=("ddim",)))
    assert not (tmp_path / "out").exists()
