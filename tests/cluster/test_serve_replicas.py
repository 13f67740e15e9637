"""Two engines and two APIs of `serve.yaml`: whoever is asked, the right one hears; replicas that die are not missed."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.head import ROOT, Head
from tests.cluster.service import UP_S, Service, deployed
from tests.cluster.waiting import wait_for
from tests.serving.crowd import KINDS, SEND, Crowd, sent
from tests.serving.ray_app import STOPS_AT

SOAK_S = float(os.environ.get("ADDIFFUSION_SOAK_S", "1800"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SOAK_S + 900)]
LONG = 150
"""Steps of a request that is to be there for a while: seven seconds."""
ENGINES = APIS = 2
KILL_EVERY_S = 30.0
WARM_S = 60.0
PAUSE_S = 1.0
"""Between two requests of a client, so that a soak leaves something of the machine to others."""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each engine."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def service(head: Head, notes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    application = {
        "import_path": "tests.serving.ray_app:build",
        "args": {"notes": str(notes), "pass_s": 0.05},
        "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}},
    }
    folder = tmp_path_factory.mktemp("serve")
    with deployed(head, folder, application=application, engines=ENGINES, apis=APIS) as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as running:
        yield running


def asked(service: Service, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(service.url + path, data, SEND), timeout=60) as answer:
        return json.load(answer)


def noted(notes: Path, service: Service, name: str) -> list[float]:
    """A number of every engine that runs; one that has had nothing to do has no file."""
    files = [notes / f"{replica}.json" for replica in service.replicas("Engine")]
    said = [json.loads(file.read_text()) if file.exists() else {} for file in files]
    return [one.get(f"addiffusion_serve_{name}", 0.0) for one in said]


def both_draw(notes: Path, service: Service) -> None:
    wait_for("work in both engines", lambda: min(noted(notes, service, "slots_busy")) > 0, timeout_s=20)


def idle(notes: Path, service: Service) -> bool:
    return noted(notes, service, "slots_busy") == noted(notes, service, "queue_images") == [0.0] * ENGINES


def test_progress_is_that_of_the_oldest_call_and_interrupt_ends_all(
    service: Service, notes: Path, pool: ThreadPoolExecutor
) -> None:
    body = {"prompt": "a toy scene", "steps": LONG, "batch_size": 2}
    calls = [pool.submit(asked, service, "/sdapi/v1/txt2img", body) for _ in range(4)]
    both_draw(notes, service)
    shown = [asked(service, "/sdapi/v1/progress") for _ in range(12)]
    assert len({one["state"]["job"] for one in shown}) == 1
    assert all(0 < one["progress"] < 1 and one["current_image"] for one in shown)
    asked(service, "/sdapi/v1/interrupt", {})
    for call in calls:
        answer = call.result(30)
        assert len(answer["images"]) == 2
        assert all(one["nfe"] < STOPS_AT for one in json.loads(answer["info"])["addiffusion"])
    wait_for("idle engines", lambda: idle(notes, service), timeout_s=20)
    assert asked(service, "/sdapi/v1/progress")["progress"] == 0


@pytest.mark.parametrize("action", ["stop", "continue"])
def test_an_override_reaches_the_engine_that_draws(
    service: Service, notes: Path, pool: ThreadPoolExecutor, action: str
) -> None:
    """The policy stops after 60 of 150 steps."""
    body = {"prompt": "a toy scene", "n": 2, "num_inference_steps": LONG, "stream": True}
    connections = [sent(service.address, "/v1/images/generations", body) for _ in range(4)]
    answers = [connection.getresponse() for connection in connections]
    both_draw(notes, service)
    for answer in answers:
        for image in (0, 1):
            name = answer.headers["X-Request-Id"]
            assert asked(service, f"/v1/images/{name}/steer", {"image": image, "action": action}) == {"accepted": True}
    for answer in answers:
        text = answer.read().decode()
        passes = [json.loads(line[6:])["addiffusion"]["nfe"] for line in text.splitlines() if line.startswith("data: ")]
        assert [count < STOPS_AT for count in passes] == [action == "stop"] * 2
        assert [count == LONG for count in passes] == [action == "continue"] * 2


def test_a_dead_engine_is_not_missed_by_who_steers(service: Service, notes: Path, pool: ThreadPoolExecutor) -> None:
    body = {"prompt": "a toy scene", "n": 2, "num_inference_steps": LONG, "full_run": True}
    calls = [pool.submit(asked, service, "/v1/images/generations", body) for _ in range(4)]
    both_draw(notes, service)
    service.kill("Engine", next(iter(service.replicas("Engine"))))
    steered = [asked(service, "/v1/images/img_0/steer", {"image": 0, "action": "stop"}) for _ in range(8)]
    assert steered == [{"accepted": True}] * 8
    assert [len(call.result(60)["data"]) for call in calls] == [2] * 4
    settled(service)


def test_a_dead_api_takes_its_requests_with_it_at_once_and_leaves_no_slot(
    service: Service, notes: Path, pool: ThreadPoolExecutor
) -> None:
    body = {"prompt": "a toy scene", "n": 1, "num_inference_steps": LONG, "full_run": True}

    def ask() -> int:
        connection = sent(service.address, "/v1/images/generations", body)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    calls: list[Future[int]] = []
    for _ in range(8):
        calls.append(pool.submit(ask))
        time.sleep(0.1)  # else Serve's proxy has not yet heard of the request before, and gives one API all of them
    both_draw(notes, service)
    service.kill("Api", next(iter(service.replicas("Api"))))
    assert {call.result(60) for call in calls} == {200, 500}
    settled(service)
    wait_for("idle engines", lambda: idle(notes, service), timeout_s=30)


def settled(service: Service) -> None:
    wait_for("all replicas", lambda: service.settled(ENGINES, APIS), timeout_s=UP_S, give_up=service.log)


# ---------------------------------------------------------------- soak


class Killer(threading.Thread):
    """Ends an engine from time to time, never the one that is there from the beginning."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self._service, self._over = service, threading.Event()
        self.spared = next(iter(service.replicas("Engine")))
        self.killed = 0

    def run(self) -> None:
        while not self._over.wait(KILL_EVERY_S):
            settled(self._service)
            victim = next(one for one in self._service.replicas("Engine") if one != self.spared)
            self._service.kill("Engine", victim)
            self.killed += 1

    def end(self) -> None:
        self._over.set()
        self.join(UP_S)


