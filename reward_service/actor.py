"""The reward service as named Ray actors: the only file of this role that knows Ray."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util import list_named_actors

from addiffusion.config import ScorersSection
from addiffusion.errors import AdDiffusionError, ClusterError, ScorerError
from addiffusion.memory import without_garbage_search
from addiffusion.metrics import Meters, NoMeters
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from reward_service.client import RemoteScoring, ServiceFacts, last_words, service_gone
from reward_service.losses import Losses, end_if_device_lost
from reward_service.service import RewardService
from reward_service.stats import ServiceStats

LoadScoring = Callable[[ScorersSection], Scoring]
MakeMeters = Callable[[str], Meters]
"""By the name of a replica, in its process."""

DEFAULT_NAME: Final = "reward"
_CALLS: Final = {"max_restarts": -1, "max_task_retries": 3, "max_concurrency": 1000}
"""Options of each actor: it holds many calls at once, for its own queue bounds the images."""
START_TIMEOUT_S: Final = 180.0
PROBE_S: Final = 0.05
"""How long a client waits for replicas to say how busy they are."""
_PREFIX: Final = "reward:"
_SWITCH_S: Final = 5.0e-4
"""Longest hold of the interpreter while the scoring thread wants it: receiving a request must not hold up a pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Limits, resources and metrics with which the actors of a service start."""

    timeout_s: float = START_TIMEOUT_S
    """How long they may take."""
    resources: Mapping[str, float] = field(default_factory=dict[str, float])
    """Custom resources a node has to offer for a replica to run there."""
    meters: MakeMeters | None = None
    """Carries their metrics; None carries none."""


class RewardActor:
    """One process that scores for all workers: one replica of a service.

    It holds nothing but caches: after a crash Ray starts it anew and sends the unanswered calls again. A process whose
    device is lost ends itself; after ``MAX_LOSSES`` of these in a row the next one refuses to start.

    Args:
        section: what it scores with.
        load: builds the scorers; None builds those of ``section``.
        title: of this replica, in logs and metrics.
        meters: carries its metrics; None carries none.
    """

    _title = "loading"  # Ray asks for the repr of an actor whose constructor has failed, too

    def __init__(
        self,
        section: ScorersSection,
        load: LoadScoring | None = None,
        *,
        title: str = DEFAULT_NAME,
        meters: MakeMeters | None = None,
    ) -> None:
        with without_garbage_search():
            import torch  # noqa: PLC0415 - only the actor's process needs torch and the scorers, not every caller's

        sys.setswitchinterval(_SWITCH_S)
        self._section = section
        torch.set_num_threads(1)  # the same arithmetic as the serial twin, and no contention with the workers
        losses = Losses(ray.get_runtime_context().get_actor_id() or title)
        losses.check(title)
        try:
            scoring = (load or _load_scoring)(section)
        except (RuntimeError, AdDiffusionError) as error:
            end_if_device_lost(error, losses, what="can't load its scorers")
            raise
        self._service = RewardService(scoring, section, meters(title) if meters else NoMeters(), losses=losses)
        self._title = f"{title}, {section.kind} scorers on {section.device}"

    def __repr__(self) -> str:
        return f"RewardActor({self._title})"

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """See ``RewardService.score``."""
        return await self._service.score(request)

    async def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """See ``RewardService.embed_text``."""
        return await self._service.embed_text(prompts)

    async def load(self) -> int:
        """Images that wait or are being scored."""
        return self._service.load

    async def facts(self) -> ServiceFacts:
        """Settings and widths of this service."""
        return ServiceFacts(
            section=self._section,
            names=self._service.names,
            clip_width=self._service.clip_width,
            dino_width=self._service.dino_width,
            pid=os.getpid(),
        )

    async def stats(self) -> ServiceStats:
        """Counters since this process started."""
        return self._service.stats()


class RayReplicas:
    """The actors of one service, for ``RemoteScoring``."""

    def __init__(self, actors: Sequence[ActorHandle[Any]], *, timeout_s: float) -> None:
        self.actors = tuple(actors)
        self._timeout_s = timeout_s

    def loads(self) -> list[int | None]:
        """See ``Replicas.loads``."""
        answers: list[ray.ObjectRef[Any]] = [actor.load.remote() for actor in self.actors]
        done, _ = ray.wait(answers, num_returns=len(answers), timeout=PROBE_S)
        return [self._load(answer) if answer in done else None for answer in answers]

    def score(self, index: int, request: ScoreRequest) -> ScoreReply:
        """See ``Replicas.score``."""
        return self._get(self.actors[index].score.remote(request))

    def embed_text(self, index: int, prompts: Sequence[str]) -> NDArray[np.float32]:
        """See ``Replicas.embed_text``."""
        return self._get(self.actors[index].embed_text.remote(prompts))

    def stats(self) -> list[ServiceStats]:
        """See ``Replicas.stats``."""
        return [self._get(actor.stats.remote()) for actor in self.actors]

    def _load(self, answer: ray.ObjectRef[Any]) -> int | None:
        try:
            return cast("int", ray.get(answer, timeout=PROBE_S))
        except (GetTimeoutError, RayActorError):  # it restarts; the call itself will wait for it
            return None

    def _get(self, answer: ray.ObjectRef[Any]) -> Any:
        try:
            return ray.get(answer, timeout=self._timeout_s)
        except GetTimeoutError as error:
            raise ScorerError(
                f"The reward service did not answer within scorers.timeout_s={self._timeout_s:g} s; "
                "see its log for why, or raise the limit.",
                timeout_s=self._timeout_s,
            ) from error
        except RayActorError as error:
            raise service_gone(error) from error
        except RayTaskError as error:
            cause = error.cause
            ours = isinstance(cause, AdDiffusionError)
            raise (cause if ours else ScorerError(f"The scorers failed: {cause!r}")) from error


def get_or_create(
    section: ScorersSection,
    *,
    namespace: str,
    name: str = DEFAULT_NAME,
    detached: bool = False,
    load: LoadScoring | None = None,
    start: Start | None = None,
) -> RemoteScoring:
    """The reward service called ``name`` with all its replicas, started if missing; returns when it is ready to score.

    Nothing is started beside a running service of other settings, and what a failed start has begun is ended.

    Args:
        section: what it scores with, and how many replicas it has.
        namespace: Ray's, in which its name is unique.
        name: of the service.
        detached: False ends it with the driver that started it.
        load: builds the scorers in each actor's process; None builds those of ``section``.
        start: how its actors start.

    Raises:
        ClusterError: it did not start in time, its scorers can't be loaded, or a service of other settings has the
            name already.
    """
    start = start or Start()
    for index in _running(namespace).get(name, ()):
        found = _facts_of(_replica(namespace, name, index), name, start.timeout_s)
        found.require(section, namespace=namespace, name=name)
    options: dict[str, Any] = {
        "namespace": namespace,
        "lifetime": "detached" if detached else "non_detached",
        "num_cpus": section.cpus,
        "num_gpus": section.gpus,
        "resources": dict(start.resources),
        **_CALLS,
    }
    actors: list[ActorHandle[Any]] = []
    with ExitStack() as undo:
        for index in range(section.replicas):
            actor_class: Any = ray.remote(RewardActor).options(name=f"{_PREFIX}{name}:{index}", **options)
            title = f"{name} {index + 1}/{section.replicas}"
            try:
                actors.append(actor_class.remote(section, load, title=title, meters=start.meters))
                undo.callback(ray.kill, actors[-1])
            except ValueError:  # the name is taken: this one is not ours to end
                actors.append(_replica(namespace, name, index))
        facts = [_facts_of(actor, name, start.timeout_s) for actor in actors]
        for found in facts:  # somebody else may have started one meanwhile
            found.require(section, namespace=namespace, name=name)
        undo.pop_all()
    return RemoteScoring(RayReplicas(actors, timeout_s=section.timeout_s), facts[0])


def connect(*, namespace: str, name: str = DEFAULT_NAME, timeout_s: float | None = None) -> RemoteScoring:
    """The running reward service called ``name``, for processes that only know where to look for it.

    Calls wait as long as the service's own ``scorers.timeout_s``, or ``timeout_s``.

    Raises:
        ClusterError: there is none, or it is not ready in time.
    """
    found = _running(namespace).get(name)
    if not found:
        raise ClusterError(
            f"No reward service named {name!r} runs in namespace {namespace!r}; start it first (get_or_create).",
            name=name,
            namespace=namespace,
        )
    actors = [_replica(namespace, name, index) for index in found]
    facts = _facts_of(actors[0], name, timeout_s or START_TIMEOUT_S)
    return RemoteScoring(RayReplicas(actors, timeout_s=timeout_s or facts.section.timeout_s), facts)


def service_names(*, namespace: str) -> tuple[str, ...]:
    """Names of the reward services that run in ``namespace``."""
    return tuple(sorted(_running(namespace)))


def stop(scoring: RemoteScoring) -> None:
    """End all replicas of a service at once."""
    assert isinstance(scoring.replicas, RayReplicas)
    for actor in scoring.replicas.actors:
        ray.kill(actor)


def _facts_of(actor: ActorHandle[Any], name: str, start_timeout_s: float) -> ServiceFacts:
    try:
        return cast("ServiceFacts", ray.get(actor.facts.remote(), timeout=start_timeout_s))
    except GetTimeoutError as error:
        raise ClusterError(
            f"The reward service {name!r} was not ready after {start_timeout_s:g} s; "
            "free CPUs for it (scorers.cpus), or raise cluster.start_timeout_s.",
            name=name,
        ) from error
    except RayActorError as error:
        raise ClusterError(f"The reward service {name!r} could not start: {last_words(error)[1]}", name=name) from error


def _running(namespace: str) -> dict[str, list[int]]:
    """Indices of the replicas there are, by the name of their service."""
    running: defaultdict[str, list[int]] = defaultdict(list)
    for actor in cast("list[dict[str, str]]", list_named_actors(all_namespaces=True)):
        if actor["namespace"] == namespace and actor["name"].startswith(_PREFIX):
            name, _, index = actor["name"].removeprefix(_PREFIX).rpartition(":")
            running[name].append(int(index))
    return {name: sorted(indices) for name, indices in running.items()}


def _replica(namespace: str, name: str, index: int) -> ActorHandle[Any]:
    try:
        return ray.get_actor(f"{_PREFIX}{name}:{index}", namespace=namespace)
    except ValueError as error:
        raise ClusterError(
            f"The reward service {name!r} in namespace {namespace!r} is just ending; start again in a moment.",
            name=name,
        ) from error


def _load_scoring(section: ScorersSection) -> Scoring:
    with without_garbage_search():
        from addiffusion.scorers.factory import load_scoring  # noqa: PLC0415 - see RewardActor.__init__

    if section.kind == "pretrained" and section.image_reward.backend == "package":
        from reward_service.image_reward.actor import IsolatedImageReward  # noqa: PLC0415 - see RewardActor.__init__

        return load_scoring(section, IsolatedImageReward(section))
    return load_scoring(section)
