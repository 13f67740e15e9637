"""Clients that go away, come in crowds, or send anything at all."""

from __future__ import annotations

import http.client
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from serving.limits import Limits
from tests.serving.crowd import KINDS, Crowd
from tests.serving.toy_server import Served, SlowBackbone, served, toy_model

SHORT_S, LONG_S = 4.0, float(os.environ.get("ADDIFFUSION_SOAK_S", "1800"))


@pytest.fixture(scope="module")
def backbone() -> SlowBackbone:
    return SlowBackbone(0.02)


@pytest.fixture(scope="module")
def server(backbone: SlowBackbone) -> Iterator[Served]:
    with served(toy_model(backbone=backbone, slots=4), limits=Limits(waiting_images=12)) as running:
        yield running


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.01)


def opened(server: Served, **fields: object) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    body = {"prompt": "a toy scene", "num_inference_steps": 200, **fields}
    connection.request("POST", "/v1/images/generations", json.dumps(body), {"Content-Type": "application/json"})
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_closed_connection_frees_its_rows(server: Served, backbone: SlowBackbone, *, stream: bool) -> None:
    shared = server.loop._shared
    connection = opened(server, n=4, stream=stream, partial_images=3 if stream else 0)
    until(lambda: shared.rows_wanted == 8)
    if stream:
        connection.getresponse().read1(10)
    connection.close()
    until(lambda: shared.rows_wanted == 0 and not shared.busy)
    until(lambda: b"ray_addiffusion_serve_slots_busy 0.0" in server.meters.page())  # no tick comes to say so
    passes = len(backbone.rows)
    time.sleep(0.2)
    assert len(backbone.rows) == passes  # nothing to do costs nothing


def test_a_full_queue_is_429_with_the_time_to_come_again(server: Served) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    crowd = [opened(server, n=4)]
    until(lambda: server.loop._shared.rows_wanted == 8)
    crowd += [opened(server, n=8), opened(server, n=4)]
    until(lambda: len(server.loop._shared._waiting) == 12)
    with pytest.raises(openai.RateLimitError) as refused:
        client.images.generate(prompt="a toy scene")
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    assert refused.value.code == "queue_full"
    with pytest.raises(openai.APIStatusError) as late:
        client.images.generate(prompt="a toy scene", n=10, extra_body={"deadline_s": 0.001})
    assert late.value.status_code in {408, 429}
    for connection in crowd:
        connection.close()
    until(lambda: not server.loop._shared.busy)


def test_a_lost_device_answers_everybody_and_ends_the_process() -> None:
    class Lost(SlowBackbone):
        def denoise(self, z, t, hidden, pooled=None):
            if len(self.rows) == 3:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return super().denoise(z, t, hidden, pooled)

    with served(toy_model(backbone=Lost(0.05), slots=2)) as running, ThreadPoolExecutor(4) as pool:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0)
        asked = [pool.submit(client.images.generate, prompt="a toy scene", n=2) for _ in range(4)]
        for one in asked:
            with pytest.raises(openai.InternalServerError, match="lost its device") as refused:
                one.result(20)
            assert (refused.value.status_code, refused.value.code) == (503, "unavailable")
        running.thread.join(10)
        assert not running.thread.is_alive()


def test_what_runs_is_finished_before_the_end() -> None:
    with served(toy_model(backbone=SlowBackbone(0.05))) as running, ThreadPoolExecutor(2) as pool:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0)
        answer = pool.submit(client.images.generate, prompt="a toy scene", n=4)
        until(lambda: running.loop._shared.rows_wanted == 8)
        closing = pool.submit(running.loop.close, within_s=20)
        until(lambda: running.loop.refusal is not None)
        with pytest.raises(openai.APIError):  # 503, or no connection any more
            client.images.generate(prompt="a toy scene")
        assert len(answer.result(20).data or []) == 4
        assert closing.result(20)


def test_anything_at_all_gets_an_answer_below_500() -> None:
    with served(toy_model()) as running:
        for operation in schemathesis.openapi.from_url(f"{running.url}/openapi.json").get_all_operations():

            @settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.ok().as_strategy())
            def send(case: schemathesis.Case) -> None:
                case.call_and_validate(checks=[schemathesis.checks.not_a_server_error])

            send()


# ---------------------------------------------------------------- soak


@pytest.mark.parametrize(
    "seconds", [SHORT_S, pytest.param(LONG_S, marks=[pytest.mark.slow, pytest.mark.timeout(LONG_S + 600)])]
)
def test_a_soak_leaves_nothing_behind(server: Served, seconds: float) -> None:
    """Random requests, some of which go away: each is answered once, no slot leaks, memory stays."""
    crowd = Crowd(server.url.removeprefix("http://"))
    crowd.run(min(seconds / 2, 120))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crowd.run(max(seconds / 2, seconds - 120))
    shared = server.loop._shared
    until(lambda: not shared.busy)
    assert (len(shared._batch.engine.free()), len(shared._batch.episodes), len(shared._waiting)) == (4, 0, 0)
    answered = {
        f"{kind} {said}" for kind in ("whole", "stream", "steered", "txt2img") for said in ("200", "429 queue_full")
    }
    assert set(crowd.counts) <= answered | {"gone", "bad 400 invalid_value", "interrupt 200"}
    assert {kind.split()[0] for kind in crowd.counts} == set(KINDS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.2 * before
