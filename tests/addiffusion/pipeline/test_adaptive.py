"""A policy in a family's own pipeline: shared parts, the family's images without a policy, and its own with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from addiffusion import AdaptivePipeline, AdaptivePipelineOutput, load_policy
from addiffusion.actions import ACTION_NAMES, Action
from addiffusion.errors import ArgumentError, CheckpointError, RunFolderError
from addiffusion.records import Episode, Prompt, Ticket
from addiffusion.scorers.base import Scoring, Unscored
from rollout_workers.worker import Worker
from tests.addiffusion.backbones.family_runs import SIZE
from tests.addiffusion.pipeline.tiny_policies import FINISH, WARMUP, K, make_policy, passes_of, scale_of, seeded
from tests.fakes import ToyScoring


def drawn(pipe: Any, **options: Any) -> Any:
    """A call of the tiny size."""
    given = {"height": SIZE, "width": SIZE, "output_type": "pt", "generator": seeded(5), **options}
    return pipe(given.pop("prompt", "a red cat"), **given)


def hooks_of(pipe: Any) -> list[Any]:
    """What a call could leave behind in the components."""
    modules = [one for part in pipe.components.values() if isinstance(part, torch.nn.Module) for one in part.modules()]
    hooks = [(len(one._forward_hooks), len(one._forward_pre_hooks), one.training) for one in modules]
    return [*hooks, *(id(one.processor) for one in modules if hasattr(one, "processor"))]


def state_of(pipe: Any) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
    }


def test_without_a_policy_it_is_the_familys_own_pipeline(family: str, base: Any) -> None:
    """Same parts, same images to the last bit, same number of callbacks."""
    pipe: Any = AdaptivePipeline.from_pipe(base)
    assert isinstance(pipe, AdaptivePipeline)
    assert isinstance(pipe, type(base))
    assert all(pipe.components[name] is part for name, part in base.components.items())
    seen: list[int] = []

    def note(_pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return tensors

    expected = drawn(base, num_inference_steps=4, callback_on_step_end=note).images
    count = len(seen)
    got = drawn(pipe, num_inference_steps=4, callback_on_step_end=note)
    assert torch.equal(got.images, expected)
    assert len(seen) == 2 * count
    assert type(got) is type(drawn(base, num_inference_steps=2))


def test_a_policy_that_goes_on_gives_the_familys_image(family: str, folder: Path, base: Any) -> None:
    pipe = AdaptivePipeline.from_pipe(base, policy=make_policy(family, folder, Action.CONTINUE))
    scale = scale_of(family)
    reads = {"max_sequence_length": 256} if family == "flux" else {}  # what schnell was distilled with
    expected = drawn(base, num_inference_steps=5, guidance_scale=scale, output_type="np", **reads).images
    found = drawn(pipe, output_type="np")
    assert np.abs(found.images - expected).max() < 1e-3
    assert found.nfe == [passes_of(family)]
    assert found.network_evals == [passes_of(family) * (1 if family == "flux" else 2)]
    assert found.actions == [["continue"] * (passes_of(family) - WARMUP)]
    assert found.stopped_at == [None]


def test_a_call_leaves_the_components_as_it_found_them(family: str, folder: Path, base: Any) -> None:
    """Also a call that fails on its way."""
    pipe = AdaptivePipeline.from_pipe(base, policy=make_policy(family, folder, Action.REFINE))
    hooks, state = hooks_of(base), state_of(base)
    out = drawn(pipe)
    decisions = len(out.actions[0])
    assert out.actions == [["refine"] * decisions]
    assert out.nfe == [WARMUP + decisions * (1 + K)]

    def refuse(*_arguments: Any) -> dict[str, Any]:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        drawn(pipe, callback_on_step_end=refuse)
    assert hooks_of(base) == hooks
    after = state_of(base)
    assert all(torch.equal(after[name], value) for name, value in state.items())


def test_a_pipeline_keeps_its_policy_through_a_folder(family: str, folder: Path, base: Any, tmp_path: Path) -> None:
    pipe: Any = AdaptivePipeline.from_pipe(base, policy=make_policy(family, folder))
    expected = drawn(pipe)
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "policy" / "diffusion_pytorch_model.safetensors").is_file()
    again: Any = AdaptivePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again) is type(pipe)
    found = drawn(again)
    assert (found.nfe, found.actions) == (expected.nfe, expected.actions)
    assert torch.equal(found.images, expected.images)
    weights = load_policy(tmp_path / "policy").state_dict()  # what the command line reads, too
    assert all(torch.equal(weights[name], value) for name, value in pipe.policy.state_dict().items())
    plain: Any = AdaptivePipeline.from_pretrained(tmp_path, policy=None)
    assert plain.policy is None


def test_a_stop_is_finished_and_counted(sd15: Any, sd15_like: Path) -> None:
    pipe = AdaptivePipeline.from_pipe(sd15, policy=make_policy("sd15", sd15_like, Action.STOP))
    out = drawn(pipe, num_images_per_prompt=2)
    assert out.stopped_at == [WARMUP, WARMUP]
    assert out.nfe == [WARMUP + 1 + FINISH] * 2
    assert out.actions == [["stop"], ["stop"]]
    assert len(out.images) == 2


@pytest.mark.parametrize("always", [Action.CONTINUE, Action.STOP, Action.LEAP, Action.UNGUIDED, Action.REDRAW])
def test_an_episode_of_a_worker_is_this_image(sd15: Any, sd15_like: Path, always: Action) -> None:
    """One image, one policy, one noise: the rollout worker's image to the last bit."""
    six: Any = {"actions": ACTION_NAMES, "sampler": {"solver": "ddim", "leap_steps": 2}}
    policy = make_policy("sd15", sd15_like, always, **(six if always > Action.REFINE else {}))
    drawing: Any = AdaptivePipeline.from_pipe(sd15, policy=policy)
    episode, out = _both(drawing, Unscored)
    assert always in episode.actions
    assert out.nfe == [episode.nfe]
    assert out.actions == [[Action(action).name.lower() for action in episode.actions]]
    if always is not Action.REDRAW:  # whose noise comes from the seed, which a pipeline is not told
        np.testing.assert_array_equal(np.asarray(out.images[0]), episode.image)


