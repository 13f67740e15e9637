"""Who takes part in a comparison, and what each of its tickets says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack, get_args

from addiffusion.actions import Action
from addiffusion.config import Config, SamplerSection
from addiffusion.config.sampling import SOLVER_TITLES, Solver
from addiffusion.errors import UsageError
from addiffusion.records import Prompt, Reference, StopRule, Ticket, TicketId, TicketOptions
from addiffusion.seeds import derive_seed
from addiffusion.setting import Setting

ENGINE = "engine"
_SCALE = re.compile(r"\d+(\.\d+)?")
Kind = Literal["agent", "ablated", "static", "control", "search", "oracle", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalCase:
    """One image everybody draws: a prompt and a seed."""

    index: int
    prompt: Prompt
    repeat: int
    """Which of the prompt's seeds: 0, 1, ..."""
    seed: int
    setting: Setting | None = None
    """What it is drawn with; what that leaves open, or None, is the contestant's sampler and the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to draw the cases through the engine."""

    name: str
    """Key in files and JSON; names a folder, so lower case without spaces."""
    title: str
    kind: Kind
    sampler: SamplerSection
    via: str = ENGINE
    """Who draws it: the engine of the agent's own model, or a baseline with a pipeline of its own."""
    policy: int | None = None
    """Which of the policies decides: the actions it goes without, a bit each; None: nobody does."""
    c_nfe: float = 0.0
    """Price of an NFE the policy is told."""
    stop_steps: tuple[int, ...] | None = None
    """Schedule index at which each case stops, by case index; one that the schedule does not reach never stops."""
    refine_last: bool = False
    """The decision before such a stop is a refine."""
    change_below: float | None = None
    """Stops where z0_pred changes by less than this share."""
    script: tuple[Action, ...] | None = None
    """Action at each schedule index, where it can be taken."""
    draws: int = 1
    """Images per case, of which the best by CLIP score is kept; seeds after the first are its own."""
    abandon_at: int | None = None
    """Schedule index at which the best draw is known by the CLIP score of its prediction; the others end there."""
    redraw_below: float | None = None
    """With ``abandon_at``: not the best goes on, but the first whose score there is not below this, else the last."""
    guidance_scale: float | None = None
    """Its own; None: that of the case, or of the run."""
    repeats: int | None = None
    """Draws only the first so many seeds of each prompt; None: all."""

    def as_json(self) -> dict[str, Any]:
        """What decides about its images: a resumed comparison must find the same."""
        later = {name: getattr(self, name) for name in ("script", "abandon_at", "redraw_below", "guidance_scale")}
        return {
            "name": self.name,
            "via": self.via,
            "sampler": self.sampler.identity(),
            "policy": self.policy,
            "c_nfe": self.c_nfe,
            "stop_steps": self.stop_steps,
            "refine_last": self.refine_last,
            "change_below": self.change_below,
            "draws": self.draws,
        } | {name: value for name, value in later.items() if value is not None}

    def takes(self, case: EvalCase) -> bool:
        """Whether it draws a case."""
        return self.repeats is None or case.repeat < self.repeats


def make_cases(prompts: Sequence[Prompt], *, repeats: int, seed: int) -> list[EvalCase]:
    """Every prompt with each of its seeds. The seeds of repeat 0 are those of the table after a training."""
    pairs = [(prompt, repeat) for repeat in range(repeats) for prompt in prompts]
    return [
        EvalCase(index=index, prompt=prompt, repeat=repeat, seed=_image_seed(seed, prompt, repeat))
        for index, (prompt, repeat) in enumerate(pairs)
    ]


def cases_of(pairs: Iterable[tuple[Prompt, int]]) -> list[EvalCase]:
    """Cases of (prompt, seed) pairs that somebody else has chosen, in their order."""
    return [EvalCase(index=index, prompt=prompt, repeat=0, seed=seed) for index, (prompt, seed) in enumerate(pairs)]


def tickets_of(
    contestant: Contestant,
    cases: Sequence[EvalCase],
    *,
    films: int = 0,
    references: Mapping[int, Reference | None] | None = None,
) -> list[Ticket]:
    """``draws`` tickets per case; ticket ``index * draws + n`` is the n-th draw.

    Args:
        contestant: who draws.
        cases: prompts and seeds.
        films: an agent's tickets of the first so many cases keep their frames.
        references: by index of the case.
    """
    known = references or {}
    return [
        _ticket(
            contestant,
            case,
            draw,
            reference=known.get(case.index),
            setting=_setting(contestant, case),
            keep_frames=contestant.kind == "agent" and case.index < films,
        )
        for case in cases
        for draw in range(contestant.draws)
    ]


def _setting(contestant: Contestant, case: EvalCase) -> Setting | None:
    scale = contestant.guidance_scale
    return case.setting if scale is None else replace(case.setting or Setting(), guidance_scale=scale)