def memory(service: Service, engine: str) -> dict[str, int]:
    """Bytes of an engine, of the APIs and of Serve's proxies."""
    pids = [service.replicas("Engine")[engine], *service.replicas("Api").values()]
    head = psutil.Process(pids[0]).parents()
    proxies = [one for one in head[0].children(recursive=True) if "ProxyActor" in one.name()]
    named = {f"{name} {pid}": pid for name, pid in zip(("engine", "api", "api"), pids, strict=True)}
    named |= {f"proxy {one.pid}": one.pid for one in proxies}
    return {name: psutil.Process(pid).memory_info().rss for name, pid in named.items()}


def test_a_soak_with_engines_that_die_leaves_nothing_behind(service: Service, notes: Path) -> None:
    """Every request is answered or refused once, no slot leaks, memory stays; ADDIFFUSION_SOAK_S says how long."""
    crowd, killer = Crowd(service.address), Killer(service)
    crowd.run(min(WARM_S, SOAK_S / 2), pause_s=PAUSE_S)
    before = memory(service, killer.spared)
    killer.start()
    crowd.run(max(SOAK_S - WARM_S, SOAK_S / 2), pause_s=PAUSE_S)
    killer.end()
    settled(service)
    wait_for("idle engines", lambda: idle(notes, service), timeout_s=60)
    after = memory(service, killer.spared)
    shown = {name: f"{size / 1e6:.0f} > {after[name] / 1e6:.0f} MB" for name, size in before.items()}
    print(f"\n{SOAK_S:.0f} s, {killer.killed} engines killed, {dict(sorted(crowd.counts.items()))}, {shown}")
    refused = {"429 queue_full", "503 unavailable"}
    answered = {f"{kind} {said}" for kind in ("whole", "stream", "steered", "txt2img") for said in {"200", *refused}}
    # an engine that died after it had taken them in, and another one that has no room for them
    answered |= {f"{kind} 200 {code}" for kind in ("stream", "steered") for code in ("unavailable", "queue_full")}
    assert set(crowd.counts) <= answered | {
        "gone",
        "bad 400 invalid_value",
        "interrupt 200",
        "interrupt 503 unavailable",
    }
    assert {kind.split()[0] for kind in crowd.counts} == set(KINDS)
    assert killer.killed > 0
    assert all(after[name] < 1.2 * size for name, size in before.items())
