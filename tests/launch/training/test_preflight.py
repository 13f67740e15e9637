"""What a training can be refused for is refused before its folder exists, in a sentence that names the key."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from addiffusion.backbones import model_files
from addiffusion.backbones.model_files import own_image_size, scheduler_of, scheduler_options
from addiffusion.config import BackboneSection
from addiffusion.configuration.files import load_config
from addiffusion.errors import UsageError, WeightsError
from addiffusion.sampling.solver_tables.build import table_on
from launch.runtime.metrics import BETTER, ROW, checkpoint_score
from launch.training.preflight import prepare
from launch.training.train import run
from tests.addiffusion.tiny_models import save_sd15_like, save_sdxl_like
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan

pytestmark = pytest.mark.usefixtures("figures_once")

TINY = (
    "cluster.mode=serial", "ppo.iterations=1", "ppo.batch_size=4", "prompts.train_count=4",
    "evaluation.prompt_count=3", "run.film_strips=0", "sampler.num_steps=6", "evaluation.static_steps=4",
    "rollout.slots=2", "run.dir=run",
)  # fmt: skip
SMALL = ("backbone.image_size=64", "scorers.kind=embedded")
"""A model that draws what the embedded scorers can judge."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_sd15_like(folder / "sd15")
    save_sdxl_like(folder / "sdxl")
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, where Python finds modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def refused(*overrides: str) -> str:
    """What is said of a configuration; nothing may be written."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(UsageError) as caught:
        prepare([], [*TINY, *overrides])
    assert [path for path in sorted(Path().rglob("*")) if path not in before and "__pycache__" not in path.parts] == []
    message = caught.value.message
    assert message.isprintable()
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.static_steps=5000"], ["evaluation.static_steps is 5000", "at most 1000"]),
        (["sampler.num_steps=5000"], ["sampler.num_steps is 5000", "at most 1000"]),
        (["sampler.num_steps=1000000"], ["sampler.num_steps can't be 1000000"]),
        (["sampler.spacing=karras"], ["sampler.spacing=karras", "use_karras_sigmas"]),
        (["sampler.solver=flow_euler"], ["sampler.solver=flow_euler can't sample this model"]),
        (
            ["sampler.solver=pndm", "sampler.leap_steps=null", "policy.actions=[continue,stop]"],
            ["sampler.solver=pndm does not know rescale_betas_zero_snr"],
        ),
        (["sampler.solver=lcm"], ["sampler.solver=lcm draws noise"]),
        (["backbone.device=nowhere"], ["backbone.device='nowhere' is not available here"]),
        (["backbone.device=meta"], ["backbone.device='meta' computes nothing"]),
        (["scorers.device=cuda:99"], ["scorers.device='cuda:99' is not available here"]),
        (["backbone.compile=cuda_graphs", "backbone.device=cpu"], ["backbone.compile=cuda_graphs needs a GPU"]),
        (["scorers.extra=[no_such_module:factory]"], ["scorers.extra", "no_such_module can't be imported"]),
        (["scorers.extra=[json:no_such_factory]"], ["scorers.extra", "json has no factory no_such_factory"]),
        (["checkpoint.best_metric=retrun"], ["checkpoint.best_metric can't be 'retrun', did you mean return?"]),
        (["checkpoint.best_metric=nosuch"], ["checkpoint.best_metric can't be 'nosuch'", "score_clip", "nfe"]),
        (["checkpoint.best_metric=entropy"], ["checkpoint.best_metric can't be 'entropy'"]),
        (["backbone.lora=absent.safetensors"], ["backbone.lora=absent.safetensors is no file"]),
        (["backbone.preview=./absent"], ["backbone.preview=./absent is no folder"]),
        (
            [
                "warm_start.bank=absent",
                "reward.preset=phase1",
                "reward.bound=null",
                "observation={kind: clip, previews: []}",
            ],
            ["warm_start.bank=absent", "reward.preset=paired"],
        ),
        (["curriculum.simple_iterations=1", "prompts.tiers=[3]"], ["curriculum.simple_iterations"]),
        (["rollout.workers=4000", "cluster.mode=ray"], ["4000 rollout workers"]),
        (["prompts.source=absent.txt"], ["absent.txt"]),
        (["prompts.train_count=1000000000"], ["prompts.train_count can't be"]),
        (["policy.hidden=[-4]"], ["policy.hidden.0 can't be -4"]),
        (["run.dir=~nosuchuser/x"], ["run.dir can't be"]),
        ([f"run.dir={'a' * 300}"], ["run.dir can't be"]),
        (["scorers.image_reward.backend=package"], ["python must be given for backend=package"]),
        (["resume=absent", "ppo.lr=1"], ["resume=absent"]),
    ],
    ids=lambda value: value[0][:50],
)
def test_what_can_not_train_is_refused_before_anything_is_written(
    place: Path, overrides: list[str], words: list[str]
) -> None:
    message = refused(*overrides)
    assert [word for word in words if word not in message] == []


def test_a_scorer_that_fails_while_it_is_imported_is_named(place: Path) -> None:
    (place / "broken_scorer.py").write_text("1 / 0\n")
    assert "broken_scorer can't be imported (ZeroDivisionError" in refused("scorers.extra=[broken_scorer:make]")
    (place / "unreadable_scorer.py").write_text("def make(:\n")
    assert "unreadable_scorer can't be imported (SyntaxError" in refused("scorers.extra=[unreadable_scorer:make]")


def test_on_a_cluster_devices_and_scorers_are_the_nodes_business(place: Path) -> None:
    overrides = ["cluster.mode=ray", "cluster.address=auto", "backbone.device=cuda", "scorers.extra=[on_nodes:make]"]
    assert prepare([], [*TINY, *overrides]).path == Path("run")


@pytest.mark.parametrize("steps", [2, 3, 50, 999, 1000])
def test_the_embedded_model_has_a_schedule_of_every_length(steps: int) -> None:
    config = load_config((), [f"sampler.num_steps={steps}", "sampler.warmup_steps=1", "sampler.finish_steps=0"])
    options = scheduler_options(config.backbone)
    assert options is not None
    scheduler = scheduler_of(options)
    assert scheduler is not None
    assert table_on(scheduler, config.sampler, config.refine).num_steps == steps


@pytest.mark.parametrize(("kind", "name", "pixels"), [("stable_diffusion", "sd15", 16), ("sdxl", "sdxl", 16)])
def test_embedded_scorers_are_refused_for_images_of_another_size(
    place: Path, models: Path, kind: str, name: str, pixels: int
) -> None:
    model = [f"backbone.kind={kind}", f"backbone.path={models / name}"]
    assert own_image_size(BackboneSection(kind="sdxl", path=str(models / name))) == pixels
    message = refused(*model, "scorers.kind=embedded")
    assert f"draws images of {pixels} pixels a side" in message
    keys, first, second = (part for part in message.split("`")[1::2])
    assert keys == "scorers.kind=pretrained prompts.source=prompts.txt"
    (place / "prompts.txt").write_text("a cat\na dog\na cow\n")
    (place / "added.yaml").write_text(f"{first}\n{second}\n")
    fixed = [load_config([], [*model, *keys.split()]), load_config([place / "added.yaml"], model)]
    assert fixed[0] == fixed[1]
    assert prepare([], [*TINY, *model, *keys.split()]).config.scorers.kind == "pretrained"


@pytest.mark.parametrize("kind", ["stable_diffusion", "sdxl", "sd3", "flux"])
def test_a_family_file_with_a_hub_id_is_refused_before_the_model_is_fetched(place: Path, kind: str) -> None:
    message = refused(f"backbone.kind={kind}", "backbone.path=owner/name", "scorers.kind=embedded")
    assert f"backbone.kind={kind} draws images of another size" in message
    assert "`scorers: {kind: pretrained}`" in message


@pytest.mark.parametrize("kind", ["stable_diffusion", "sdxl", "sd3", "flux"])
def test_a_familys_file_brings_its_scorers_and_wants_prompts(place: Path, kind: str) -> None:
    model = [f"backbone.kind={kind}", "backbone.path=owner/name"]
    message = refused(*model)
    assert f"but backbone.kind={kind} draws anything: add `prompts.source=prompts.txt`" in message
    (place / "prompts.txt").write_text("a cat\na dog\na cow\n")
    config = prepare([], [*TINY, *model, message.split("`")[1]]).config
    assert config.scorers.kind == "pretrained"
    full_run = config.reward.c_nfe * load_config([], model).sampler.num_steps
    assert full_run == pytest.approx(0.5, abs=0.01), "as much as of the code's 50 passes"
    assert (config.backbone.dtype == "bfloat16") == (kind != "stable_diffusion")


def test_a_model_of_the_same_size_may_keep_the_embedded_scorers(place: Path, models: Path) -> None:
    model = ["backbone.kind=stable_diffusion", f"backbone.path={models / 'sd15'}", *SMALL]
    assert prepare([], [*TINY, *model]).config.backbone.image_size == 64


def test_a_folder_of_another_family_or_a_file_that_was_cut_is_refused_before_anything_is_started(
    place: Path, models: Path
) -> None:
    message = refused("backbone.kind=sdxl", f"backbone.path={models / 'sd15'}", *SMALL)
    assert (
        "holds a StableDiffusionPipeline, which backbone.kind does not stand for: set backbone.kind=stable" in message
    )
    shutil.copytree(models / "sd15", "broken")
    file = Path("broken/unet/diffusion_pytorch_model.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    message = refused("backbone.kind=stable_diffusion", "backbone.path=./broken", *SMALL)
    assert f"unet can't be loaded from broken/unet ({file.name}: " in message
    message = refused("backbone.kind=stable_diffusion", f"backbone.path={file}", *SMALL)
    assert "is a single file: make a folder of it once, by `python -c" in message


@pytest.mark.parametrize("content", ["{", "[1]", '{"_class_name": "DDIMScheduler", "beta_schedule": "none"}'])
def test_a_damaged_scheduler_file_is_named(place: Path, models: Path, content: str) -> None:
    shutil.copytree(models / "sd15", "broken")
    Path("broken/scheduler/scheduler_config.json").write_text(content)
    message = refused("backbone.kind=stable_diffusion", "backbone.path=./broken", *SMALL)
    assert "scheduler_config.json can't be " in message


@pytest.mark.parametrize(
    "overrides", [["evaluation.static_steps=5000"], ["evaluation.static_steps=1000", "sampler.solver=pndm"]]
)
def test_what_no_file_could_tell_is_refused_in_the_same_words_once_the_model_is_there(
    place: Path, models: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    model = ["backbone.kind=stable_diffusion", f"backbone.path={models / 'sd15'}", *SMALL, *overrides]
    at_once = refused(*model)
    assert "evaluation.static_steps" in at_once
    with monkeypatch.context() as patch:  # as of a hub id, whose files are not here before the model is loaded
        patch.setattr(model_files, "pipeline_folder", lambda section: None)
        plan = prepare([], [*TINY, *model])
    with pytest.raises(UsageError) as caught:
        run(plan, console=Console(file=io.StringIO()))
    assert caught.value.message == at_once
    assert not Path("run").exists()


def test_the_file_of_the_scheduler_is_read_once(place: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(model_files, "read_object", lambda file: read.append(file.name) or json.loads(file.read_text()))
    prepare([], [*TINY, "backbone.kind=stable_diffusion", f"backbone.path={models / 'sd15'}", *SMALL])
    assert read.count("scheduler_config.json") == 1


def test_a_model_that_can_not_be_loaded_leaves_no_folder(place: Path, models: Path) -> None:
    shutil.copytree(models / "sd15", "broken")
    Path("broken/unet/config.json").unlink()
    (place / "lora.safetensors").write_bytes((models / "sd15/vae/diffusion_pytorch_model.safetensors").read_bytes())
    model = ["backbone.kind=stable_diffusion", *SMALL]
    for overrides in (
        ["backbone.path=./broken"],
        [f"backbone.path={models / 'sd15'}", "backbone.lora=lora.safetensors"],
    ):
        plan = prepare([], [*TINY, *model, *overrides])
        with pytest.raises(UsageError):
            run(plan, console=Console(file=io.StringIO()))
        assert not Path("run").exists()


def test_a_run_that_was_begun_with_an_unknown_metric_can_go_on(place: Path) -> None:
    run(toy_plan(Path("run"), toy_config()), console=Console(file=io.StringIO()), roles=toy_components)
    file = Path("run/config.yaml")
    tree = yaml.safe_load(file.read_text())
    tree["checkpoint"]["best_metric"] = "nosuch"
    file.write_text(json.dumps(tree))
    assert prepare([], ["resume=run", "cluster.mode=serial"]).config.checkpoint.best_metric == "nosuch"


def test_metrics_that_tell_a_good_policy_are_those_of_the_table() -> None:
    assert set(BETTER) < {entry.key for entry in ROW}
    assert (BETTER["return"], BETTER["nfe"], BETTER["nfe_tier2"], BETTER["score_clip"]) == (
        "more", "less", "less", "more",
    )  # fmt: skip


def test_the_least_nfe_is_the_best_where_less_is_better() -> None:
    few, many = [{"nfe": 8.0, "return": 0.1}, {"nfe": 10.0, "return": 0.2}], [{"nfe": 20.0, "return": 0.5}]
    assert checkpoint_score(few, "nfe") == -9.0
    for name, better, worse in (("nfe", few, many), ("return", many, few)):
        good, bad = checkpoint_score(better, name), checkpoint_score(worse, name)
        assert good is not None
        assert bad is not None
        assert good > bad
    assert checkpoint_score([{"nfe": None}], "nfe") is None


def test_a_missing_file_of_the_model_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text("[" * 5000)
    with pytest.raises(WeightsError, match=r"vae/config\.json can't be read"):
        own_image_size(BackboneSection(kind="sdxl", path=str(tmp_path)))
