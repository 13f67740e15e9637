"""The application on Ray Serve: the same API, engines in replicas, none of which is missed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import pytest

from addiffusion.metrics import Meters, NoMeters
from serving.app import ENGINE, ReplicaOptions, application
from serving.limits import Limits
from tests.serving.crowd import sent
from tests.serving.toy_server import STEPS, SlowBackbone, toy_model

PORT = 8135


def no_meters(_replica: str) -> Meters:
    return NoMeters()


def slow_model():
    return toy_model(backbone=SlowBackbone(0.1))


@pytest.fixture(scope="module")
def client(ray_cluster: str) -> Iterator[openai.OpenAI]:
    from ray import serve  # noqa: PLC0415 - see start_ray

    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    options = ReplicaOptions(load=partial(slow_model), host="127.0.0.1", key_file=None, limits=Limits())
    serve.run(application(options, no_meters), name="addiffusion")
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="any", max_retries=0, timeout=60)
    serve.shutdown()


def test_the_same_api_answers(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt="a toy scene", stream=True, partial_images=2, extra_body={"seed": 1}))
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image"] * 2 + ["completed"]
    whole = client.images.generate(prompt="a toy scene", extra_body={"seed": 1})
    assert whole.data is not None
    assert whole.data[0].b64_json == events[2].b64_json
    with pytest.raises(openai.BadRequestError, match="less than or equal to 10"):
        client.images.generate(prompt="a toy scene", n=11)


def test_a_front_end_sees_and_ends_what_an_engine_draws(client: openai.OpenAI) -> None:
    """Its calls name no request: every engine is asked."""
    address = f"127.0.0.1:{PORT}"
    drawing = sent(address, "/sdapi/v1/txt2img", {"prompt": "a toy scene", "steps": 150})
    shown: dict[str, Any] = {}
    end = time.monotonic() + 30
    while not shown.get("progress"):
        assert time.monotonic() < end
        shown = json.load(sent(address, "/sdapi/v1/progress", None, method="GET").getresponse())
    assert shown["state"]["sampling_steps"] == 150
    assert sent(address, "/sdapi/v1/interrupt", {}).getresponse().status == 200
    answer = json.load(drawing.getresponse())
    assert len(answer["images"]) == 1
    assert json.loads(answer["info"])["addiffusion"][0]["nfe"] < 150


def test_a_killed_engine_is_not_missed(client: openai.OpenAI) -> None:
    """Its request begins again on another one; what was told is not told again."""
    import ray  # noqa: PLC0415

    def kill() -> None:
        time.sleep(0.4)
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if f"#{ENGINE}#" in actor["name"]:
                ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))

    thread = threading.Thread(target=kill)
    thread.start()
    extra = {"seed": 1, "every_decision": True}
    events = list(client.images.generate(prompt="a toy scene", n=2, stream=True, extra_body=extra))
    thread.join(20)
    seen = [((event.model_extra or {})["image_index"], event.type.rpartition(".")[2]) for event in events]
    for image in (0, 1):
        kinds = [kind for index, kind in seen if index == image]
        assert kinds == ["decision"] * (STEPS - 2) + ["completed"]
