"""Files of earlier versions mean what they meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from addiffusion import Policy
from addiffusion.config import Config, RolloutSection
from addiffusion.configuration.files import load_config, load_resolved
from addiffusion.errors import ConfigError


@pytest.mark.parametrize("load", [lambda file: load_config([file]), load_resolved])
@pytest.mark.parametrize(
    ("rollout", "scale", "images"),
    [("slots: 6, groups: 2", 3.5, 3), ("slots: 6, groups: 1", 3.5, 6), ("slots: 6, groups: 1", 1, 6)],
)
def test_groups_of_slots_are_rows_now(load: object, rollout: str, scale: float, images: int, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"rollout: {{{rollout}}}\nbackbone: {{guidance_scale: {scale}}}\n")
    config = load(file)  # pyright: ignore[reportCallIssue] - either function
    assert (config.rollout.slots, config.images_per_pass) == (6, images)
    assert config.network_rows == images * (2 if scale > 1 else 1)


def test_a_policy_saved_with_groups_in_a_pipeline_is_that_policy() -> None:
    saved = Config(rollout=RolloutSection(slots=6)).model_dump(mode="json")
    saved["rollout"]["groups"] = 2
    policy = Policy(7, saved)
    assert policy.trained_with.images_per_pass == 3
    assert saved["rollout"]["groups"] == 2, "what it was given is left as it was"


def test_groups_that_are_asked_for_now_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("rollout: {groups: 3}\n")
    for arguments in ([[], ["rollout.groups=2"]], [[file], []]):
        with pytest.raises(ConfigError, match=r"rollout\.groups is gone: rollout\.rows is the size of a network pass"):
            load_config(*arguments)


@pytest.mark.parametrize("rows", [1, 17])
def test_rows_that_hold_no_image_or_more_than_the_slots_are_refused(rows: int) -> None:
    with pytest.raises(ConfigError, match=f"rollout.rows={rows} must be from 2, which one image takes, to 16"):
        load_config([], [f"rollout.rows={rows}", "rollout.slots=8"])
