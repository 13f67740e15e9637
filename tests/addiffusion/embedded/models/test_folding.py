"""Folding batch norms changes neither a network's function nor, after training statistics, its answers."""

from __future__ import annotations

import timm
import torch
from torch import nn

from addiffusion.embedded.models.folding import folded


def trained(model: nn.Module) -> nn.Module:
    """Batch norms with statistics and slopes of their own: folding the initial ones would be no test."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    model.train()
    for _ in range(3):
        model(torch.randn(8, 3, 64, 64) * 2 + 1)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@torch.inference_mode()
def test_a_resnet_answers_as_before() -> None:
    model = trained(timm.create_model("resnet18", pretrained=False, num_classes=7))
    images = torch.randn(4, 3, 64, 64)
    before, normed = model(images), norms(model)
    after = folded(model)(images)
    assert normed > 5
    assert norms(model) == 0
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_norm_that_follows_no_convolution_stays() -> None:
    model = trained(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5)))
    images = torch.randn(2, 3, 9, 9)
    before = model(images)
    torch.testing.assert_close(folded(model)(images), before)
    assert norms(model) == 2
