"""Files of model weights: read without executing anything, and taken only if they fill a model exactly."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType] - a bare PathLike
from torch import Tensor, nn

from addiffusion.errors import WeightsError

LOAD_FAILURES: Final = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What the model libraries raise on files that are missing, damaged, of another model, or more than tensors."""
_CONSTANT: Final = "position_ids"
"""A range of numbers that older libraries saved with a model: nothing is lost where it is left over or missing."""


def read_tensors(path: Path, *, advice: str = "get it again") -> dict[str, Tensor]:
    """The tensors in a safetensors or PyTorch file; a checkpoint's own ``state_dict`` is unwrapped.

    Args:
        path: the file.
        advice: what to do where it can't be read, as the end of a sentence without a full stop.

    Raises:
        WeightsError: the file is missing, empty, cut off, or holds more than tensors.
    """
    try:
        content: Any = _content(path)
    except LOAD_FAILURES as error:
        raise _unread(path, gist(error), advice) from error
    whole = cast("dict[str, Any]", content if isinstance(content, dict) else {})
    tensors: dict[str, Any] = whole.get("state_dict", whole)
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise _unread(path, "it holds no tensors by name", advice)
    return tensors


def _unread(path: Path, reason: str, advice: str) -> WeightsError:
    return WeightsError(
        f"{path} can't be read as a file of tensors ({reason}): {advice}.",
        path=str(path),
        reason=reason,
    )


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def misfit(model: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """Why these tensors do not fill ``model`` exactly, with the first one that does not; None if they do."""
    expected = model.state_dict()
    return named_misfit(
        missing=expected.keys() - tensors.keys(),
        unexpected=tensors.keys() - expected.keys(),
        mismatched=_mismatched(expected, tensors),
    )


def resized(model: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """What a library has resized to fit ``model``: tensors of two axes or more that have its names, not its shapes."""
    return named_misfit(mismatched=[found for found in _mismatched(model.state_dict(), tensors) if len(found[2]) > 1])


def _mismatched(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> list[tuple[str, torch.Size, torch.Size]]:
    return [
        (name, tensors[name].shape, tensor.shape)
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]


def reported_misfit(report: Mapping[str, Any]) -> str | None:
    """The same from what ``from_pretrained(..., output_loading_info=True)`` of diffusers or transformers reports."""
    reason = named_misfit(
        missing=report["missing_keys"],
        unexpected=report["unexpected_keys"],
        mismatched=report["mismatched_keys"],
    )
    messages = list(report.get("error_msgs") or ())
    return reason or (str(messages[0]) if messages else None)


def load_whole(kind: Any, source: str | Path, *, part: str, named: str, advice: str, **options: Any) -> Any:
    """A model of diffusers or transformers whose files fill it exactly.

    Args:
        kind: its class.
        source: folder or hub id.
        part: the model, e.g. ``the text encoder``.
        named: where the weights lie, for messages.
        advice: what to do where they do not fit, as the end of a sentence without a full stop.
        **options: of ``from_pretrained``.

    Raises:
        WeightsError: a tensor is missing, left over or of another shape.
    """
    # Sizes are let through so that the report names them; transformers only logs them else.
    checks = {"low_cpu_mem_usage": False, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = kind.from_pretrained(source, **options, **checks)
    require_fit(reported_misfit(report), part=part, source=named, advice=advice)
    return model


def named_misfit(
    *,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]] = (),
) -> str | None:
    """The first name of each kind, and how many there are; None without any.

    Args:
        missing: tensors of the model that the file lacks.
        unexpected: tensors of the file that the model has no place for.
        mismatched: name, shape in the file and shape in the model.
    """
    reasons = [
        *_of_kind("is missing", [name for name in missing if not name.endswith(_CONSTANT)]),
        *_of_kind("has no place in the model", [name for name in unexpected if not name.endswith(_CONSTANT)]),
    ]
    shapes = {name: f"is of shape {_shape(file)}, not {_shape(model)}" for name, file, model in mismatched}
    reasons += _of_kind(shapes[min(shapes)], list(shapes)) if shapes else []
    return "; ".join(reasons) or None


def require_fit(reason: str | None, *, part: str, source: Path | str, advice: str) -> None:
    """Refuse weights for ``reason``; None takes them.

    Args:
        reason: what ``misfit`` or ``reported_misfit`` gives.
        part: the model they are for, e.g. ``the text encoder``.
        source: their file, folder or hub repository.
        advice: what to do, as the end of a sentence without a full stop.

    Raises:
        WeightsError: there is a reason; it names part and first tensor.
    """
    if reason is not None:
        raise WeightsError(
            f"The weights of {part} in {source} do not fit it ({reason}): {advice}.",
            part=part,
            source=str(source),
            reason=reason,
        )


def fill(model: nn.Module, tensors: Mapping[str, Tensor], *, part: str, source: Path | str, advice: str) -> None:
    """Give ``model`` exactly these tensors.

    Args:
        model: is changed.
        tensors: by their name in ``model``.
        part: name of the model in errors.
        source: where the tensors are from, in errors.
        advice: what to do, in errors.

    Raises:
        WeightsError: names or shapes do not fit.
    """
    require_fit(misfit(model, tensors), part=part, source=source, advice=advice)
    model.load_state_dict(dict(tensors), strict=False)  # checked above; a constant may be left over


def gist(error: BaseException) -> str:
    """The beginning of a library's error, for a sentence of our own.

    Its first line, with the next one where that ends in a colon; of a list of names only the first.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    first, *others = text.split('", "')
    return f'{first}", ...' if others else first.rstrip(".: ")


def _of_kind(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    others = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"tensor {min(names)!r} {what}{others}"]


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
