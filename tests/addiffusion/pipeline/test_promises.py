"""What diffusers' own test mixins ask of a pipeline, held under a policy: docs/pipeline.md has the list."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from addiffusion import AdaptivePipeline
from addiffusion.errors import AdDiffusionError, ArgumentError
from tests.addiffusion.pipeline.test_adaptive import drawn
from tests.addiffusion.pipeline.tiny_policies import FINISH, STEPS, WARMUP, make_policy, passes_of, seeded

OPTIONAL = ("num_inference_steps", "num_images_per_prompt", "generator", "latents", "output_type", "return_dict")
FULL = passes_of("sd15")
PROMPTS = ["a red cat", "blue dog", "a tree"]


def test_optional_arguments_have_defaults() -> None:
    parameters = inspect.signature(AdaptivePipeline.__call__).parameters
    wanted = (*OPTIONAL, "callback_on_step_end", "callback_on_step_end_tensor_inputs", "negative_prompt")
    assert [name for name in wanted if parameters[name].default is inspect.Parameter.empty] == []


@pytest.mark.parametrize("cap", [None, WARMUP + 2 + FINISH])
def test_a_row_of_a_batch_is_the_single_image_to_the_last_bit(drawing: Any, cap: int | None) -> None:
    """With as many slots; whatever waits for them, however its neighbours are decided, guided or not."""
    options: dict[str, Any] = {"slots": 2, "deterministic": False, "guidance_scale": [4.0, 2.0, 1.0], "max_cost": cap}
    negative = ["ugly", "grey", "dark"]
    batch = drawn(
        drawing, prompt=PROMPTS, negative_prompt=negative, generator=[seeded(one) for one in range(3)], **options
    )
    for row, prompt in enumerate(PROMPTS):
        own = options | {"guidance_scale": [options["guidance_scale"][row], 3.0]}
        single = drawn(
            drawing,
            prompt=[prompt, "another"],
            negative_prompt=[negative[row], "ugly"],
            generator=[seeded(row), seeded(9)],
            **own,
        )
        assert single.actions[0] == batch.actions[row]
        assert single.nfe[0] == batch.nfe[row]
        assert torch.equal(single.images[0], batch.images[row])
    assert len({tuple(one) for one in batch.actions}) > 1


def test_other_slots_change_no_more_than_the_order_of_sums(going_on: Any) -> None:
    images = [drawn(going_on, prompt=PROMPTS, slots=slots, guidance_scale=4.0).images for slots in (1, 2, 3)]
    assert max(float((one - images[0]).abs().max()) for one in images) < 1e-4


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_each_prompt_has_as_many_images_as_were_asked_for(drawing: Any, batch: int, times: int) -> None:
    out = drawn(drawing, prompt=PROMPTS[:batch], num_images_per_prompt=times)
    assert len(out.images) == len(out.nfe) == len(out.actions) == batch * times


def test_generators_and_latents_start_the_images(going_on: Any) -> None:
    shape = (3, going_on.unet.config.in_channels, 8, 8)
    listed = drawn(going_on, prompt=PROMPTS, generator=[seeded(one) for one in range(3)])
    given = torch.cat([torch.randn(1, *shape[1:], generator=seeded(one)) for one in range(3)])
    assert torch.equal(drawn(going_on, prompt=PROMPTS, latents=given, generator=None).images, listed.images)
    together = drawn(going_on, prompt=PROMPTS, generator=seeded(5)).images
    drawn_at_once = torch.randn(shape, generator=seeded(5))
    assert torch.equal(drawn(going_on, prompt=PROMPTS, latents=drawn_at_once, generator=None).images, together)


def test_outputs_are_of_the_type_asked_for(drawing: Any) -> None:
    pt = drawn(drawing).images
    assert pt.shape == (1, 3, 16, 16)
    array = drawn(drawing, output_type="np").images
    np.testing.assert_allclose(array, pt.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    (image,) = drawn(drawing, output_type="pil").images
    assert isinstance(image, Image.Image)
    np.testing.assert_array_equal(np.asarray(image), (array[0] * 255).round().astype(np.uint8))
    latent = drawn(drawing, output_type="latent").images
    decoded = drawing.vae.decode(latent / drawing.vae.config.scaling_factor, return_dict=False)[0].detach()
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), pt)


def test_flux_gives_latents_out_as_its_pipeline_does(flux_like: Any) -> None:
    from tests.addiffusion.pipeline.tiny_policies import load_base  # noqa: PLC0415

    base = load_base("flux", flux_like)
    pipe: Any = AdaptivePipeline.from_pipe(base, policy=make_policy("flux", flux_like))
    expected = drawn(base, num_inference_steps=2, output_type="latent").images
    assert drawn(pipe, output_type="latent").images.shape == expected.shape

    def raise_it(led: Any, _tick: int, _t: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        led._guidance_scale += 1.0  # schnell has none to raise: as in its own loop, nothing comes of it
        return {}

    raised = drawn(pipe, guidance_scale=2.0, callback_on_step_end=raise_it)
    assert pipe.guidance_scale == 2.0 + pipe.num_timesteps
    assert torch.equal(raised.images, drawn(pipe).images)


# ---------------------------------------------------------------- callbacks


def test_callbacks_see_each_tick_and_every_image(drawing: Any) -> None:
    seen: list[tuple[int, Any, dict[str, tuple[int, ...]]]] = []

    def note(pipe: Any, tick: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        assert pipe is drawing
        assert set(tensors) <= set(pipe._callback_tensor_inputs)
        seen.append((tick, t, {name: tuple(one.shape) for name, one in tensors.items()}))
        return tensors

    expected = drawn(drawing, prompt=PROMPTS, slots=2, deterministic=False)
    out = drawn(
        drawing,
        prompt=PROMPTS,
        slots=2,
        deterministic=False,
        callback_on_step_end=note,
        callback_on_step_end_tensor_inputs=drawing._callback_tensor_inputs,
    )
    assert torch.equal(out.images, expected.images)  # handing back what was given changes nothing
    assert [tick for tick, _, _ in seen] == list(range(drawing.num_timesteps))
    shapes = seen[0][2]
    assert shapes["latents"] == shapes["z0_pred"] == (3, drawing.unet.config.in_channels, 8, 8)
    assert shapes["prompt_embeds"][0] == 3
    assert seen[0][1].shape == (3,)
    assert sum(out.nfe) >= len(seen)


def test_a_callback_changes_latents(going_on: Any) -> None:
    """Zeros at the last tick are the image; others earlier give another one."""

    def zero_at(tick: int) -> Any:
        def change(_pipe: Any, at: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return {"latents": torch.zeros_like(tensors["latents"])} if at == tick else {}

        return change

    plain = drawn(going_on, output_type="latent").images
    last = drawn(going_on, output_type="latent", callback_on_step_end=zero_at(FULL - 1)).images
    assert last.abs().sum() == 0
    earlier = drawn(going_on, output_type="latent", callback_on_step_end=zero_at(1)).images
    assert not torch.equal(earlier, plain)
    assert earlier.abs().sum() > 0


@pytest.mark.parametrize("scales", [(4.0, 1.0), (1.0, 5.0)])
def test_a_callback_that_takes_guidance_away_or_brings_it_leaves_the_cap(
    drawing: Any, scales: tuple[float, float]
) -> None:
    def change(pipe: Any, _i: int, _t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pipe._guidance_scale = scales[1]
        return tensors

    cap = WARMUP + 2 + FINISH
    options: dict[str, Any] = {"prompt": PROMPTS, "slots": 2, "deterministic": False, "max_cost": cap}
    free = drawn(drawing, guidance_scale=[scales[0], 4.0, scales[0]], **options)
    led = drawn(drawing, guidance_scale=[scales[0], 4.0, scales[0]], callback_on_step_end=change, **options)
    assert max(*free.nfe, *led.nfe) <= cap
    first = 2 if scales[0] > 1 else 1  # rows of the first pass, which the callback comes after
    after = 2 if scales[1] > 1 else 1
    assert led.network_evals[0] == first + after * (led.nfe[0] - 1)
    assert led.network_evals[2] == after * led.nfe[2], "it waited for its slot when the callback came"


def test_a_callback_changes_guidance(going_on: Any, sd15: Any) -> None:
    """As in the family's own loop, from the next pass on."""

    def raise_it(pipe: Any, _step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale += 1.0
        return tensors

    options: dict[str, Any] = {"guidance_scale": 2.0, "callback_on_step_end": raise_it}
    expected = drawn(sd15, num_inference_steps=STEPS, **options).images
    out = drawn(going_on, **options)
    assert going_on.guidance_scale == 2.0 + going_on.num_timesteps
    assert float((out.images - expected).abs().max()) < 1e-3


def test_a_callback_interrupts(going_on: Any) -> None:
    """Images under way end in their clean prediction, those that wait in their noise."""

    def stop(pipe: Any, tick: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = tick == 1
        return tensors

    out = drawn(going_on, prompt=PROMPTS, slots=2, callback_on_step_end=stop)
    assert out.nfe == [2, 2, 0]
    assert len(out.images) == 3
    assert drawn(going_on).nfe == [FULL]  # the next call begins anew


def test_the_progress_bar_is_the_pipelines(going_on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    going_on.set_progress_bar_config(disable=False)
    drawn(going_on, num_images_per_prompt=2)
    assert f"{2 * FULL}/{2 * FULL}" in capsys.readouterr().err
    going_on.set_progress_bar_config(disable=True)
    drawn(going_on)
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- what it may cost


def test_no_image_costs_more_than_its_bound(drawing: Any) -> None:
    free = drawn(drawing, prompt=PROMPTS * 2, deterministic=False).nfe
    for cap in range(WARMUP + 1 + FINISH, 9):
        out = drawn(drawing, prompt=PROMPTS * 2, deterministic=False, max_cost=cap)
        assert max(out.nfe) <= cap
    assert max(free) > FULL
    with pytest.raises(ArgumentError, match=f"`max_cost` has to be at least {WARMUP + 1 + FINISH}, .* but is 2"):
        drawn(drawing, max_cost=2)


# ---------------------------------------------------------------- what can't be used


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": None}, "Provide either `prompt` or `prompt_embeds`"),
        ({"prompt": 3}, "`prompt` has to be of type `str` or `list`"),
        ({"prompt": []}, "`prompt` has to hold at least one prompt"),
        ({"prompt": " "}, "`prompt` is empty: say what to draw"),
        ({"prompt": ["a", ""]}, r"`prompt\[1\]` is empty"),
        ({"negative_prompt": ["a", "b"]}, "`negative_prompt` has batch size 2, but `prompt` has batch size 1"),
        ({"guidance_scale": [1.0, 2.0]}, "`guidance_scale` has batch size 2, but `prompt` has batch size 1"),
        ({"guidance_scale": -1.0}, "`guidance_scale` has to be 0 or more but is -1"),
        ({"generator": [seeded(0), seeded(1)]}, "You have passed a list of generators of length 2, but requested"),
        (
            {"latents": torch.zeros(1, 4, 3, 3)},
            r"Unexpected latents shape, got \(1, 4, 3, 3\), expected \(1, 4, 8, 8\)",
        ),
        ({"speed": 0}, "`speed` has to be a positive number but is 0"),
        ({"speed": 2.0}, "`speed` needs a policy card"),
        ({"speed": 2.0, "c_nfe": 0.1}, "Cannot forward both `speed` and `c_nfe`"),
        ({"num_inference_steps": 0}, "`num_inference_steps` has to be a positive integer but is 0"),
        ({"num_inference_steps": 1}, "`num_inference_steps` has to be more than the 1 forced steps"),
        ({"num_images_per_prompt": 0}, "`num_images_per_prompt` has to be a positive integer"),
        ({"slots": 0}, "`slots` has to be a positive integer"),
        ({"height": -16}, "`height` has to be a positive integer but is -16"),
        ({"height": 18, "width": 18}, "`height` and `width` have to be divisible by 8|multiple of"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "`callback_on_step_end_tensor_inputs` has to be in"),
        ({"prompt_embeds": torch.zeros(1, 77, 16)}, "`prompt_embeds` is an argument of the family's own loop"),
        ({"policy": None, "speed": 2.0}, "`speed` says how a policy decides, and this call has none"),
    ],
)
def test_bad_arguments_are_one_sentence(drawing: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, AdDiffusionError), match=words):
        drawn(drawing, **arguments)


@pytest.mark.parametrize("observation", [{"kind": "clip"}, {"previews": [0.5]}])
def test_a_policy_that_needs_scorers_says_which(sd15: Any, sd15_like: Any, observation: dict[str, Any]) -> None:
    policy = make_policy("sd15", sd15_like)
    config = policy.trained_with.model_dump(mode="json")
    config["observation"] |= observation
    config["scorers"]["kind"] = "pretrained"
    policy.register_to_config(configuration=config)
    del policy.trained_with
    with pytest.raises(ArgumentError, match=r"looks at decoded images by CLIP \(ViT-L-14-quickgelu\).*pipe.scoring ="):
        drawn(AdaptivePipeline.from_pipe(sd15, policy=policy))
