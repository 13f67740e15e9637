"""LoRAs added to the weights against the two small layers they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from addiffusion.backbones import load_backbone
from addiffusion.backbones.lora import fuse_lora, read_lora
from addiffusion.config import BackboneSection
from addiffusion.errors import WeightsError
from tests.addiffusion.tiny_models import make_unet

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
RANK = 2


def make_lora(unet: Any, *, kohya: bool = True) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name in (LINEAR, CONVOLUTION):
        weight = unet.get_submodule(name).weight
        down = torch.randn(RANK, *weight.shape[1:], generator=draws)
        up = torch.randn(weight.shape[0], RANK, *[1] * (weight.dim() - 2), generator=draws)
        if kohya:
            key = "lora_unet_" + name.replace(".", "_")
            parts = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
        else:
            key, parts = f"unet.{name}", {"lora_A.weight": down, "lora_B.weight": up}
        tensors.update({f"{key}.{part}": tensor for part, tensor in parts.items()})
    return tensors


@pytest.mark.parametrize("kohya", [True, False])
def test_a_layer_with_its_lora_is_the_layer_plus_two_small_ones(kohya: bool) -> None:
    torch.manual_seed(0)
    unet = make_unet()
    lora = make_lora(unet, kohya=kohya)
    linear, convolution = unet.get_submodule(LINEAR), unet.get_submodule(CONVOLUTION)
    draws = torch.Generator().manual_seed(1)
    x, image = torch.randn(3, 16, generator=draws), torch.randn(2, 8, 8, 8, generator=draws)
    (down, up), (conv_down, conv_up) = (list(lora.values())[at : at + 2] for at in (0, len(lora) // 2))
    scale = 1 / RANK if kohya else 1.0
    with torch.no_grad():
        expected = linear(x) + scale * x @ down.T @ up.T
        small = torch.conv2d(torch.conv2d(image, conv_down, padding=1), conv_up)
        expected_image = convolution(image) + scale * small
        assert fuse_lora(unet, lora) == 2
        torch.testing.assert_close(linear(x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(convolution(image), expected_image, rtol=1e-4, atol=1e-4)


def test_a_backbone_loads_its_lora(sd15_like: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"kind": "stable_diffusion", "path": str(sd15_like), "device": "cpu"}
    plain = load_backbone(BackboneSection(**options))
    file = tmp_path / "lora.safetensors"
    save_file(make_lora(make_unet()), file)
    changed = load_backbone(BackboneSection(**options, lora=str(file)))
    z, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    hidden = plain.uncond().hidden[None]
    assert not torch.allclose(plain.denoise(z, t, hidden), changed.denoise(z, t, hidden))


def test_files_and_layers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"backbone\.lora='.*absent\.safetensors' can't be read"):
        read_lora(str(tmp_path / "absent.safetensors"))
    with pytest.raises(WeightsError, match="holds no pair of matrices"):
        fuse_lora(make_unet(), {"lora_te_text.lora_up.weight": torch.zeros(1)})
    pair = {
        "lora_unet_nowhere.lora_up.weight": torch.zeros(4, 2),
        "lora_unet_nowhere.lora_down.weight": torch.zeros(2, 4),
    }
    with pytest.raises(WeightsError, match="no layer 'nowhere'"):
        fuse_lora(make_unet(), pair)
    wrong = {key: tensor[:, :1] for key, tensor in make_lora(make_unet()).items() if "down.weight" in key}
    with pytest.raises(WeightsError, match="does not fit its weight"):
        fuse_lora(make_unet(), make_lora(make_unet()) | wrong)
