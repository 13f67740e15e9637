"""The run-time check of annotations under pytest: an int may stand where a float is asked for, as PEP 484 has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_shapes_checked = jaxtyping.jaxtyped


def _checked_as_needed(part: Any = None, /, *, typechecker: Callable[..., Any]) -> Any:
    """What jaxtyping's import hook decorates with: jaxtyping where an annotation has a shape, beartype alone elsewhere.

    jaxtyping binds the arguments of every call, to compare the shapes of several: half of the suite's CPU time, nearly
    all of it in functions without a shape.
    """
    if part is None:
        return lambda decorated: _checked_as_needed(decorated, typechecker=typechecker)
    if inspect.isclass(part):
        if is_dataclass(part):
            part.__init__ = _checked_as_needed(part.__init__, typechecker=typechecker)
        return part
    if inspect.isfunction(part) and not any(_has_shape(hint, part) for hint in part.__annotations__.values()):
        try:
            return typechecker(part)
        except BeartypeDecorHintException:  # a method that returns Self, which beartype knows in whole classes only
            pass
    return _shapes_checked(part, typechecker=typechecker)


def _has_shape(hint: object, function: Callable[..., Any]) -> bool:
    if isinstance(hint, str):
        try:
            hint = eval(hint, function.__globals__)
        except NameError:  # imported for the type checker only
            return '"' in hint
    parts = [part for part in get_args(hint) if not isinstance(part, str)]
    return _is_array(hint) or any(_has_shape(part, function) for part in parts)


def _is_array(hint: object) -> bool:
    return inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)


jaxtyping.jaxtyped = _checked_as_needed
