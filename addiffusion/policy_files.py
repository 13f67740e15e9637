"""Where trained policies come from: the one that ships, a run, a checkpoint, an exported folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from addiffusion.actions import FIRST_ACTIONS, action_count
from addiffusion.assets import POLICY_FOLDERS
from addiffusion.checkpoint_files import (
    POLICY_FILE,
    STATE_FILE,
    damaged,
    followed,
    latest_checkpoint,
    read_checked,
    read_state,
)
from addiffusion.config import Config
from addiffusion.config.section import expanded
from addiffusion.configuration.files import load_config
from addiffusion.configuration.shown import shown
from addiffusion.configuration.text import to_yaml
from addiffusion.errors import CheckpointError, RunFolderError
from addiffusion.files import make_folder, write_bytes, write_text
from addiffusion.json_object import is_object

CONFIG_FILE, WEIGHTS_FILE = "config.yaml", "policy.safetensors"
CARD_FILE, README_FILE = "policy_card.json", "README.md"
"""The policy card, for programs and for readers."""
RESULT_FILE = "result.json"
"""The table at the end of a training."""
COMPONENT_FILE = "diffusion_pytorch_model.safetensors"
"""Weights of a policy that was saved as a component of a pipeline."""
_NETWORK = "network."
"""What the names of weights begin with there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPolicy:
    """Policy weights and the configuration they were trained with."""

    name: str
    """How a user named it."""
    config_file: Path
    weights: Mapping[str, NDArray[np.float32]]
    card: Mapping[str, Any] | None = None
    """The policy card, where its folder has one; of a run that has ended, what its table tells of one price."""

    def config(self, overrides: list[str]) -> Config:
        """The configuration of its training under ``overrides``.

        Raises:
            ConfigError: a key or value can't be used.
        """
        return load_config([self.config_file], overrides)

    def weights_of_first_actions(self) -> dict[str, NDArray[np.float32]]:
        """Weights of the same network with logits of FIRST_ACTIONS alone: as if the others were forbidden."""
        head, _ = _layer(max(self.weights, key=_layer))
        rows = len(FIRST_ACTIONS)
        return {name: value[:rows] if _layer(name)[0] == head else value for name, value in self.weights.items()}

    def check_fits(self, config: Config, width: int) -> None:
        """Refuse a configuration for which these weights were not trained.

        Args:
            config: what the policy is to be used with.
            width: p, the width of phi under it.

        Raises:
            CheckpointError: they see another number of inputs, have other layers, or decide about other actions.
        """
        seen, *hidden = widths_of(self.weights)
        if (seen, tuple(hidden)) == (width, config.policy.hidden):
            self._check_actions(config.policy.actions)
            return
        sees = f"sees {seen} numbers" if seen != width else f"has hidden layers {hidden}"
        gives = str(width) if seen != width else str(list(config.policy.hidden))
        raise CheckpointError(
            f"The policy {self.name} {sees}, the configuration gives {gives}: leave observation, scorers and "
            "policy.hidden as they were (its own config.yaml has them).",
            policy=self.name,
            seen=seen,
            width=width,
        )

    def _check_actions(self, actions: Sequence[str]) -> None:
        logits, wanted = len(self.weights[max(self.weights, key=_layer)]), action_count(actions)
        if logits != wanted:
            raise CheckpointError(
                f"The policy {self.name} has {logits} logits, but policy.actions=[{','.join(actions)}] need {wanted}: "
                "leave policy.actions as they were (its own config.yaml has them), or train a policy of these.",
                policy=self.name,
            )


def read_policy(name: str) -> TrainedPolicy:
    """A policy that ships by its name, or that of a run folder, a checkpoint folder, or an exported folder.

    Raises:
        RunFolderError: there is none.
        CheckpointError: its files are missing or damaged.
    """
    path = POLICY_FOLDERS.get(name) or followed(_located(name))
    if name in POLICY_FOLDERS and not (path / WEIGHTS_FILE).is_file():
        raise RunFolderError(
            f"There is no policy {name!r} in this installation ({path} has no {WEIGHTS_FILE}): train one with "
            "`addiffusion train`, then give its run folder, or make it the shipped one with "
            f"`addiffusion export RUN --out {path}`.",
            path=str(path),
        )
    for weights_file in (WEIGHTS_FILE, COMPONENT_FILE):
        if (path / weights_file).is_file() and (path / CONFIG_FILE).is_file():
            weights = _read(path / weights_file)
            return TrainedPolicy(
                name=name, config_file=path / CONFIG_FILE, weights=weights, card=_json_object(path / CARD_FILE)
            )
    return _of_run(path, name)