def test_previews_are_scored_where_they_are_due_as_in_a_worker(sd15: Any, sd15_like: Path) -> None:
    """It begins again wherever it may, which is where it has seen a preview."""
    policy = make_policy("sd15", sd15_like, Action.REDRAW, actions=["continue", "stop", "redraw"], previews=[0.5])
    drawing: Any = AdaptivePipeline.from_pipe(sd15, policy=policy)
    drawing.scoring = ToyScoring()
    episode, out = _both(drawing, ToyScoring)
    tries = drawing.policy.trained_with.sampler.max_redraws + 1
    assert out.actions[0].count("redraw") == tries - 1
    assert out.actions == [[Action(action).name.lower() for action in episode.actions]]
    assert [len(request.images) for request in drawing.scoring.requests] == [1] * tries
    several = drawn(drawing, num_images_per_prompt=3)
    assert {len(request.images) for request in drawing.scoring.requests[tries:]} == {3}
    assert [actions.count("redraw") for actions in several.actions] == [tries - 1] * 3


def _both(drawing: Any, scoring: Callable[[], Scoring]) -> tuple[Episode, Any]:
    """A worker's episode, and what the pipeline makes of the same noise."""
    config = drawing.policy.trained_with
    reward = config.reward.model_copy(update={"preset": "phase1", "drop": ("quality", "terminal")})
    rollout = config.rollout.model_copy(update={"slots": 1})
    config = config.model_copy(update={"reward": reward, "rollout": rollout})
    from addiffusion import seeds  # noqa: PLC0415
    from addiffusion.backbones import load_backbone  # noqa: PLC0415

    worker = Worker(
        config, policy=drawing.policy.network, backbone=lambda: load_backbone(config.backbone), scoring=scoring
    )
    worker.set_weights({name: value.numpy() for name, value in drawing.policy.network.state_dict().items()}, version=0)
    ticket = Ticket.greedy(0, Prompt(prompt_id=0, text="a red cat", tier=0), seed=7, c_nfe=config.reward.c_nfe)
    episode = worker.collect([ticket]).episodes[0]
    noise = torch.randn(drawing.unet.config.in_channels, 8, 8, generator=seeds.generator(7, "latent"))
    return episode, drawing("a red cat", latents=noise[None], slots=1, output_type="pil")


