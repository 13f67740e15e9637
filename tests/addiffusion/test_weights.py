"""Weights fill a model exactly, or are refused by a sentence that names the part and the first tensor."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from addiffusion.errors import WeightsError
from addiffusion.quiet_loading import quiet_loading
from addiffusion.weights import LOAD_FAILURES, fill, gist, misfit, named_misfit, read_tensors, reported_misfit

WHOLE = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in WHOLE.items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (without("bias"), "tensor 'bias' is missing"),
        ({}, "tensor 'bias' is missing, and 1 more"),
        (WHOLE | {"scale": torch.ones(1)}, "tensor 'scale' has no place in the model"),
        (without("bias") | {"beta": torch.ones(2)}, "'bias' is missing; tensor 'beta' has no place in the model"),
        (WHOLE | {"weight": torch.ones(3, 2)}, "tensor 'weight' is of shape 3x2, not 2x3"),
        (WHOLE | {"bias": torch.tensor(1.0)}, "tensor 'bias' is of shape scalar, not 2"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tensors: dict[str, Tensor], reason: str) -> None:
    """Missing, left over, or of another shape; the model keeps what it had."""
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    with pytest.raises(WeightsError) as refused:
        fill(model, tensors, part="the head", source="head.pt", advice="get it again")
    assert reason in refused.value.message
    assert refused.value.message.startswith("The weights of the head in head.pt do not fit it (")
    assert refused.value.message.endswith("): get it again.")
    assert torch.equal(model.weight, before)


def test_weights_that_fit_are_taken() -> None:
    """A range of positions that an older library saved is left over without harm."""
    model = nn.Linear(3, 2)
    fill(model, WHOLE | {"embeddings.position_ids": torch.arange(4)}, part="head", source="x", advice="y")
    assert all(torch.equal(tensor, WHOLE[name]) for name, tensor in model.state_dict().items())
    assert misfit(model, WHOLE) is None
    assert named_misfit(missing=["text.embeddings.position_ids"]) is None


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("damage", ["empty", "cut", "pickle", "text", "missing"])
def test_a_file_that_holds_no_tensors_is_one_sentence(tmp_path: Path, name: str, damage: str) -> None:
    """And nothing of what it holds is executed."""
    path = tmp_path / name
    whole = tmp_path / f"whole-{name}"
    if name.endswith("safetensors"):
        save_file(WHOLE, whole)
    else:
        torch.save(WHOLE, whole)
    contents = {
        "empty": b"",
        "cut": whole.read_bytes()[:-20],
        "pickle": pickle.dumps(Path("executed")),
        "text": b"<html>not found</html>",
    }
    if damage in contents:
        path.write_bytes(contents[damage])
    with pytest.raises(WeightsError, match="can't be read as a file of tensors") as refused:
        read_tensors(path)
    assert str(path) in refused.value.message
    assert "\n" not in refused.value.message


def test_tensors_are_read_from_either_format(tmp_path: Path) -> None:
    """A checkpoint's ``state_dict`` is unwrapped; anything else in its place is refused."""
    save_file(WHOLE, tmp_path / "w.safetensors")
    torch.save({"state_dict": WHOLE, "epoch": 3}, tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    for name in ("w.safetensors", "w.pt"):
        assert misfit(nn.Linear(3, 2), read_tensors(tmp_path / name)) is None
    for name in ("list.pt", "numbers.pt"):
        with pytest.raises(WeightsError, match="it holds no tensors by name"):
            read_tensors(tmp_path / name)


def test_what_transformers_reports_is_a_reason(tmp_path: Path) -> None:
    """It fills what a file lacks with random numbers, and says so only in its report."""
    kind: Any = CLIPTextModel
    model = kind(CLIPTextConfig(vocab_size=10, hidden_size=8, intermediate_size=8, num_attention_heads=2))
    model.save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path / "model.safetensors")
    lost, *_ = sorted(tensors)
    for damaged, reason in (
        (tensors, None),
        ({name: tensor for name, tensor in tensors.items() if name != lost}, f"tensor {lost!r} is missing"),
    ):
        save_file(damaged, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with quiet_loading():
            _, report = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert reported_misfit(report) == reason


def test_the_gist_of_torchs_error_names_the_first_tensor() -> None:
    """It lists every name over several lines."""
    with pytest.raises(LOAD_FAILURES) as failed:
        nn.Linear(3, 2).load_state_dict({})
    assert gist(failed.value) == (
        'Error(s) in loading state_dict for Linear: Missing key(s) in state_dict: "weight", ...'
    )
    assert gist(ValueError()) == "ValueError"
