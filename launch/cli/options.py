"""What commands share: options with one meaning everywhere, how an order becomes options, and how a command begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

import typer
from rich.console import Console

from addiffusion.configuration.shown import shown
from addiffusion.errors import PromptError

Command: TypeAlias = Callable[..., None]
AsJson = Annotated[bool, typer.Option("--json", help="Progress on stderr; one JSON object on stdout.")]
Files = Annotated[
    tuple[Path, ...],
    typer.Option("--config", "-c", metavar="FILE", help="YAML file over the shipped defaults; may be repeated."),
]

Overrides = Annotated[
    tuple[str, ...],
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Configuration overrides such as ppo.lr=1.0e-4; `addiffusion config` lists every key.",
    ),
]
Settings = Annotated[
    tuple[str, ...],
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Configuration override such as scorers.kind=pretrained; repeatable."
    ),
]


def typer_command(function: Command) -> Command:
    """``function`` as typer takes it: a parameter that is a dataclass becomes its fields, each an option or argument.

    Fields state type, option and default as parameters do: ``seed: Annotated[int, typer.Option(min=0)] = 0``. Tuples of
    any length, which typer does not know, are lists to it.
    """
    given = signature(function, eval_str=True).parameters
    orders: dict[str, Any] = {name: one.annotation for name, one in given.items() if is_dataclass(one.annotation)}
    taken = [
        _for_typer(one)
        for name, parameter in given.items()
        for one in (signature(orders[name], eval_str=True).parameters.values() if name in orders else [parameter])
    ]

    @wraps(function)
    def command(**values: Any) -> None:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        made = {
            name: order(**{field.name: values.pop(field.name) for field in fields(order)})
            for name, order in orders.items()
        }
        function(**made, **values)

    described: Any = command
    described.__signature__ = Signature(taken)
    described.__annotations__ = {one.name: one.annotation for one in taken}
    return command


def _for_typer(parameter: Parameter) -> Parameter:
    hint = parameter.annotation
    if get_origin(hint) is not Annotated:
        return parameter.replace(annotation=_with_lists(hint))
    inner, *told = get_args(hint)
    return parameter.replace(annotation=Annotated[_with_lists(inner), *told])


def _with_lists(hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return list[inner[0]]
    return Union[tuple(map(_with_lists, inner))] if origin in {Union, UnionType} else hint  # noqa: UP007


def prepared_console(*, as_json: bool = False) -> Console:
    """Where a command shows what it does, on stderr beside JSON; what Ray reads at its import is set."""
    from launch.runtime.cluster import prepare_environment
    from launch.runtime.logging_setup import log_to

    prepare_environment()
    console = Console(stderr=as_json)
    log_to(console)
    return console


def refuse_loose_words(prompt: str, overrides: Sequence[str]) -> None:
    """A prompt that the shell has taken apart: its words stand where overrides do.

    Raises:
        PromptError: an override has no equals sign.
    """
    loose = [word for word in overrides if "=" not in word]
    if loose:
        raise PromptError(
            f"the prompt is {shown(prompt)}, and {shown(' '.join(loose))} after it is no key=value: put a prompt of "
            'several words in quotes, as in `addiffusion sample "a red circle"`.',
            words=loose,
        )


def has_display() -> bool:
    """Whether a browser would have a screen: elsewhere its starter complains, or opens one in the terminal."""
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
