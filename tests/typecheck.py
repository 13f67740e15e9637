"""The run-time check of annotations under pytest: an int may stand where a float is asked for, as PEP 484 has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_shapes_checked = jaxtyping.jaxtyped
_CALL: Any = jaxtyping.jaxtyped("context")
"""A scope of named axes; holds nothing itself, so one serves all calls."""
_SHAPES = object()
"""Of an annotation that can't be resolved but has a shape."""


def _checked_as_needed(part: Any = None, /, *, typechecker: Callable[..., Any]) -> Any:
    """What jaxtyping's import hook decorates with: beartype, within a scope of shapes where an annotation has one.

    jaxtyping's own decorator binds the arguments of every call and checks them twice, which takes more time than most
    of the functions; it is left with what beartype can't resolve and with generators.
    """
    if part is None:
        return lambda decorated: _checked_as_needed(decorated, typechecker=typechecker)
    if inspect.isclass(part):
        if is_dataclass(part):
            part.__init__ = _checked_as_needed(part.__init__, typechecker=typechecker)
        return part
    if inspect.isfunction(part):
        hints = {name: _resolved(hint, part) for name, hint in part.__annotations__.items()}
        shaped = [hint for hint in hints.values() if _has_shape(hint)]
        if not shaped or (_SHAPES not in shaped and not _runs_later(part)):
            part.__annotations__ = hints
            try:
                return _shapes_compared(typechecker(part)) if shaped else typechecker(part)
            except BeartypeDecorHintException:  # a method that returns Self, which beartype knows in whole classes only
                pass
    return _shapes_checked(part, typechecker=typechecker)


def _shapes_compared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Axes of one name have one length within a call."""

    @wraps(function)
    def compared(*arguments: Any, **named: Any) -> Any:
        with _CALL:
            return function(*arguments, **named)

    return compared


def _runs_later(function: Callable[..., Any]) -> bool:
    """Whether a call returns before its body has run."""
    return (
        inspect.isgeneratorfunction(function)
        or inspect.iscoroutinefunction(function)
        or (inspect.isasyncgenfunction(function))
    )


def _resolved(hint: object, function: Callable[..., Any]) -> object:
    """What an annotation says; anything, as jaxtyping has it, where a name of it is imported for type checkers only."""
    try:
        return eval(hint, function.__globals__) if isinstance(hint, str) else hint
    except NameError:
        return _SHAPES if '"' in str(hint) else Any


def _has_shape(hint: object) -> bool:
    return hint is _SHAPES or _is_array(hint) or any(_has_shape(part) for part in get_args(hint))


def _is_array(hint: object) -> bool:
    return inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)


jaxtyping.jaxtyped = _checked_as_needed
