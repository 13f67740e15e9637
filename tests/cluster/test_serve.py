"""`serve deploy serve.yaml` on a head of this machine: the real client draws, and nothing is cut off at the end."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from PIL import Image

from tests.cluster.head import Head
from tests.cluster.service import UP_S, Service, deployed, stop
from tests.cluster.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CROWD = 20
"""Requests at once: as many again as an engine is to have, and some."""


@pytest.fixture(scope="module")
def service(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with deployed(head, tmp_path_factory.mktemp("serve")) as running:
        yield running


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0, timeout=120)


def test_the_real_client_draws_and_streams(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a red circle left of a blue square", n=2, extra_body={"seed": 7})
    images = [Image.open(io.BytesIO(base64.b64decode(one.b64_json or ""))) for one in answer.data or []]
    assert [image.size for image in images] == [(64, 64)] * 2
    events = list(client.images.generate(prompt="a red circle", stream=True, partial_images=1))
    assert events[-1].type == "image_generation.completed"
    assert [model.id for model in client.models.list().data] == ["embedded"]
    with pytest.raises(openai.BadRequestError, match="less than or equal to 10"):
        client.images.generate(prompt="a red circle", n=11)


@pytest.mark.parametrize(("path", "said"), [("/health", b"ok"), ("/", b"<html"), ("/sdapi/v1/progress", b"job")])
def test_the_rest_of_the_app_answers(service: Service, path: str, said: bytes) -> None:
    with urllib.request.urlopen(service.url + path, timeout=60) as answer:
        assert said in answer.read()


def test_a_queue_brings_a_second_engine(service: Service, client: openai.OpenAI) -> None:
    """`autoscaling_config` of the file: more than eight requests at once, for more than ten seconds."""
    assert len(service.replicas("Engine")) == 1
    ended = threading.Event()

    def ask() -> int:
        drawn = 0
        while not ended.is_set():
            extra = {"full_run": True, "num_inference_steps": 150}
            drawn += len(client.images.generate(prompt="a red circle", extra_body=extra).data or [])
        return drawn

    with ThreadPoolExecutor(CROWD) as pool:
        asking = [pool.submit(ask) for _ in range(CROWD)]
        try:
            wait_for("a second engine", lambda: service.settled(2, 1), timeout_s=UP_S, give_up=service.log)
        finally:
            ended.set()
        assert all(one.result(timeout=120) > 0 for one in asking)


def test_what_runs_is_finished_before_the_end(service: Service, client: openai.OpenAI) -> None:
    drawn: list[int] = []

    def ask() -> None:
        extra = {"full_run": True, "num_inference_steps": 150}
        drawn.append(len(client.images.generate(prompt="a red circle", n=10, extra_body=extra).data or []))

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(1.5)
    assert asking.is_alive()
    stop(service)
    asking.join(60)
    assert drawn == [10]
    assert json.dumps(service.details()) == "{}"
