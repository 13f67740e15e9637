"""Who gets which GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addiffusion.config import Config
from addiffusion.errors import ClusterError
from launch.runtime.gpus import GpuOffer, described, shared_out
from launch.runtime.placement import Offer

PIPELINE = {"kind": "stable_diffusion", "path": "somewhere"}


def shares(gpus: float, offer: GpuOffer | None = None, **sections: dict[str, object]) -> tuple[float, float, str]:
    """GPUs of a worker, of a replica of the reward service, and the workers' device."""
    config = Config.model_validate(sections)
    placed = shared_out(config, offer or GpuOffer(total=gpus), where="this machine")
    return placed.rollout.gpus_per_worker, placed.scorers.gpus, placed.backbone.device


@pytest.mark.parametrize(
    ("gpus", "sections", "expected"),
    [
        (0, {}, (0, 0, "auto")),
        (8, {"rollout": {"workers": 8}}, (1, 0, "auto")),
        (8, {"rollout": {"workers": 7}}, (1, 1, "auto")),
        (8, {"rollout": {"workers": 4}, "scorers": {"replicas": 5}}, (1, 0, "auto")),
        (8, {"rollout": {"workers": 8}, "backbone": {"device": "cpu"}}, (0, 1, "cpu")),
        (8, {"rollout": {"workers": 8}, "backbone": {"device": "cuda:3"}}, (0, 1, "cuda:3")),  # that one, for all
        (1, {"rollout": {"workers": 2, "gpus_per_worker": 0.5}}, (0.5, 0, "auto")),
        (1, {"rollout": {"workers": 2, "gpus_per_worker": 0.4}, "scorers": {"gpus": 0.2}}, (0.4, 0.2, "auto")),
        (1, {"rollout": {"workers": 2}}, (0, 1, "cpu")),  # the embedded world has no need of it
        (1, {"rollout": {"workers": 1}}, (1, 0, "auto")),
        (2, {"rollout": {"workers": 2}, "ppo": {"gpus_per_learner": 0.5}}, (0, 1, "cpu")),
        (4, {"rollout": {"workers": 2}, "scorers": {"service": "shared"}}, (1, 0, "auto")),
    ],
)
def test_one_gpu_for_each_worker_where_there_are_enough(
    gpus: float, sections: dict[str, dict[str, object]], expected: tuple[float, float, str]
) -> None:
    assert shares(gpus, **sections) == expected


@pytest.mark.parametrize(
    ("backbone", "gpus", "workers", "share"),
    [
        (PIPELINE, 1, 2, "0.5"),
        (PIPELINE, 2, 8, "0.25"),
        ({**PIPELINE, "device": "cuda"}, 2, 3, "0.5"),
        ({"device": "cuda"}, 1, 3, "0.33"),
    ],
)
def test_too_few_are_not_shared_unasked(backbone: dict[str, object], gpus: float, workers: int, share: str) -> None:
    with pytest.raises(ClusterError) as caught:
        shares(gpus, backbone=backbone, rollout={"workers": workers})
    for words in (f"{workers} rollout workers want a GPU each", f"this machine has {gpus}", "backbone.device=cpu"):
        assert words in caught.value.message
    assert f"rollout.gpus_per_worker={share}," in caught.value.message
    assert shares(gpus, backbone=backbone, rollout={"workers": workers, "gpus_per_worker": float(share)})[0] == float(
        share
    )


