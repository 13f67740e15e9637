"""A policy meets a configuration: it fits, or one sentence says what it was trained with."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from addiffusion.config import Config
from addiffusion.errors import CheckpointError, OutputError, RunFolderError
from addiffusion.policy_files import CONFIG_FILE, WEIGHTS_FILE, export_policy, read_policy, widths_of
from launch.comparing.comparison_orders import EvaluateOrder
from launch.comparing.evaluate import evaluate
from launch.comparing.orders import SampleOrder
from launch.comparing.sample import draw
from tests.disks import names, small_disk
from tests.launch.runtime.toy_components import toy_components
from tests.launch.training.toy_policy import toy_policy


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("observation.kind=latent", ["sees 392 numbers, the configuration gives"]),
        ("observation.timestep_width=64", ["sees 392 numbers, the configuration gives 328"]),
        ("policy.hidden=[32]", ["has hidden layers [512, 256], the configuration gives [32]"]),
        ("policy.hidden=[]", ["has hidden layers [512, 256], the configuration gives []"]),
    ],
)
def test_sample_refuses_a_configuration_the_policy_does_not_know(
    tmp_path: Path, override: str, words: list[str]
) -> None:
    order = SampleOrder(prompt="a red circle", seed=0, out=tmp_path / "a.png", policy=Path("shipped"))
    with pytest.raises(CheckpointError) as caught:
        draw(order, files=[], overrides=[override])
    words = ["The policy shipped", "leave observation, scorers and policy.hidden as they were", *words]
    assert [word for word in words if word not in caught.value.message] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("override", ["policy.hidden=[4]", "observation.timestep_width=16"])
def test_evaluate_refuses_it_before_its_folder_exists(tmp_path: Path, override: str) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"toy scene {number}" for number in range(12)))
    policy = toy_policy(tmp_path / "policy")
    order = EvaluateOrder(
        policies=(str(policy),), prompts=str(tmp_path / "prompts.txt"), out=tmp_path / "out", limit=2, literature=False
    )
    with pytest.raises(CheckpointError, match="leave observation, scorers and"):
        evaluate(order, overrides=[override], console=Console(file=io.StringIO()), roles=toy_components)
    assert not (tmp_path / "out").exists()


def test_weights_of_something_else_fit_nothing(tmp_path: Path) -> None:
    folder = toy_policy(tmp_path / "policy")
    save_file({"bias": np.zeros(3, np.float32)}, folder / WEIGHTS_FILE)
    policy = read_policy(str(folder))
    with pytest.raises(CheckpointError, match="sees 0 numbers"):
        policy.check_fits(policy.config([]), 20)


def test_a_policy_of_three_logits_is_not_asked_for_a_redraw(tmp_path: Path) -> None:
    policy = read_policy(str(toy_policy(tmp_path / "policy")))
    six = ["policy.actions=[continue,stop,refine,redraw]"]
    with pytest.raises(CheckpointError, match=r"has 3 logits, but policy.actions=\[.*,redraw\] need 6: leave"):
        policy.check_fits(policy.config(six), widths_of(policy.weights)[0])


def test_the_home_folder_holds_policies_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    toy_policy(tmp_path / "policy")
    assert read_policy("~/policy").config_file == tmp_path / "policy" / CONFIG_FILE
    with pytest.raises(RunFolderError, match="There is no policy '~nosuchuser/p': ~nosuchuser is no user's home"):
        read_policy("~nosuchuser/p")
    with pytest.raises(RunFolderError, match="There is no policy 'aaaa"):
        read_policy("a" * 300)


def test_without_a_shipped_policy_one_sentence_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("addiffusion.policy_files.POLICY_FOLDERS", {"shipped": tmp_path})
    with pytest.raises(RunFolderError, match=r"no policy .shipped. .*addiffusion export RUN --out"):
        read_policy("shipped")


def test_an_exported_policy_is_the_same_without_its_machine(tmp_path: Path) -> None:
    from tests.launch.runtime.toy_components import toy_config  # noqa: PLC0415

    bank = {"bank": "/somewhere/banks/train"}
    config = toy_config(run={"dir": "/somewhere/else"}, rollout={"workers": 7}, warm_start=bank)
    source = toy_policy(tmp_path / "source", config)
    export_policy(read_policy(str(source)), tmp_path / "exported")
    found = read_policy(str(tmp_path / "exported"))
    assert "somewhere" not in found.config_file.read_text()
    assert found.config([]).rollout == Config().rollout
    assert found.config([]).sampler == config.sampler
    expected = read_policy(str(source)).weights
    assert all(np.array_equal(found.weights[name], expected[name]) for name in expected)
    assert len({stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "exported").iterdir()}) == 1  # the umask's
    (tmp_path / "exported" / "policy.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="export it again"):
        read_policy(str(tmp_path / "exported"))


def test_a_policy_that_does_not_fit_the_disk_leaves_nothing_half(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        refused = pytest.raises(OutputError, match=r"policy.safetensors can't be written \(No space left on device\)")
        with refused:
            export_policy(read_policy("shipped"), disk / "out")
        assert names(disk) == ["out"]
