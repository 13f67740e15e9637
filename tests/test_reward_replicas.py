"""Replicas from counted FLOPs. Counting whole models takes half a minute; here is the arithmetic of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.reward_replicas import ImageCost, gflop, page

COST = ImageCost(guided_pass=1000.0, decode=500.0, preview=100.0, passes=10.0, decisions=4.0)


def test_an_image_costs_its_passes_its_decode_and_what_is_looked_at() -> None:
    assert [COST.worker(one) for one in ("latent", "clip", "clip, previews")] == [10_500, 12_500, 10_900]
    assert [COST.scored(one) for one in ("latent", "clip", "clip, previews")] == [1, 5, 5]


def test_replicas_keep_up_when_they_compute_what_a_worker_sends_them() -> None:
    assert COST.replicas("clip", scorer=250.0, rate=1.0) == pytest.approx(5 * 250 / 12_500)
    assert COST.replicas("clip", scorer=250.0, rate=0.1) == pytest.approx(1.0)


def test_flops_are_counted_without_values() -> None:
    layer = nn.Linear(100, 50, device="meta")
    assert gflop(lambda: layer(torch.empty(4, 100, device="meta"))) == pytest.approx(2 * 4 * 100 * 50 / 1e9)


def test_the_page_has_a_row_for_each_model() -> None:
    text = page({"a model": COST}, {"a scorer": 250.0}, rate=0.1, sustained=100.0)
    assert "| all | 250 |" in text
    assert "| a model | 1.00 | 0.50 | 0.10 | 10 | 4 | 0.10 | 0.0238; 0.24 | 0.1000; 1.00 | 0.1147; 1.15 |" in text
