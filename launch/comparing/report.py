"""`addiffusion report`: one page about a run, finished or running, or about a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from addiffusion.config import Config
from addiffusion.configuration.files import load_resolved
from addiffusion.errors import CheckpointError, RunFolderError
from addiffusion.policy_files import TrainedPolicy, read_policy
from addiffusion.records import Episode
from evaluation.comparison.contestants import agent, make_cases, tickets_of
from evaluation.comparison.films import Film, film_of
from evaluation.report.comparison_part import agent_films, agent_spent, cases, read_summary
from evaluation.report.html_report import write_page
from evaluation.report.report_data import ReportData, Spent
from launch.comparing.evaluate import MANIFEST, evaluation_prompts
from launch.comparing.orders import ReportOrder
from launch.runtime.components import Roles, unpaid
from launch.runtime.console import UNSEEN, Stage
from launch.runtime.serial import serial_components
from launch.training.run_folder import RunFolder

PAGE = "report.html"


def write_report(order: ReportOrder, *, roles: Roles = serial_components, console: Console = UNSEEN) -> Path:
    """Write the page and return where it is; ``console`` shows how many of its film strips are drawn.

    Raises:
        RunFolderError: the folder is neither a run nor a comparison.
        ArchiveError: its results can't be read.
    """
    is_comparison = (order.folder / MANIFEST).is_file()
    data = _of_comparison(order.folder) if is_comparison else _of_run(order, roles, console)
    with Stage(console, "writing the page"):
        return write_page(order.out or order.folder / PAGE, data)


def _of_comparison(path: Path) -> ReportData:
    facts = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    return ReportData(
        title=f"Comparison {path.name}",
        num_steps=int(facts["sampler"]["num_steps"]),
        config=json.dumps(facts, indent=2),
        **_comparison_part(path),
    )


def _of_run(order: ReportOrder, roles: Roles, console: Console) -> ReportData:
    folder, config = RunFolder.open(order.folder)
    rows = folder.metrics()
    result = folder.path / "result.json"
    done = f"{len(rows)} of {config.ppo.iterations} iterations"
    base: dict[str, Any] = {
        "title": f"Run {folder.path.name}",
        "config": folder.config_file.read_text(encoding="utf-8"),
        "num_steps": config.sampler.num_steps,
        "iterations": rows,
    }
    status = f"finished after {done}" if result.is_file() else f"running or interrupted: {done}"
    if order.comparison is not None:
        if not (order.comparison / MANIFEST).is_file():
            raise RunFolderError(f"{order.comparison} is no comparison: make one with `addiffusion evaluate`.")
        parts: dict[str, Any] = {**base, **_comparison_part(order.comparison), "status": status}
        return ReportData(**parts)
    command = f"addiffusion train -c {folder.config_file}"
    films, spent, notes = _drawn_now(order, roles, console)
    return ReportData(**base, status=status, command=command, films=films, spent=spent, notes=notes)


def _comparison_part(path: Path) -> dict[str, Any]:
    summary = read_summary(path)
    best, worst = cases(path)
    notes = [] if summary else ["The comparison is not finished: run the same `addiffusion evaluate` again to go on."]
    return {
        "status": f"{summary['images']} images, policy {summary['policy']}" if summary else "unfinished",
        "command": summary.get("command", f"addiffusion evaluate --out {path}"),
        "summary": summary,
        "spent": agent_spent(path),
        "films": agent_films(path),
        "best": best,
        "worst": worst,
        "notes": notes,
    }


def _drawn_now(order: ReportOrder, roles: Roles, console: Console) -> tuple[list[Film], list[Spent], list[str]]:
    """Film strips by the newest checkpoint, drawn in this process; a note where there is none yet."""
    hint = "Comparisons with other samplers come from `addiffusion evaluate`; show one here by --comparison FOLDER."
    if order.films == 0:
        return [], [], [hint]
    try:
        policy = read_policy(str(order.folder))
    except CheckpointError as error:
        return [], [], [f"No film strips yet: {error.message}", hint]
    episodes = _draw_films(policy, load_resolved(policy.config_file), order.films, roles, console)
    spent = [
        Spent(
            tier=episode.ticket.prompt.tier,
            nfe=episode.nfe,
            actions=tuple(episode.actions.tolist()),
            steps=tuple(episode.steps.tolist()),
        )
        for episode in episodes
    ]
    return [film_of(episode) for episode in episodes], spent, [hint]


def _draw_films(
    policy: TrainedPolicy, config: Config, count: int, roles: Roles, console: Console = UNSEEN
) -> Sequence[Episode]:
    """Held-out prompts drawn by a policy, every decision kept."""
    prompts = evaluation_prompts(config.prompts.source, config, limit=count)
    contestant = agent(config.sampler, policy=0, name="agent", title="agent", c_nfe=config.reward.c_nfe)
    cases = make_cases(prompts, repeats=1, seed=config.run.seed)
    tickets = tickets_of(contestant, cases, films=count)
    episodes: list[Episode] = []
    with ExitStack() as stack:
        with Stage(console, "loading the models"):
            components = stack.enter_context(roles(unpaid(config)))
        components.rollouts.set_weights(policy.weights, 0)
        stage = stack.enter_context(Stage(console, "film strips", len(tickets), headline=""))
        for start in range(0, len(tickets), config.rollout.slots):
            part = tickets[start : start + config.rollout.slots]
            episodes += components.rollouts.collect(part).episodes
            stage.advance(len(part))
    return episodes