@given(
    gpus=st.integers(0, 9), workers=st.integers(1, 9), replicas=st.integers(1, 3),
    device=st.sampled_from(["auto", "cuda", "cpu"]), learner=st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
def test_what_is_decided_never_exceeds_what_there_is(
    gpus: int, workers: int, replicas: int, device: str, learner: float
) -> None:
    try:
        worker, replica, _ = shares(
            gpus,
            rollout={"workers": workers},
            scorers={"replicas": replicas},
            backbone={"device": device},
            ppo={"gpus_per_learner": learner},
        )
    except ClusterError:
        assert device == "cuda"
        assert 0 < gpus < workers + learner
        return
    assert worker in {0, 1}
    assert replica in {0, 1}
    if worker or replica:
        assert workers * worker + replicas * replica + learner <= gpus


HEAD, FAT, THIN = {"GPU": 1.0, "reward": 1.0}, {"GPU": 4.0, "rollout": 4.0}, {"GPU": 0.0, "rollout": 2.0}


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([HEAD, FAT], 4, (1, 1)),
        ([HEAD, FAT, FAT], 2, (1, 1)),
        ([{"reward": 1.0}, FAT], 2, (1, 0)),  # the head has no GPU: the service would wait for one for ever
        ([HEAD, THIN], 2, (0, 1)),  # nor have the workers' nodes
        ([{"GPU": 2.0, "reward": 1.0, "rollout": 2.0}], 2, (1, 0)),
    ],
)
def test_on_a_cluster_the_nodes_of_a_role_count(
    nodes: list[dict[str, float]], workers: int, expected: tuple[float, float]
) -> None:
    names = {name for node in nodes for name in node}
    present = {name: sum(node.get(name, 0.0) for node in nodes) for name in names}
    offer = Offer(present=present, possible={}, nodes=nodes).gpus()
    assert shares(0, offer, rollout={"workers": workers})[:2] == expected


@pytest.mark.parametrize(
    ("gpus", "sections", "said"),
    [
        (0, {}, "2 rollout workers, reward service and learner"),
        (8, {"rollout": {"workers": 8}},
         "8 rollout workers (a GPU each), reward service (the first GPU, shared) and learner (cpu)"),
        (8, {}, "2 rollout workers (a GPU each), reward service (a GPU) and learner (cpu)"),
        (1, {}, "2 rollout workers (cpu), reward service (a GPU) and learner (cpu)"),
        (1, {"rollout": {"workers": 2, "gpus_per_worker": 0.25}, "ppo": {"gpus_per_learner": 0.25}},
         "2 rollout workers (0.25 GPU each), reward service (the first GPU, shared) and learner (the first GPU, "
         "shared)"),
        (3, {"ppo": {"gpus_per_learner": 0.25, "learners": 2}},
         "2 rollout workers (a GPU each), reward service (the first GPU, shared) and learner (0.25 GPU each)"),
    ],
)  # fmt: skip
def test_what_each_role_works_on_is_said(gpus: float, sections: dict[str, dict[str, object]], said: str) -> None:
    config = shared_out(Config.model_validate(sections), GpuOffer(total=gpus), where="this machine")
    assert described(config, gpus) == said


WORKERS = 8
SCRIPT = f"""
import json, os
from addiffusion.config import Config
from launch.runtime.cluster import prepare_environment
prepare_environment()
import ray
ray.init(num_cpus=8, num_gpus={WORKERS}, include_dashboard=False, log_to_driver=False, namespace="addiffusion")
from launch.runtime.distributed import distributed_components
config = Config.model_validate({{
    "rollout": {{"workers": {WORKERS}, "cpus_per_worker": 0.1}}, "scorers": {{"cpus": 0.1}},
    "cluster": {{"start_timeout_s": 400}},
}})
with distributed_components(config) as components:
    fleet = components.rollouts.fleet
    seen = lambda _: [ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    asked = [fleet.actor(one).apply.remote(seen) for one in fleet.up]
    print(json.dumps({{"seen": ray.get(asked, timeout=400), "posts": components.devices}}))
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_workers_get_eight_gpus() -> None:
    """Ray is told of GPUs that are not there; it hands them out all the same."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(ids for ids, _ in found["seen"]) == [[number] for number in range(WORKERS)]
    assert sorted(visible for _, visible in found["seen"]) == [str(number) for number in range(WORKERS)]
    assert found["posts"].startswith("8 rollout workers (a GPU each)")
