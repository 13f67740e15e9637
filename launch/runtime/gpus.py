"""Who gets which GPUs: a whole one for each rollout worker where there are any; they share where a share is given."""

from __future__ import annotations

import math
from dataclasses import dataclass

from addiffusion.config import Config
from addiffusion.errors import ClusterError


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOffer:
    """GPUs of a machine or a cluster."""

    total: float
    per_worker: float | None = None
    """GPUs for each rollout worker on the poorest of the nodes they are pinned to; None: they run anywhere."""
    service: float | None = None
    """GPUs the workers leave on the nodes that the reward service is pinned to; None: it runs anywhere."""


def shared_out(config: Config, offer: GpuOffer, *, where: str) -> Config:
    """The configuration with the shares that it leaves at 0 decided.

    A rollout worker takes a GPU of its own. The embedded world, which was made for CPUs, stays there if its device is
    `auto` and there are too few. The reward service takes GPUs that are left over; else it works beside a worker.

    Raises:
        ClusterError: there are too few GPUs for the workers, and no share was given.
    """
    return _with_service(_with_workers(config, offer, where), offer)


def described(config: Config, gpus: float) -> str:
    """What each role of a configuration that ``shared_out`` returned works on; without GPUs just the roles."""
    rollout, scorers, learner = config.rollout, config.scorers, config.ppo
    workers = f"{rollout.workers} rollout worker{'s' * (rollout.workers > 1)}"
    if not gpus:
        return f"{workers}, reward service and learner"
    own = f"{workers} ({_share(rollout.gpus_per_worker, config.backbone.device, each=rollout.workers > 1)})"
    service = f"reward service ({_share(scorers.gpus, scorers.device, each=scorers.replicas > 1)})"
    here = "cuda" if learner.gpus_per_learner else "cpu"  # Ray hands no GPU out to this process
    on = _share(learner.gpus_per_learner if learner.learners else 0.0, here, each=learner.learners > 1)
    return f"{own}, {service} and learner ({on})"


def _with_workers(config: Config, offer: GpuOffer, where: str) -> Config:
    rollout, device = config.rollout, config.backbone.device
    if rollout.gpus_per_worker or not _wants(device) or not offer.total or offer.per_worker == 0:
        return config
    free = offer.total - _learner_gpus(config) - config.scorers.replicas * config.scorers.gpus
    each = free / rollout.workers if offer.per_worker is None else offer.per_worker
    if each >= 1:
        return config.model_copy(update={"rollout": rollout.model_copy(update={"gpus_per_worker": 1.0})})
    if device == "auto" and config.backbone.kind == "embedded":
        return config.model_copy(update={"backbone": config.backbone.model_copy(update={"device": "cpu"})})
    raise _too_few(config, offer, each=each, where=where)


def _with_service(config: Config, offer: GpuOffer) -> Config:
    scorers = config.scorers
    if scorers.gpus or not _wants(scorers.device) or scorers.service is not None:  # runs that share one agree on 0
        return config
    taken = _learner_gpus(config) + config.rollout.workers * config.rollout.gpus_per_worker
    left = offer.total - taken if offer.service is None else offer.service
    if left < scorers.replicas:
        return config
    return config.model_copy(update={"scorers": scorers.model_copy(update={"gpus": 1.0})})


def _wants(device: str) -> bool:
    """Whether a process takes the GPU that it is given; a device with a number is the user's own choice."""
    return device in {"auto", "cuda"}


def _learner_gpus(config: Config) -> float:
    return max(config.ppo.learners, 1) * config.ppo.gpus_per_learner


def _too_few(config: Config, offer: GpuOffer, *, each: float, where: str) -> ClusterError:
    workers = config.rollout.workers
    share = (
        "" if each <= 0 else f" share them by rollout.gpus_per_worker={math.floor(100 / math.ceil(1 / each)) / 100:g},"
    )
    return ClusterError(
        f"{workers} rollout workers want a GPU each, but {where} has {offer.total:g} for them and the other roles: "
        f"lower rollout.workers,{share} or set backbone.device=cpu.",
        needed=workers,
        present=offer.total,
    )


def _share(gpus: float, device: str, *, each: bool) -> str:
    """Of a process of some role."""
    apiece = " each" * each
    if gpus:
        return f"a GPU{apiece}" if gpus == 1 else f"{gpus:g} GPU{apiece}"
    return "the first GPU, shared" if device in {"auto", "cuda"} else device
