"""`addiffusion evaluate`: the agent against everything else on a prompt set, in one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from addiffusion.bank.archive import open_bank
from addiffusion.config import BackboneSection, Config
from addiffusion.config.sampling import IMAGE_KEYS
from addiffusion.embedded.world import Split
from addiffusion.errors import RunFolderError
from addiffusion.files import make_folder, write_text
from addiffusion.policy_files import TrainedPolicy, read_policy
from addiffusion.prompts import load_prompts
from addiffusion.records import METRIC_NAMES, Prompt
from evaluation.comparison.contestants import (
    ENGINE,
    Contestant,
    agent,
    best_of,
    converged,
    default_statics,
    make_cases,
    matched_statics,
    static,
)
from evaluation.comparison.draw import ComparisonRunner, PolicyState
from evaluation.comparison.folder import finish_folder
from evaluation.comparison.handmade import handmade
from evaluation.comparison.results import ResultStore
from evaluation.comparison.reward_hacking import reward_hacking
from evaluation.comparison.schedule import ComparisonPlan, compare_all
from evaluation.comparison.summary import ComparisonResult
from evaluation.comparison.without import policies_of, without
from launch.comparing.comparison_orders import EvaluateOrder
from launch.comparing.literature import Literature, literature
from launch.comparing.results import evaluate_command
from launch.comparing.stages import stages
from launch.runtime.build import build_components
from launch.runtime.components import Components, Roles, observation_width, unpaid
from launch.runtime.console import RunView, duration
from launch.runtime.folder_lock import is_vacant, locked, refuse_if_held
from launch.training.checks import check_models

MANIFEST = "comparison.json"
_CHUNK_ROUNDS = 6
"""Images per slot and chunk: slots run dry once per chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A finished comparison."""

    path: Path
    summary: dict[str, Any]
    result: ComparisonResult


def evaluate(
    order: EvaluateOrder,
    *,
    overrides: Sequence[str],
    console: Console,
    roles: Roles = build_components,
    converged_at: Sequence[float] = (0.02,),
    lenders: Sequence[Path] = (),
) -> Evaluated:
    """Draw what the folder lacks, compare, and write tables, figures, report and summary.

    Args:
        order: what to compare, on what, and where to put it.
        overrides: go over the policy's own configuration.
        console: where progress is shown.
        roles: who rolls out and scores.
        converged_at: a contestant for each: images are stopped once a step changes them by no more.
        lenders: folders of comparisons that differ in the policy alone; who depends on none is not drawn again.

    Raises:
        UsageError: policy, prompts, samplers or folder can't be used; nothing is drawn then.
        RolloutError: images could not be finished.
    """
    policy = read_policy(order.policies[0])
    asked = policy.config(list(overrides))
    config = _for_images(asked)
    order = replace(order, prompts=order.prompts or f"{config.prompts.source}/test")
    prompts = evaluation_prompts(order.prompts, config, limit=order.limit)
    extra = (
        literature(config, lcm_lora=order.lcm_lora, sdxl_turbo=order.sdxl_turbo) if order.literature else Literature()
    )
    plan = make_plan(order, config, extra, converged_at)
    if order.bank is not None:
        bank = open_bank(order.bank, asked)
        bank.require_one_setting("A comparison")
        plan = replace(plan, bank=bank)
    cases = make_cases(prompts, repeats=order.repeats, seed=config.run.seed)
    path = folder_of(order)
    check_models(config)
    manifest = _manifest(order, policy, config, prompts)
    _check_folder(path, manifest)
    refuse_if_held(path)
    view = RunView(console, iterations=1)
    view.say(f"{policy.name} on {len(prompts)} prompts x {order.repeats} seeds; results go to {path}")
    start = datetime.now(UTC)
    with ExitStack() as stack:
        stack.enter_context(view)
        with view.progress("starting"):
            components = stack.enter_context(roles(config))
        policy.check_fits(config, observation_width(config, components.scoring))
        make_folder(path)
        stack.enter_context(locked(path))
        write_text(path / MANIFEST, manifest)
        components.keep_reports(path)
        store = ResultStore(path, lenders=[one for one in lenders if _differ_in_policy(one, manifest)])
        with stages(view.console) as stage:
            runner = _runner(order, config, policies_of(policy.weights, plan.others), components, store, extra)
            result = compare_all(plan, runner, cases, reward=asked.reward, stage=stage)
        facts = {
            "policy": policy.name,
            "prompt_set": order.prompts,
            "command": evaluate_command(order, overrides),
            "reward_hacking": (hacking := reward_hacking(result, asked.reward)),
        }
        with view.progress("tables and figures"):
            summary = finish_folder(path, result, cases, facts=facts)
    if hacking is not None:
        view.say(f"warning: {hacking}")
    view.say(f"{duration((datetime.now(UTC) - start).total_seconds())} in all")
    return Evaluated(path=path, summary=summary, result=result)


def folder_of(order: EvaluateOrder) -> Path:
    """Where a comparison goes."""
    return order.out or Path("evaluations") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def evaluation_prompts(source: str, config: Config, *, limit: int) -> tuple[Prompt, ...]:
    """The prompts ``SOURCE[/SPLIT]`` names: ``embedded/test``, or a prompt file, of which the test split is taken.

    Raises:
        PromptError: there are no such prompts.
    """
    name, split = source, "test"
    head, _, tail = source.rpartition("/")
    if head and tail in get_args(Split) and not Path(source).exists():
        name, split = head, tail
    section = config.prompts.model_copy(update={"source": name})
    return load_prompts(section, split=_split(split), count=limit, seed=config.run.seed)


def make_plan(order: EvaluateOrder, config: Config, extra: Literature, converged_at: Sequence[float]) -> ComparisonPlan:
    """Who takes part.

    Args:
        order: samplers, prices, actions to go without, stops and oracles that were asked for.
        config: of the policy.
        extra: baselines with loops or weights of their own.
        converged_at: a contestant for each: images are stopped once a step changes them by no more.

    Raises:
        UsageError: the name of a sampler, an action or a hand-made opponent is none.
    """
    sampler = config.sampler
    chosen = order.samplers if order.samplers is not None else () if order.quick else default_statics(config)
    matched = chosen or matched_statics(config)
    others: list[Contestant] = [
        agent(sampler, policy=0, name=f"price-{price:g}", title=f"agent at price {price:g}", c_nfe=price)
        for price in order.prices
    ]
    others += [without(names, config) for names in order.without]
    others += [static(name, sampler) for name in chosen]
    others += [handmade(name, sampler) for name in order.handmade]
    if not order.quick:
        others += [converged(change, sampler) for change in converged_at]
        if order.best_of > 1:
            others.append(best_of(order.best_of, static(matched[0], sampler)))
    others += () if order.quick else extra.contestants
    return ComparisonPlan(
        skipped={} if order.quick else extra.skipped,
        agent=agent(sampler, policy=0, name="agent", title="agent", c_nfe=config.reward.c_nfe),
        others=tuple(others),
        solvers=_solvers(matched),
        stops=stop_grid(config, order.stops),
        oracles=order.oracles,
        timed=not order.quick,
        refine_passes=config.refine.k if "refine" in config.policy.actions else None,
        margin=order.margin,
    )


def stop_grid(config: Config, count: int) -> tuple[int, ...]:
    """``count`` schedule indices from the first decision to the last before the end, in equal ratios."""
    first, last = config.sampler.warmup_steps, config.sampler.num_steps - 1
    if count == 0 or last <= first:
        return ()
    ratio = (last / first) ** (1 / count)
    return tuple(sorted({min(last - 1, round(first * ratio**number)) for number in range(count)}))


def _solvers(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition("-")[0] for name in names))


def _split(name: str) -> Split:
    return next(split for split in get_args(Split) if split == name)


def _for_images(config: Config) -> Config:
    """Unpaid while images are drawn; scores that are known already would make later contestants faster."""
    config = unpaid(config)
    scorers = config.scorers.model_copy(update={"cache_images": 0})
    return config.model_copy(update={"scorers": scorers})


def _runner(
    order: EvaluateOrder,
    config: Config,
    policies: Mapping[int, PolicyState],
    components: Components,
    store: ResultStore,
    extra: Literature,
) -> ComparisonRunner:
    made = {} if order.quick else {one.name: components.baseline(one) for one in extra.baselines}
    return ComparisonRunner(
        rollouts={ENGINE: components.rollouts, **made},
        scoring=components.scoring,
        store=store,
        policies=policies,
        seed=config.run.seed,
        chunk_size=_CHUNK_ROUNDS * config.rollout.slots,
        films=order.films,
        scenes=order.prompts.startswith("embedded") and set(METRIC_NAMES) <= set(components.scoring.names),
    )


def _manifest(order: EvaluateOrder, policy: TrainedPolicy, config: Config, prompts: Sequence[Prompt]) -> str:
    """What makes a comparison this one, as JSON; what came to it later only where it is set."""
    model = config.backbone.model_dump(mode="json", include=set(IMAGE_KEYS))
    later = BackboneSection().model_dump(
        mode="json", include=set(IMAGE_KEYS) - {"kind", "path", "guidance_scale", "lora"}
    )
    manifest = {
        "policy": _digest(policy),
        "sampler": config.sampler.identity(),
        "backbone": {key: value for key, value in model.items() if key not in later or value != later[key]},
        "refine": config.refine.model_dump(mode="json"),
        "seed": config.run.seed,
        "prompts": hashlib.sha256(json.dumps([prompt.text for prompt in prompts]).encode()).hexdigest(),
        "repeats": order.repeats,
    }
    return json.dumps(manifest, indent=1, sort_keys=True)


def _check_folder(path: Path, manifest: str) -> None:
    """Make sure that the folder is new, or holds this very comparison."""
    file = path / MANIFEST
    if file.is_file() and file.read_text(encoding="utf-8") != manifest:
        raise RunFolderError(
            f"{path} holds a comparison of another policy, other prompts or other settings: give another --out.",
            path=str(path),
        )
    if not (file.is_file() or is_vacant(path)):
        raise RunFolderError(f"{path} holds something else than a comparison: give another --out.", path=str(path))


def _differ_in_policy(folder: Path, manifest: str) -> bool:
    """Whether a folder's comparison differs from another in the policy at most."""
    file = folder / MANIFEST
    if not file.is_file():
        return False
    theirs, ours = (json.loads(text) | {"policy": None} for text in (file.read_text(encoding="utf-8"), manifest))
    return theirs == ours


def _digest(policy: TrainedPolicy) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(policy.weights.items()):
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()