def export_policy(policy: TrainedPolicy, out: Path) -> TrainedPolicy:
    """Write policy and configuration into ``out``: all that is needed to use the policy elsewhere.

    Where the run and its bank were and what machine it had are left out of the configuration.

    Raises:
        OutputError: ``out`` can't be written.
    """
    config = policy.config([])
    portable = config.model_copy(
        update={
            "resume": None,
            "run": config.run.model_copy(update={"dir": None}),
            "warm_start": config.warm_start.model_copy(update={"bank": None}),
            "cluster": Config().cluster,
            "rollout": Config().rollout,
        }
    )
    make_folder(out)
    write_bytes(out / WEIGHTS_FILE, save({name: np.ascontiguousarray(value) for name, value in policy.weights.items()}))
    write_text(out / CONFIG_FILE, to_yaml(portable))
    return TrainedPolicy(name=str(out), config_file=out / CONFIG_FILE, weights=policy.weights)


def _of_run(path: Path, name: str) -> TrainedPolicy:
    checkpoint = path if (path / STATE_FILE).is_file() else None
    home = checkpoint.absolute().parent.parent if checkpoint else path
    if not (home / CONFIG_FILE).is_file():
        raise RunFolderError(f"{home} is no run folder: it has no {CONFIG_FILE}.", path=str(home))
    folder = followed(checkpoint or latest_checkpoint(home))
    checksums: Any = read_state(folder).get("sha256")
    file = folder / POLICY_FILE
    if not is_object(checksums) or POLICY_FILE not in checksums:
        raise damaged(folder / STATE_FILE, f"it has no checksum of {POLICY_FILE}")
    weights = load(read_checked(file, str(checksums[POLICY_FILE])))
    found = TrainedPolicy(name=name, config_file=home / CONFIG_FILE, weights=weights)
    return found if checkpoint else replace(found, card=_card_of_run(home, found))


def _card_of_run(home: Path, trained: TrainedPolicy) -> Mapping[str, Any] | None:
    """A policy card of one price, by the table at the end of a training; None where there is none yet."""
    table = _json_object(home / RESULT_FILE)
    cost = None if table is None else table.get("mean_cost")
    if not isinstance(cost, float):
        return None
    config = trained.config([])
    if config.reward.c_nfe <= 0:
        return None
    return {
        "backbone": str(config.backbone.path or config.backbone.kind),
        "digest": [],
        "full_cost": float(config.sampler.num_steps),
        "prompt_count": config.evaluation.prompt_count,
        "licence": "apache-2.0",
        "facts": {},
        "curve": [{"c_nfe": config.reward.c_nfe, "cost": cost, "steps": config.sampler.num_steps, "scores": {}}],
    }


def _json_object(path: Path) -> Mapping[str, Any] | None:
    """What a file holds; None where there is none, or no object in it."""
    if not path.is_file():
        return None
    try:
        found: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}): restore it, or export the policy again.") from error
    return found if is_object(found) else None


def _located(name: str) -> Path:
    try:
        return expanded(Path(name))
    except ValueError as error:
        raise RunFolderError(f"There is no policy {shown(name)}: {error}.", path=name) from error


def widths_of(weights: Mapping[str, NDArray[np.float32]]) -> list[int]:
    """Inputs of each layer of the policy network, the first one's before all."""
    return [weights[name].shape[1] for name in sorted(weights, key=_layer) if weights[name].ndim == 2] or [0]


def bias_of_head(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """Name of the bias of the policy network's last layer: a number for each action."""
    return max((name for name, values in weights.items() if values.ndim == 1), key=_layer)


def _layer(name: str) -> tuple[int, str]:
    """Layers by number: `layers.10.weight` comes after `layers.2.weight`."""
    numbers = [int(part) for part in name.split(".") if part.isdecimal()]
    return (numbers[0] if numbers else 0, name)


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        return {key.removeprefix(_NETWORK): value for key, value in load(path.read_bytes()).items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The policy {path} can't be read ({error}): export it again.", path=str(path)) from error