def test_the_policy_stays_in_float32(sd15_like: Path, sd15: Any) -> None:
    """Whatever the pipeline is cast to, by whatever way."""
    policy = make_policy("sd15", sd15_like)
    fresh: Any = type(sd15)(**sd15.components, requires_safety_checker=False)
    fresh.unet = type(sd15.unet).from_config(sd15.unet.config)
    fresh.vae = type(sd15.vae).from_config(sd15.vae.config)
    pipe: Any = AdaptivePipeline.from_pipe(fresh, policy=policy, text_encoder=fresh.text_encoder)
    pipe.unet.to(torch.bfloat16)
    pipe.vae.to(torch.bfloat16)
    assert policy.to(torch.float16).dtype == torch.float32
    assert policy.to("cpu", torch.float16) is policy
    out = drawn(pipe)
    assert out.images.dtype == torch.float32
    assert torch.isfinite(out.images).all()
    assert pipe.unet.dtype == torch.bfloat16


def test_from_pretrained_casts_all_but_the_policy(sd15: Any, sd15_like: Path, tmp_path: Path) -> None:
    AdaptivePipeline.from_pipe(sd15, policy=make_policy("sd15", sd15_like)).save_pretrained(tmp_path)
    pipe: Any = AdaptivePipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert (pipe.unet.dtype, pipe.text_encoder.dtype, pipe.policy.dtype) == (*[torch.bfloat16] * 2, torch.float32)
    pipe.to(torch.float32)
    assert pipe.unet.dtype == torch.float32


def test_a_lora_is_loaded_as_in_any_pipeline(drawing: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415
    from peft import LoraConfig, get_peft_model_state_dict  # noqa: PLC0415

    before = drawn(drawing).images
    drawing.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False), "mine")
    layers = get_peft_model_state_dict(drawing.unet, adapter_name="mine")
    drawing.unet.delete_adapters("mine")
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    drawing.load_lora_weights(tmp_path)
    assert not torch.equal(drawn(drawing).images, before)
    drawing.unload_lora_weights()
    assert torch.equal(drawn(drawing).images, before)


def test_the_policy_is_offloaded_before_the_network_is_used(drawing: Any) -> None:
    """It acts between two passes: behind the network in that order it would send it away each time."""
    names = drawing.model_cpu_offload_seq.split("->")
    assert names[0] == "policy"
    assert {"unet", "vae", "text_encoder"} < set(names)


def test_what_is_no_family_is_named(sd15: Any) -> None:
    with pytest.raises(ArgumentError, match="DDPMPipeline is no pipeline that a policy can lead: give one of Stable"):
        AdaptivePipeline.from_pipe(type("DDPMPipeline", (), {})())
    with pytest.raises(RunFolderError, match="nowhere"):
        AdaptivePipeline.from_pipe(sd15, policy="nowhere")


def test_a_policy_of_other_widths_is_refused(sd15: Any, sdxl_like: Path) -> None:
    pipe = AdaptivePipeline.from_pipe(sd15, policy=make_policy("sdxl", sdxl_like))
    pipe.policy.register_to_config(input_width=17)  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(CheckpointError, match="The policy sees 17 numbers, and this model gives middle 16"):
        drawn(pipe)


def test_other_settings_are_told_once(drawing: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        drawn(drawing, num_inference_steps=4, guidance_scale=2.0)
    told = [record.getMessage() for record in caplog.records if "was trained on another" in record.getMessage()]
    assert len(told) == 2
    assert "schedule (5 steps, and this is 4)" in told[0]
    assert "guidance scale (4, and this is 2)" in told[1]


def test_the_record_is_a_tuple_where_it_is_asked_for(drawing: Any) -> None:
    record, plain = drawn(drawing), drawn(drawing, return_dict=False)
    assert isinstance(record, AdaptivePipelineOutput)
    assert torch.equal(record.images, plain[0])
    assert plain[1] == record.nfe
