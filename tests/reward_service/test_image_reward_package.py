"""The original ImageReward package beside the re-hosted model, and the way to its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch

from addiffusion.config import ScorersSection
from addiffusion.config.scorers import ImageRewardSection
from addiffusion.errors import ConfigError, ScorerError
from addiffusion.scorers.families import load_suite
from addiffusion.scorers.image_reward import ImageRewardModel, rehosted
from reward_service.image_reward.actor import IsolatedImageReward
from tests.addiffusion.scorers.test_image_reward import TINY, golden_checkpoint
from tests.addiffusion.scorers.tiny_scorers import batch_of, pictures

PYTHON_VARIABLE = "ADDIFFUSION_IMAGE_REWARD_PYTHON"
ISOLATED_PYTHON = os.environ.get(PYTHON_VARIABLE, "")
SCRIPT = Path(__file__).with_name("original_image_reward.py")


def section_for(folder: Path, python: str) -> ScorersSection:
    return ScorersSection(
        kind="pretrained",
        device="cpu",
        pass_timeout_s=60.0,
        image_reward=ImageRewardSection(backend="package", weights=str(folder), python=python),
    )


@pytest.mark.skipif(
    not Path(ISOLATED_PYTHON).is_file(),
    reason=f"needs the environment of scripts/image_reward_env.sh; set {PYTHON_VARIABLE} to its interpreter",
)
@pytest.mark.parametrize("seed", range(3))
def test_the_rehosted_model_equals_the_package(tmp_path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = ImageRewardModel(TINY).eval()
    checkpoint = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in golden_checkpoint(model).items()
    }
    pixels = torch.randn(3, 3, 224, 224, generator=generator)
    ids = torch.randint(1, 64, (3, 35), generator=generator)
    mask = (torch.arange(35) < torch.tensor([[5], [20], [35]])).long()
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    torch.save((pixels, ids, mask), tmp_path / "inputs.pt")
    command = [ISOLATED_PYTHON, SCRIPT, tmp_path / "checkpoint.pt", tmp_path / "inputs.pt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    model.load_state_dict(rehosted(checkpoint))
    with torch.inference_mode():
        ours = model(pixels, ids, mask)
    theirs = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


STAND_IN = '''
"""A stand-in with the package's interface: the score is the mean of the pixels, times the number of tokens."""

from types import SimpleNamespace

import numpy as np
import torch


class Model:
    blip = SimpleNamespace()

    def __init__(self):
        self.blip.tokenizer = self.tokenize

    @staticmethod
    def preprocess(image):
        return torch.from_numpy(np.asarray(image)).float().permute(2, 0, 1) / 255

    @staticmethod
    def tokenize(prompts, padding, truncation, max_length, return_tensors):
        assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
        mask = torch.tensor([[1] * len(p.split()) + [0] * (max_length - len(p.split())) for p in prompts])
        return SimpleNamespace(input_ids=mask, attention_mask=mask)

    @staticmethod
    def score_gard(ids, mask, pixels):
        if (pixels == 1).all():
            raise RuntimeError("white is no picture")
        return pixels.mean(dim=(1, 2, 3))[:, None] * mask.sum(dim=1, keepdim=True)


def load(weights, device, med_config):
    assert weights.endswith("ImageReward.pt") and device == "cpu" and med_config is None
    return Model()
'''


def test_the_package_is_reached_through_its_own_interpreter(ray_cluster: str, tmp_path: Path) -> None:
    """Another interpreter that has the package and Ray, but not this project: a venv that sees this one's libraries."""
    (tmp_path / "ImageReward.pt").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    (site / "ImageReward.py").write_text(STAND_IN)
    (site / "libraries.pth").write_text(str(Path(ray.__file__).parents[1]))
    scorer = IsolatedImageReward(section_for(tmp_path, str(tmp_path / "env" / "bin" / "python")))
    images = pictures(8, 8)
    scores = scorer.score(batch_of(images), ("one", "and two", "now all three"))
    expected = torch.from_numpy(images.mean(axis=(1, 2, 3)) / 255).float() * torch.tensor([1, 2, 3])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    white = pictures(8, 8)
    white[:] = 255
    with pytest.raises(ScorerError, match=r"in its own process: .*white is no picture"):
        scorer.score(batch_of(white), ("a", "b", "c"))


def test_an_environment_that_was_not_made_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"python=/absent is no interpreter.*scripts/image_reward_env\.sh"):
        IsolatedImageReward(section_for(tmp_path, "/absent"))


def test_a_serial_run_cant_use_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"which only the reward\s+service can start: set cluster\.mode=ray"):
        load_suite(section_for(tmp_path, sys.executable))
