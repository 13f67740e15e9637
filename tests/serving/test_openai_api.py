"""OpenAI's own client against the server: what it sends, what it reads, and what it raises."""

from __future__ import annotations

import base64
import io
import json
import pickle
import urllib.request
from collections.abc import Iterator

import openai
import pytest
from PIL import Image

from serving.messages import Order
from tests.fakes import DIVERGENT
from tests.serving.toy_server import STEPS, Served, served, toy_model


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(toy_model()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=30)


def opened(b64_json: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64_json or "")))


def test_images_come_with_what_each_took(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a toy scene", n=3, size="16x16", extra_body={"seed": 7})
    assert answer.data is not None
    assert [opened(one.b64_json).size for one in answer.data] == [(16, 16)] * 3
    records = [(one.model_extra or {})["addiffusion"] for one in answer.data]
    assert [record["seed"] for record in records] == [7, 8, 9]
    assert all(record["nfe"] == record["cost"] == STEPS for record in records)
    assert all(record["actions"] == ["continue"] * (STEPS - 2) for record in records)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 2 * STEPS * 3)
    assert (answer.size, answer.quality, answer.output_format) == ("16x16", "auto", "png")


def test_previews_come_before_the_image(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt="a toy scene", stream=True, partial_images=3, extra_body={"seed": 1}))
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image"] * 3 + ["completed"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]  # type: ignore[union-attr]
    assert all(opened(event.b64_json).size == (16, 16) for event in events)
    steps = [(event.model_extra or {})["addiffusion"]["step"] for event in events[:3]]
    assert steps == sorted(set(steps))
    whole = client.images.generate(prompt="a toy scene", extra_body={"seed": 1})
    assert whole.data is not None
    assert whole.data[0].b64_json == events[3].b64_json


def test_every_decision_can_be_watched(client: openai.OpenAI) -> None:
    events = client.images.generate(prompt="a toy scene", n=2, stream=True, extra_body={"every_decision": True})
    seen = [((event.model_extra or {}).get("image_index"), event.type.rpartition(".")[2]) for event in events]
    for image in (0, 1):
        assert [kind for index, kind in seen if index == image] == ["decision"] * (STEPS - 2) + ["completed"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"n": 11}, "n", "less than or equal to 10"),
        ({"n": "3"}, "n", "valid integer"),
        ({"size": "512x512"}, "size", "16x16"),
        ({"quality": "hd"}, "quality", "'low', 'medium', 'high' or 'auto'"),
        ({"response_format": "url"}, "response_format", "b64_json"),
        ({"output_format": "gif"}, "output_format", "'png', 'jpeg' or 'webp'"),
        ({"model": "dall-e-3"}, "model", "toy"),
        ({"solver": "flow_euler"}, "solver", "ddim"),
        ({"num_inference_steps": 2}, "num_inference_steps", "3"),
        ({"guidance_scale": -1}, "guidance_scale", "greater than or equal to 0"),
        ({"max_cost": 1}, "max_cost", "max_cost=1 is less than the 4"),
        ({"speed": 2, "quality": "low"}, "speed", "two points of one dial"),
        ({"partial_images": 2}, "partial_images", "stream=true"),
        ({"colour": "red"}, "colour", "its fields are prompt"),
        ({"prompt": "   "}, "prompt", "blank"),
        ({"prompt": "a" * 4001}, "prompt", "at most 4000"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(client: openai.OpenAI, fields: dict, param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="a toy scene", extra_body=fields)
    body = refused.value.body
    assert isinstance(body, dict)
    assert (body["param"], body["type"]) == (param, "invalid_request_error")
    assert said in body["message"]
    assert param in body["message"]


@pytest.mark.parametrize(("form", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_files_hold_their_parameters_as_a1111_reads_them(client: openai.OpenAI, form: str, name: str) -> None:
    extra = {"seed": 3, "negative_prompt": "blur", "num_inference_steps": 6, "guidance_scale": 1.5, "solver": "dpm++2m"}
    answer = client.images.generate(prompt="a tøy scene", output_format=form, extra_body=extra)  # type: ignore[arg-type]
    assert answer.data is not None
    image = opened(answer.data[0].b64_json)
    assert image.format == name
    if form == "png":
        text = image.info["parameters"]
    else:
        text = image.getexif().get_ifd(0x8769)[0x9286].removeprefix(b"UNICODE\0").decode("utf-16-be")
    wanted = "Steps: 6, Sampler: DPM++ 2M, CFG scale: 1.5, Seed: 3, Size: 16x16, Model: toy, "
    assert text.startswith(f"a tøy scene\nNegative prompt: blur\n{wanted}")


def test_quality_and_speed_are_points_of_the_price_dial(client: openai.OpenAI) -> None:
    def price(**extra: object) -> float:
        answer = client.images.generate(prompt="a toy scene", extra_body=extra)
        assert answer.data is not None
        return (answer.data[0].model_extra or {})["addiffusion"]["c_nfe"]

    assert [price(quality=quality) for quality in ("high", "low")] == [0.01, 0.1]
    assert price(quality="medium") == pytest.approx(0.0316, rel=0.01)
    assert price(speed=STEPS / 6) == pytest.approx(0.04)
    assert price(speed=100) == pytest.approx(0.1)


def test_a_poisoned_request_fails_alone(client: openai.OpenAI, server: Served) -> None:
    with pytest.raises(openai.InternalServerError, match="not finite"):
        client.images.generate(prompt=f"a {DIVERGENT} scene", n=2)
    with pytest.raises(openai.APIError, match="not finite"):
        list(client.images.generate(prompt=f"a {DIVERGENT} scene", stream=True))
    assert client.images.generate(prompt="a toy scene").data


def test_models_health_and_metrics(client: openai.OpenAI, server: Served) -> None:
    (model,) = client.models.list().data
    assert (model.id, client.models.retrieve("toy").id) == ("toy", "toy")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with urllib.request.urlopen(f"{server.url}/health") as answer:
        assert json.load(answer) == {"status": "ok"}
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        page = answer.read().decode()
    assert 'ray_addiffusion_serve_requests_total{outcome="done"}' in page
    assert "addiffusion_serve_image_cost_bucket" in page


def test_an_order_is_plain_values() -> None:
    made = Order(request_id="a", prompt="p", seeds=(1,), c_nfe=0.1)
    assert pickle.loads(pickle.dumps(made)) == made
