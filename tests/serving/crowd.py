"""A crowd of clients that send anything, go away, steer and interrupt; each answer is looked at."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PATIENCE_S = 180.0
SEND = {"Content-Type": "application/json"}
KINDS = ("whole", "stream", "steered", "txt2img", "gone", "bad", "interrupt")


def sent(address: str, path: str, body: object, *, method: str = "POST") -> http.client.HTTPConnection:
    """A connection on which a request is under way."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    connection.request(method, path, json.dumps(body), SEND)
    return connection


class Crowd:
    """Clients of a server, and how often each kind of request was answered how.

    Every answer is whole, or an error in OpenAI's shape: an image that is missing or comes twice is a failed assertion.
    """

    def __init__(self, address: str) -> None:
        self._address, self._lock = address, threading.Lock()
        self.counts = Counter[str]()

    def run(self, seconds: float, *, pause_s: float = 0.0, clients: int = 8) -> None:
        """Send requests for so long, each client one after the other, at most ``pause_s`` between them."""
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            for one in [pool.submit(self._client, number, end, pause_s) for number in range(clients)]:
                one.result(seconds + PATIENCE_S)

    def _client(self, number: int, end: float, pause_s: float) -> None:
        drawn = random.Random(number)
        while time.monotonic() < end:
            kind = drawn.choice(KINDS)
            said = self._asked(kind, drawn)
            with self._lock:
                self.counts[f"{kind} {said}".strip()] += 1
            time.sleep(drawn.random() * pause_s)

    def _asked(self, kind: str, drawn: random.Random) -> str:
        """The status and, of an error, its code."""
        fields = _random_fields(drawn, kind)
        path = f"/sdapi/v1/{kind}" if kind in {"txt2img", "interrupt"} else "/v1/images/generations"
        connection = sent(self._address, path, fields)
        try:
            if kind == "gone":
                time.sleep(drawn.random() / 5)
                return ""
            answer = connection.getresponse()
            if answer.status == 200 and kind in {"stream", "steered"}:
                return self._streamed(kind, answer, int(fields["n"]))
            said = json.load(answer)
            if answer.status != 200:
                return f"{answer.status} {said['error']['code']}"
            if kind == "whole":
                assert len(said["data"]) == fields["n"]
            if kind == "txt2img":
                assert len(said["images"]) <= fields["batch_size"]
            return "200"
        finally:
            connection.close()

    def _streamed(self, kind: str, answer: http.client.HTTPResponse, images: int) -> str:
        """An image each, once, or an error at the end."""
        if kind == "steered":
            name = answer.headers["X-Request-Id"]
            steered = sent(self._address, f"/v1/images/{name}/steer", {"image": 0, "action": "stop"})
            assert steered.getresponse().status in {202, 503}
            steered.close()
        events = [json.loads(line[6:]) for line in answer.read().splitlines() if line.startswith(b"data: ")]
        done = [event["image_index"] for event in events if event["type"] == "image_generation.completed"]
        assert len(done) == len(set(done))
        if events[-1]["type"] == "error":
            return f"200 {events[-1]['error']['code']}"
        assert sorted(done) == list(range(images))
        return "200"


def _random_fields(drawn: random.Random, kind: str) -> dict[str, Any]:
    count, steps, scale = drawn.choice((1, 1, 1, 2, 4)), drawn.choice((4, 6, 8)), drawn.choice((1.0, 2.0, None))
    prompt = f"a scene {drawn.randrange(50)}"
    if kind in {"txt2img", "interrupt"}:
        return {"prompt": prompt, "batch_size": count, "steps": steps, "cfg_scale": scale}
    fields: dict[str, Any] = {"prompt": prompt, "n": count, "num_inference_steps": steps, "guidance_scale": scale}
    fields["solver"] = drawn.choice(("ddim", "dpm++2m", None))
    if kind in {"stream", "steered"}:
        fields |= {"stream": True, "partial_images": drawn.randrange(4)}
    return fields | ({"n": 99} if kind == "bad" else {})
