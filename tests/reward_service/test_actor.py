"""The named actor: found by name, shared by callers, killed and back without a lost request."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from addiffusion.config import ScorersSection
from addiffusion.errors import ClusterError, ContractError, RolloutError, ScorerError
from addiffusion.metrics import Meters
from addiffusion.records import ScoreReply
from launch.runtime.meters import replica_meters
from reward_service.actor import RayReplicas, Start, connect, get_or_create, service_names, stop
from reward_service.client import RemoteScoring
from reward_service.metrics import ALL, QUEUE_DEPTH
from tests.reward_service.toy_scoring import (
    OnceLostScoring,
    ToyScoring,
    assert_same_reply,
    load_lost_toy,
    load_missing_weights,
    load_slow_toy,
    make_request,
)

SECTION = ScorersSection(batch_images=8, max_wait_ms=2.0, timeout_s=60.0, cpus=0.1)


@pytest.fixture(scope="module")
def meters(ray_cluster: str) -> Meters:
    """One value of every metric: Ray's agent collects every few seconds, and the last test looks."""
    probe = replica_meters("probe")
    for metric in ALL:
        probe.record(metric, 3.0, **dict.fromkeys(metric.tags, "clip"))
    return probe


@pytest.fixture(scope="module")
def scoring(ray_cluster: str, meters: Meters) -> Iterator[RemoteScoring]:
    remote = get_or_create(
        SECTION,
        namespace=ray_cluster,
        name="shared-reward",
        load=load_slow_toy,
        start=Start(meters=replica_meters),
    )
    yield remote
    stop(remote)


def only_actor(scoring: RemoteScoring) -> Any:
    assert isinstance(scoring.replicas, RayReplicas)
    return scoring.replicas.actors[0]


def pid_of(actor: Any) -> int:
    return ray.get(actor.facts.remote(), timeout=60).pid


def test_scores_through_ray_are_bitwise_the_direct_ones(scoring: RemoteScoring) -> None:
    request = make_request(3, 5)
    assert_same_reply(scoring.score(request), ToyScoring(SECTION).score(request))
    assert (scoring.clip_width, scoring.dino_width) == (ToyScoring().clip_width, ToyScoring().dino_width)


def test_large_images_travel_through_shared_memory_unharmed(scoring: RemoteScoring) -> None:
    request = make_request(4, 8, size=128)
    assert request.images.nbytes > 100_000
    assert_same_reply(scoring.score(request), ToyScoring(SECTION).score(request))


def test_text_is_embedded_once_per_prompt(scoring: RemoteScoring) -> None:
    prompts = ("a red circle", "a blue square", "a red circle")
    expected = ToyScoring().embed_text(prompts)
    before = scoring.stats()[0].prompt_count
    for _ in range(2):
        np.testing.assert_array_equal(scoring.embed_text(prompts), expected)
        assert scoring.stats()[0].prompt_count == before + 2
    assert scoring.embed_text(()).shape == (0, scoring.clip_width)


def test_the_same_name_is_the_same_service(scoring: RemoteScoring, ray_cluster: str) -> None:
    again = get_or_create(SECTION, namespace=ray_cluster, name="shared-reward", load=load_slow_toy)
    before = scoring.stats()[0].request_count
    again.score(make_request(0, 2))
    assert scoring.stats()[0].request_count == before + 1


def test_a_service_is_found_by_its_name(scoring: RemoteScoring, ray_cluster: str) -> None:
    found = connect(namespace=ray_cluster, name="shared-reward")
    assert_same_reply(found.score(make_request(0, 2)), scoring.score(make_request(0, 2)))
    with pytest.raises(ClusterError, match="No reward service named 'nobody'"):
        connect(namespace=ray_cluster, name="nobody")


def test_another_configuration_under_the_same_name_is_refused(scoring: RemoteScoring, ray_cluster: str) -> None:
    other = SECTION.model_copy(update={"batch_images": 4})
    with pytest.raises(ClusterError, match=r"'shared-reward' with other scorers\.batch_images runs"):
        get_or_create(other, namespace=ray_cluster, name="shared-reward", load=load_slow_toy)


def actors_of(namespace: str, name: str) -> set[str]:
    found = ray.util.list_named_actors(all_namespaces=True)
    return {one["name"] for one in found if one["namespace"] == namespace and one["name"].startswith(f"reward:{name}:")}


