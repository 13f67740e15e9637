"""`addiffusion export`: the policy card is written beside the policy, and a speed goes by what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from addiffusion import AdaptivePipeline, Policy, load_policy
from addiffusion.backbones.widths import feature_widths
from addiffusion.config import Config
from addiffusion.observation.layout import latent_layout
from addiffusion.pipeline.card import PolicyCard
from addiffusion.policy_files import read_policy
from launch.comparing.export import export, prices
from launch.comparing.orders import ExportOrder


def latent_policy(folder: Path) -> Path:
    """An untrained policy of the embedded model, as a pipeline saves it."""
    config = Config.model_validate(
        {
            "backbone": {"guidance_scale": 2.0},
            "sampler": {"num_steps": 6, "warmup_steps": 1, "finish_steps": 1},
            "observation": {"kind": "latent"},
            "reward": {"preset": "paired", "credit": "final", "c_nfe_range": [0.01, 0.1]},
            "policy": {"hidden": (8,)},
        }
    )
    widths = feature_widths(config.backbone)
    layout = latent_layout(middle_width=widths.middle, text_width=widths.text, timestep_width=128)
    Policy(layout.width, config.model_dump(mode="json")).save_pretrained(folder)
    return folder


def test_the_card_is_measured_and_read(tmp_path: Path) -> None:
    source = latent_policy(tmp_path / "source")
    export(ExportOrder(run=str(source), out=tmp_path / "out", prompts=2))
    card = PolicyCard.of(json.loads((tmp_path / "out" / "policy_card.json").read_text()))
    policy = load_policy(tmp_path / "out")
    assert policy.card == card
    assert [point.c_nfe for point in card.curve] == prices(policy.trained_with)
    assert all(3 <= point.cost <= 20 for point in card.curve)
    assert (card.prompt_count, card.backbone, card.full_cost) == (2, "embedded", 6.0)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| steps of the full run | 6 |" in text
    assert "| observation | latent |" in text
    pipe = AdaptivePipeline.from_pretrained("embedded", policy=policy)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", speed=1.5).nfe[0] <= 20  # pyright: ignore[reportCallIssue]


def test_without_prompts_the_card_has_facts_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = latent_policy(tmp_path / "source")
    exported = export(ExportOrder(run=str(source), out=tmp_path / "out", prompts=0, licence="mit"))
    assert exported.name == str(tmp_path / "out")
    card = load_policy(tmp_path / "out").card
    assert card is not None
    assert (card.curve, card.licence) == ((), "mit")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Not measured: `speed=` knows no price for it" in text
    assert "speed=2" not in text
    assert read_policy(str(tmp_path / "out")).config([]).sampler.num_steps == 6
