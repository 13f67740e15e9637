"""What a results page says of its making."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from inspect import signature
from typing import Any, get_args

import torch
from typer.models import OptionInfo

from launch.comparing.comparison_orders import EvaluateOrder, ParetoOrder, ResultsOrder, SettingsOrder


def machine() -> str:
    """Processor or GPU, in words that name no host."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{os.cpu_count()} cores ({platform.machine()})"


def command_of(
    name: str, order: Any, overrides: Sequence[str] = (), *, told: Sequence[str], unsaid: Sequence[str]
) -> str:
    """The command line that asks for the same again.

    Args:
        name: of the command.
        order: a dataclass whose fields are the command's options.
        overrides: of the configuration.
        told: fields that are there with their default, too.
        unsaid: fields that say where results go, which is up to whoever makes them again.
    """
    words = [f"addiffusion {name}"]
    for field, option in signature(type(order), eval_str=True).parameters.items():
        value = getattr(order, field)
        if field in told or (value != option.default and field not in unsaid):
            words += _option(field, option.annotation, value)
    return " ".join([*words, *map(shlex.quote, overrides)])


def _option(field: str, hint: Any, value: Any) -> list[str]:
    """One option with its value, or with each of its values."""
    options = [one for one in get_args(hint) if isinstance(one, OptionInfo)]
    # Beside Annotated there is no default here, so that the first of the names stands in its place.
    declared = [str(name) for one in options for name in (one.default, *(one.param_decls or ()))]
    name = next((one for one in declared if one.startswith("--")), f"--{field.replace('_', '-')}")
    if isinstance(value, bool):
        return [name if value else name.replace("--", "--no-", 1)]
    return [f"{name} {shlex.quote(str(one))}" for one in (value if isinstance(value, tuple) else [value])]


def result_command(order: ResultsOrder, overrides: Sequence[str] = ()) -> str:
    """The command that makes the page again."""
    told = ("policy", "limit", "repeats")
    return command_of("results", order, overrides, told=told, unsaid=("comparison", "page"))


def pareto_command(order: ParetoOrder, overrides: Sequence[str] = ()) -> str:
    """The command that makes the section about hand-made opponents again."""
    return command_of("pareto", order, overrides, told=("policy", "limit"), unsaid=("comparison", "page"))


def settings_command(order: SettingsOrder, overrides: Sequence[str] = ()) -> str:
    """The command that makes the section about settings again."""
    told = ("policies", "limit", "guidance", "steps")
    return command_of("settings", order, overrides, told=told, unsaid=("comparison", "page"))


def evaluate_command(order: EvaluateOrder, overrides: Sequence[str] = ()) -> str:
    """The command that makes a comparison again."""
    return command_of("evaluate", order, overrides, told=("policies", "prompts", "limit", "repeats"), unsaid=("out",))