def test_a_refused_start_leaves_no_actor_behind(scoring: RemoteScoring, ray_cluster: str) -> None:
    """More replicas than there are would have to be made: settings are compared before."""
    other = SECTION.model_copy(update={"replicas": 3})
    with pytest.raises(ClusterError, match=r"other scorers\.replicas runs"):
        get_or_create(other, namespace=ray_cluster, name="shared-reward", detached=True, load=load_slow_toy)
    assert actors_of(ray_cluster, "shared-reward") == {"reward:shared-reward:0"}


def test_what_a_failed_start_has_made_is_ended(ray_cluster: str) -> None:
    """Whether its scorers can't be loaded or there is no room for all replicas."""
    roomless = SECTION.model_copy(update={"replicas": 2, "cpus": 3.0})
    with pytest.raises(ClusterError, match="was not ready after"):
        get_or_create(
            roomless,
            namespace=ray_cluster,
            name="roomless",
            detached=True,
            load=load_slow_toy,
            start=Start(timeout_s=10),
        )
    with pytest.raises(ClusterError, match="could not start"):
        get_or_create(SECTION, namespace=ray_cluster, name="unloadable", detached=True, load=load_missing_weights)
    deadline = time.monotonic() + 60
    while actors_of(ray_cluster, "roomless") | actors_of(ray_cluster, "unloadable"):
        assert time.monotonic() < deadline, "actors of a failed start are left"
        time.sleep(0.2)


def test_a_lost_device_is_a_new_process_and_no_lost_request(ray_cluster: str, tmp_path: Path) -> None:
    """Requests that waited are answered by the next process."""
    service = get_or_create(
        SECTION, namespace=ray_cluster, name="once-lost", load=partial(OnceLostScoring, marker=tmp_path / "lost")
    )
    actor, victim = only_actor(service), pid_of(only_actor(service))
    answers = [actor.score.remote(make_request(seed, 3)) for seed in range(5)]
    for seed, reply in enumerate(ray.get(answers, timeout=120)):
        assert_same_reply(reply, ToyScoring(SECTION).score(make_request(seed, 3)))
    assert pid_of(actor) != victim
    stop(service)


def test_a_device_that_stays_lost_ends_the_run_with_its_reason(ray_cluster: str) -> None:
    """After a few processes in a row, instead of one error per image for ever."""
    service = get_or_create(SECTION, namespace=ray_cluster, name="lost", load=load_lost_toy)
    with pytest.raises(RolloutError, match=r"lost its device 3 times in a row .*device-side assert triggered\)"):
        service.score(make_request(0, 3))
    stop(service)


def test_the_actors_own_errors_arrive_as_they_were_raised(scoring: RemoteScoring) -> None:
    with pytest.raises(ScorerError, match="exploded") as caught:
        scoring.score(make_request(0, 2, names=("explode",)))
    assert type(caught.value) is ScorerError
    assert caught.value.facts["names"] == ("explode",)
    with pytest.raises(ContractError, match="3 prompts for 2 images"):
        scoring.score(replace(make_request(0, 2), prompts=("a", "b", "c")))


def test_a_worker_in_another_process_and_the_driver_share_it(scoring: RemoteScoring) -> None:
    requests = [make_request(seed, count) for seed, count in enumerate((3, 5, 1))]

    @ray.remote(num_cpus=0.1)
    def work(remote: RemoteScoring) -> list[ScoreReply]:
        return [remote.score(request) for request in requests]

    theirs = work.remote(scoring)
    ours = [scoring.score(request) for request in requests]
    for request, left, right in zip(requests, ours, ray.get(theirs, timeout=120), strict=True):
        assert_same_reply(left, right)
        assert_same_reply(left, ToyScoring(SECTION).score(request))


def test_scorers_that_cant_be_loaded_are_one_sentence(ray_cluster: str) -> None:
    with pytest.raises(ClusterError, match=r"'broken' could not start: The toy has no weights") as caught:
        get_or_create(SECTION, namespace=ray_cluster, name="broken", load=load_missing_weights)
    assert "\n" not in caught.value.message


def test_a_deadline_names_its_limit(scoring: RemoteScoring) -> None:
    facts = ray.get(only_actor(scoring).facts.remote(), timeout=60)
    hasty = RemoteScoring(RayReplicas([only_actor(scoring)], timeout_s=0.01), facts)
    with pytest.raises(ScorerError, match=r"scorers\.timeout_s=0\.01 s"):
        hasty.score(make_request(0, 2))


def test_a_killed_service_answers_all_forty_requests(scoring: RemoteScoring) -> None:
    actor = only_actor(scoring)
    victim = pid_of(actor)
    requests = [make_request(seed, 1 + seed % 9) for seed in range(40)]
    answers = [actor.score.remote(request) for request in requests[:20]]
    done, busy = ray.wait(answers, num_returns=2, timeout=60)
    os.kill(victim, signal.SIGKILL)
    answers += [actor.score.remote(request) for request in requests[20:]]
    for request, reply in zip(requests, ray.get(answers, timeout=120), strict=True):
        assert_same_reply(reply, ToyScoring(ScorersSection(batch_images=16)).score(request))
    assert len(done) == 2
    assert busy
    assert pid_of(actor) != victim


