"""The reward service as a named Ray actor, and its client: the only file of this role that knows Ray."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from addiffusion.config import ScorersSection
from addiffusion.errors import AdDiffusionError, ClusterError, ScorerError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from reward_service.service import RewardService, ServiceStats

LoadScoring = Callable[[ScorersSection], Scoring]

DEFAULT_NAME = "reward"
MAX_CONCURRENT_CALLS = 1000
"""Calls the actor holds at once; its own queue bounds the images."""
MAX_TASK_RETRIES = 3
TEXT_CACHE_PROMPTS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """What a client needs to know of a running service."""

    section: ScorersSection
    names: tuple[str, ...]
    """Every score column a request may ask for."""
    clip_width: int
    dino_width: int
    pid: int
    """Process that scores; another one after a restart."""


class RewardActor:
    """One process that scores for all workers.

    It holds nothing but caches: after a crash Ray starts it anew and sends the unanswered calls again.
    """

    _kind = "loading"  # Ray asks for the repr of an actor whose constructor has failed, too

    def __init__(self, section: ScorersSection, load: LoadScoring | None = None) -> None:
        import torch  # noqa: PLC0415 - only the actor's process needs torch and the scorers, not every caller's

        self._section = section
        torch.set_num_threads(1)  # the same arithmetic as the serial twin, and no contention with the workers
        self._service = RewardService((load or _load_scoring)(section), section)
        self._kind = section.kind

    def __repr__(self) -> str:
        return f"RewardActor({self._kind})"

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """See ``RewardService.score``."""
        return await self._service.score(request)

    async def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """See ``RewardService.embed_text``."""
        return await self._service.embed_text(prompts)

    async def facts(self) -> ServiceFacts:
        """What this service scores with."""
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


def _cause_of(error: RayTaskError) -> AdDiffusionError:
    """The error that was raised in the actor, without Ray's wrapping."""
    cause = error.cause
    return cause if isinstance(cause, AdDiffusionError) else ScorerError(f"The scorers failed: {cause!r}")


def _load_scoring(section: ScorersSection) -> Scoring:
    from addiffusion.scorers.families import load_scoring  # noqa: PLC0415 - see RewardActor.__init__

    return load_scoring(section)


class RemoteScoring:
    """``Scoring`` by the reward service. Cheap to pickle and to hand to every worker; text embeddings are cached here.

    Arrays in replies are read-only: they may lie in Ray's shared memory.
    """

    def __init__(self, actor: ActorHandle[Any], facts: ServiceFacts) -> None:
        self.actor = actor
        self._facts = facts
        self._text_cache: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        """Every score column a request may ask for."""
        return self._facts.names

    @property
    def clip_width(self) -> int:
        """Width of CLIP image and text embeddings."""
        return self._facts.clip_width

    @property
    def dino_width(self) -> int:
        """Width of DINO features."""
        return self._facts.dino_width

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, e) L2-normalised CLIP text embeddings.

        Raises:
            ScorerError: the service is gone, or did not answer in time.
        """
        missing = tuple(prompt for prompt in dict.fromkeys(prompts) if prompt not in self._text_cache)
        fresh = dict(zip(missing, self._get(self.actor.embed_text.remote(missing)), strict=True)) if missing else {}
        rows = [fresh[prompt] if prompt in fresh else self._text_cache[prompt] for prompt in prompts]
        self._text_cache.update(fresh)
        while len(self._text_cache) > TEXT_CACHE_PROMPTS:
            self._text_cache.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, self.clip_width), np.float32)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores and embeddings, in the order of the request's images.

        Raises:
            ContractError: the request is malformed.
            ScorerError: the service is gone, or did not answer in time.
        """
        return self._get(self.actor.score.remote(request))

    def stats(self) -> ServiceStats:
        """The service's counters since it last started."""
        return self._get(self.actor.stats.remote())

    def _get(self, answer: ray.ObjectRef[Any]) -> Any:
        timeout_s = self._facts.section.timeout_s
        try:
            return ray.get(answer, timeout=timeout_s)
        except GetTimeoutError as error:
            raise ScorerError(
                f"The reward service did not answer within scorers.timeout_s={timeout_s:g} s; "
                "see its log for why, or raise the limit.",
                timeout_s=timeout_s,
            ) from error
        except RayActorError as error:
            raise ScorerError(f"The reward service is gone, and Ray could not bring it back: {error}") from error
        except RayTaskError as error:
            raise _cause_of(error) from error


def get_or_create(
    section: ScorersSection,
    *,
    namespace: str,
    name: str = DEFAULT_NAME,
    detached: bool = False,
    load: LoadScoring | None = None,
    start_timeout_s: float = 180.0,
) -> RemoteScoring:
    """The reward service called ``name``, started if there is none; returns when it is ready to score.

    A service that is not ``detached`` ends with the driver that started it. ``load`` builds the scorers in the
    actor's process; by default the suite of ``section``.

    Raises:
        ClusterError: it did not start in time, its scorers can't be loaded, or a service of other settings has the
            name already.
    """
    options: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached" if detached else "non_detached",
        "get_if_exists": True,
        "num_cpus": section.cpus,
        "num_gpus": section.gpus,
        "max_restarts": -1,
        "max_task_retries": MAX_TASK_RETRIES,
        "max_concurrency": MAX_CONCURRENT_CALLS,
    }
    actor = cast("ActorHandle[Any]", ray.remote(RewardActor).options(**options).remote(section, load))
    facts = _ready_facts(actor, name, start_timeout_s)
    if facts.section != section:
        raise ClusterError(
            f"A reward service named {name!r} with other scorer settings runs in namespace {namespace!r}; "
            "stop it, or choose another name.",
            name=name,
            namespace=namespace,
        )
    return RemoteScoring(actor, facts)


def connect(*, namespace: str, name: str = DEFAULT_NAME, start_timeout_s: float = 180.0) -> RemoteScoring:
    """The running reward service called ``name``, for processes that only know where to look for it.

    Raises:
        ClusterError: there is none, or it is not ready in time.
    """
    try:
        actor = ray.get_actor(name, namespace=namespace)
    except ValueError as error:
        raise ClusterError(
            f"No reward service named {name!r} runs in namespace {namespace!r}; start it first (get_or_create).",
            name=name,
            namespace=namespace,
        ) from error
    return RemoteScoring(actor, _ready_facts(actor, name, start_timeout_s))


def _ready_facts(actor: ActorHandle[Any], name: str, start_timeout_s: float) -> ServiceFacts:
    try:
        return cast("ServiceFacts", ray.get(actor.facts.remote(), timeout=start_timeout_s))
    except GetTimeoutError as error:
        raise ClusterError(
            f"The reward service {name!r} was not ready after {start_timeout_s:g} s; "
            "free CPUs for it (scorers.cpus), or raise cluster.start_timeout_s.",
            name=name,
        ) from error
    except RayActorError as error:
        reason = str(error).strip().splitlines()[-1]  # of a failed constructor: the last line of its traceback
        raise ClusterError(f"The reward service {name!r} could not start: {reason}", name=name) from error