def _ticket(contestant: Contestant, case: EvalCase, draw: int, **options: Unpack[TicketOptions]) -> Ticket:
    number, price = TicketId(case.index * contestant.draws + draw), contestant.c_nfe
    seed = case.seed if draw == 0 else derive_seed(case.seed, "search", draw)
    if contestant.policy is not None:
        return Ticket.greedy(number, case.prompt, seed=seed, c_nfe=price, **options)
    rule = _rule(contestant, case)
    ticket = Ticket.full_length(number, case.prompt, seed=seed, c_nfe=price, stop_rule=rule, **options)
    return ticket if contestant.script is None else replace(ticket, script=contestant.script)


def full_run(sampler: SamplerSection) -> Contestant:
    """Always continue: the whole schedule of the agent's own sampler."""
    return Contestant(name="full", title=f"always continue ({sampler.num_steps})", kind="control", sampler=sampler)


def agent(sampler: SamplerSection, *, policy: int, name: str, title: str, c_nfe: float) -> Contestant:
    """A policy's likeliest actions.

    Args:
        sampler: the schedule that it decides on, and its finish.
        policy: as of ``Contestant``.
        name: key in files and JSON; lower case without spaces.
        title: what tables and figures call it.
        c_nfe: price of an NFE the policy is told.
    """
    return Contestant(name=name, title=title, kind="agent", sampler=sampler, policy=policy, c_nfe=c_nfe)


def static(text: str, sampler: SamplerSection) -> Contestant:
    """A static sampler by its name: `ddim-20`, `dpm++2m-12`, or `ddim-20@3.5` with a guidance scale of its own.

    Raises:
        UsageError: it is no solver and number of steps.
    """
    name, at, scale = text.partition("@")
    solver, _, steps = name.rpartition("-")
    solvers = [name for name in get_args(Solver) if name != "pipeline"]
    if solver not in solvers or not steps.isdigit() or int(steps) < 2 or (at and not _SCALE.fullmatch(scale)):
        raise UsageError(
            f"{text!r} is no static sampler: give SOLVER-STEPS such as ddim-20, with at least 2 steps and one of "
            f"{', '.join(solvers)}, or SOLVER-STEPS@GUIDANCE such as ddim-20@3.5.",
            sampler=text,
        )
    section = sampler.model_copy(
        update={"solver": solver, "num_steps": int(steps), "warmup_steps": 1, "finish_steps": 0, "leap_steps": None}
    )
    own = float(scale) if at else None
    return Contestant(name=text, title=static_title(text), kind="static", sampler=section, guidance_scale=own)


def static_title(name: str) -> str:
    """How a static sampler is written: `DPM-Solver++-12` for `dpm++2m-12`, `DDIM-9, guidance 3.5` for `ddim-9@3.5`."""
    plain, at, scale = name.partition("@")
    solver, _, steps = plain.rpartition("-")
    return f"{SOLVER_TITLES.get(solver, solver)}-{steps}{f', guidance {scale}' if at else ''}"


def best_of(draws: int, sampler: Contestant) -> Contestant:
    """Random search: as many seeds of a static sampler, the best by CLIP score kept; on the first seed only."""
    return Contestant(
        name=f"best-of-{draws}-{sampler.name}",
        title=f"best of {draws} {sampler.title}",
        kind="search",
        sampler=sampler.sampler,
        draws=draws,
        repeats=1,
    )


def converged(change_below: float, sampler: SamplerSection) -> Contestant:
    """Stop where successive predictions barely differ."""
    return Contestant(
        name=f"converged-{change_below:g}",
        title=f"stop at change < {change_below:g}",
        kind="control",
        sampler=sampler,
        change_below=change_below,
    )


def fixed_stop(step: int, sampler: SamplerSection) -> Contestant:
    """Every image stops after the same step, with the agent's own finish."""
    return Contestant(
        name=f"stop-at-{step}",
        title=f"stop at step {step}",
        kind="control",
        sampler=sampler,
        stop_steps=(step,),
    )


def _rule(contestant: Contestant, case: EvalCase) -> StopRule | None:
    steps = contestant.stop_steps
    if steps is not None:
        return StopRule(at_step=steps[case.index % len(steps)], refine_last=contestant.refine_last)
    return None if contestant.change_below is None else StopRule(change_below=contestant.change_below)


def _image_seed(seed: int, prompt: Prompt, repeat: int) -> int:
    place = () if repeat == 0 else (repeat,)
    return derive_seed(seed, "holdout", prompt.prompt_id, *place)


def default_statics(config: Config) -> tuple[str, ...]:
    """The samplers of the field at their usual step counts, as far as the model's family knows them."""
    if config.sampler.solver == "flow_euler":
        return ("flow_euler-20", "flow_euler-50")
    return ("ddim-20", "ddim-50", "dpm++2m-20", "dpm++2m-50", "euler-20", "unipc2-20", "pndm-20")


def matched_statics(config: Config) -> tuple[str, ...]:
    """Those whose solvers run with the agent's NFE where no sampler is asked for; a flow knows its own alone."""
    return ("flow_euler-20",) if config.sampler.solver == "flow_euler" else ("ddim-20", "dpm++2m-20")