def test_replicas_share_the_work_and_are_told_apart(ray_cluster: str) -> None:
    section = SECTION.model_copy(update={"replicas": 2})
    service = get_or_create(section, namespace=ray_cluster, name="pair", load=load_slow_toy)
    assert "pair" in service_names(namespace=ray_cluster)
    found = connect(namespace=ray_cluster, name="pair")
    for seed in range(4):
        request = make_request(seed, 3)
        assert_same_reply(found.score(request), ToyScoring(SECTION).score(request))
    assert [stats.request_count for stats in service.stats()] == [2, 2], "idle replicas take turns"
    assert service.replicas.loads() == [0, 0]
    assert isinstance(service.replicas, RayReplicas)
    shown = ray.get([actor.__ray_call__.remote(repr) for actor in service.replicas.actors], timeout=60)
    assert shown == [f"RewardActor(pair {number}/2, embedded scorers on auto)" for number in (1, 2)]
    stop(service)


ANOTHER_DRIVER = """
import sys
import ray
from reward_service.actor import get_or_create, service_names
from tests.reward_service.test_actor import SECTION
from tests.reward_service.toy_scoring import load_slow_toy, make_request

address, namespace = sys.argv[1:]
ray.init(address=address, namespace=namespace, log_to_driver=False)
shared = get_or_create(SECTION, namespace=namespace, name="of-all", detached=True, load=load_slow_toy)
own = get_or_create(SECTION, namespace=namespace, name="of-one", load=load_slow_toy)
for scoring in (shared, own):
    scoring.score(make_request(0, 3))
assert {"of-all", "of-one"} <= set(service_names(namespace=namespace))
"""


def test_a_driver_leaves_the_shared_service_and_takes_its_own_along(ray_cluster: str) -> None:
    address = ray.get_runtime_context().gcs_address
    subprocess.run([sys.executable, "-c", ANOTHER_DRIVER, address, ray_cluster], check=True, timeout=200)
    shared = connect(namespace=ray_cluster, name="of-all")
    assert [stats.request_count for stats in shared.stats()] == [1]
    assert_same_reply(shared.score(make_request(1, 3)), ToyScoring(SECTION).score(make_request(1, 3)))
    stop(shared)
    deadline = time.monotonic() + 60
    while "of-one" in service_names(namespace=ray_cluster):  # Ray ends it a moment after its driver
        assert time.monotonic() < deadline
        time.sleep(0.1)


Series = dict[tuple[str, ...], float]


def exported() -> tuple[Series, dict[str, str]]:
    """What Prometheus would get of this node: value by name, replica and scorer; and help text by name."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    series, texts = Series(), dict[str, str]()
    for line in lines:
        if line.startswith("# HELP "):
            name, text = line.removeprefix("# HELP ").split(" ", 1)
            texts[name] = text
        elif line.startswith("ray_addiffusion_reward_"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            tags = (labels[key] for key in ("replica", "scorer") if key in labels)
            series[line.split("{")[0], *tags] = float(line.rsplit(" ", 1)[1])
    return series, texts


@pytest.mark.usefixtures("scoring")
def test_every_metric_reaches_prometheus_with_its_unit(meters: Meters) -> None:
    ending = {"gauge": "", "counter": "_total", "histogram": "_count"}  # Ray's sum is a guess from the buckets
    probes = {(f"ray_{metric.name}{ending[metric.kind]}", "probe", *("clip" for _ in metric.tags)) for metric in ALL}
    series, texts = exported()
    deadline = time.monotonic() + 60
    while not probes <= series.keys():
        assert time.monotonic() < deadline, probes - series.keys()
        meters.record(QUEUE_DEPTH, 3.0)  # Ray forgets a gauge that nobody sets any more
        time.sleep(0.5)
        more, more_texts = exported()
        series, texts = series | more, texts | more_texts
    assert {series[probe] for probe in probes} == {3.0, 1.0}, "3 of a gauge or counter, 1 value of a histogram"
    for metric in ALL:
        name = f"ray_{metric.name}{ending[metric.kind].removesuffix('_count')}"
        assert texts[name] == f"{metric.description} [{metric.unit}]"
    assert series["ray_addiffusion_reward_images_total", "shared-reward 1/1"] > 0
