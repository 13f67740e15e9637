"""AUTOMATIC1111's API, as its front ends use it."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.serving.toy_server import STEPS, Served, SlowBackbone, served, toy_model


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(toy_model(backbone=SlowBackbone(0.05))) as running:
        yield running


def asked(server: Served, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/sdapi/v1/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_images_with_info(server: Served) -> None:
    body = {
        "prompt": "a toy scene",
        "seed": 5,
        "steps": 6,
        "batch_size": 2,
        "sampler_name": "DPM++ 2M Karras",
        "eta": 0,
    }
    answer = asked(server, "txt2img", body)
    info = json.loads(answer["info"])
    assert (len(answer["images"]), info["all_seeds"], info["steps"]) == (2, [5, 6], 6)
    image = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
    assert image.info["parameters"] == info["infotexts"][0]
    assert answer["parameters"]["prompt"] == "a toy scene"
    assert "Steps: 6, Sampler: DPM++ 2M, Schedule type: Karras, CFG" in info["infotexts"][0]


def test_every_sampler_can_be_asked_for_by_the_name_that_files_give_it(server: Served) -> None:
    """As a front end does with an image that is dropped on it."""
    names = [one["name"] for one in asked(server, "samplers")]
    assert len(names) > 3
    for name in names:
        answer = asked(server, "txt2img", {"prompt": "a toy scene", "seed": 5, "steps": 4, "sampler_name": name})
        said = json.loads(answer["info"])["infotexts"][0]
        (written,) = re.findall(r"Sampler: ([^,]+),", said)
        assert written == name


def test_interrupt_answers_with_the_images_as_they_are(server: Served) -> None:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(asked(server, "txt2img", {"prompt": "long", "steps": 150})))
    thread.start()
    while not 0 < (shown := asked(server, "progress"))["progress"] < 1:
        time.sleep(0.02)
    assert shown["state"]["sampling_steps"] == 150
    assert Image.open(io.BytesIO(base64.b64decode(shown["current_image"]))).size == (16, 16)
    asked(server, "interrupt", {})
    thread.join(20)
    assert len(answers[0]["images"]) == 1
    assert asked(server, "progress")["progress"] == 0


def test_what_there_is_to_choose(server: Served) -> None:
    names = [one["name"] for one in asked(server, "samplers")]
    assert {"DDIM", "Euler a", "DPM++ 2M"} <= set(names)
    assert "Euler (flow)" not in names
    assert [one["name"] for one in asked(server, "schedulers")] == ["automatic", "karras"]
    assert asked(server, "sd-models")[0]["model_name"] == asked(server, "options")["sd_model_checkpoint"] == "toy"
    assert asked(server, "options", {"sd_model_checkpoint": "toy"}) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": "x", "width": 512}, "16x16"),
        ({"prompt": "x", "sampler_name": "Heun"}, "DPM++ 2M"),
        ({"prompt": "x", "batch_size": 4, "n_iter": 4}, "10 at most"),
        ({"prompt": ""}, "blank"),
        ({}, "prompt is missing"),
    ],
)
def test_what_cannot_be_drawn_is_refused(server: Served, body: object, said: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(server, "txt2img", body)
    assert refused.value.code == 400
    assert said in json.load(refused.value)["error"]["message"]


def test_steps_left_out_are_the_models_own(server: Served) -> None:
    assert json.loads(asked(server, "txt2img", {"prompt": "x"})["info"])["steps"] == STEPS
