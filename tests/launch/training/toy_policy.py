"""A policy on disk that decides about toy images, for commands that want one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.numpy import save_file

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.configuration.text import to_yaml
from addiffusion.policy import PolicyNetwork
from addiffusion.policy_files import CONFIG_FILE, WEIGHTS_FILE
from launch.runtime.components import observation_width
from tests.fakes import ToyScoring
from tests.launch.runtime.toy_components import toy_config


def toy_policy(folder: Path, config: Config | None = None, *, seed: int = 3) -> Path:
    """An exported policy with random weights; strong enough ones that images differ in what is done to them."""
    config = config or toy_config()
    torch.manual_seed(seed)
    network = PolicyNetwork(observation_width(config, ToyScoring()), config.policy.hidden)
    with torch.no_grad():
        network.layers[-1].weight.mul_(400.0)
        network.layers[-1].bias[Action.CONTINUE] = 1.0
    folder.mkdir(parents=True)
    save_file({name: tensor.numpy() for name, tensor in network.state_dict().items()}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(to_yaml(config))
    return folder
