"""``Scoring`` by the least loaded replica of a reward service, with a cache of text embeddings; free of Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from addiffusion.config import ScorersSection
from addiffusion.errors import AdDiffusionError, ClusterError, RolloutError, ScorerError
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.text_cache import TextCache
from reward_service.stats import ServiceStats

TEXT_CACHE_PROMPTS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """Settings and widths of a running service."""

    section: ScorersSection
    names: tuple[str, ...]
    """Every score column a request may ask for."""
    clip_width: int
    dino_width: int
    pid: int
    """Process that scores; another one after a restart."""

    def require(self, section: ScorersSection, *, namespace: str, name: str) -> None:
        """Refuse a service of other settings than ``section``.

        Raises:
            ClusterError: this is one; the message names the keys.
        """
        keys = [key for key in type(section).model_fields if getattr(self.section, key) != getattr(section, key)]
        if keys:
            others = ", ".join(f"scorers.{key}" for key in keys)
            raise ClusterError(
                f"A reward service named {name!r} with other {others} runs in namespace {namespace!r}; stop it with "
                f"`addiffusion reward stop {name}`, or choose another scorers.service.",
                name=name,
                namespace=namespace,
            )


class Replicas(Protocol):
    """The processes of one service, by index. Calls raise ``ScorerError`` where no answer comes in time."""

    def loads(self) -> Sequence[int | None]:
        """Images that wait or are being scored, per replica; None for one that does not answer at once."""
        ...

    def score(self, index: int, request: ScoreRequest) -> ScoreReply:
        """Scores by one replica."""
        ...

    def embed_text(self, index: int, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Text embeddings by one replica."""
        ...

    def stats(self) -> Sequence[ServiceStats]:
        """The counters of each replica since it last started."""
        ...


class RemoteScoring:
    """``Scoring`` by the replicas of a reward service. Cheap to pickle and to hand to every worker.

    Text embeddings are cached here. Arrays in replies are read-only: they may lie in shared memory.
    """

    def __init__(self, replicas: Replicas, facts: ServiceFacts) -> None:
        self.replicas = replicas
        self._facts = facts
        self._texts = TextCache(self._embed_text, capacity=TEXT_CACHE_PROMPTS)
        self._calls = 0

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
        return np.stack(self._texts.rows(prompts)) if prompts else np.zeros((0, self.clip_width), np.float32)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores and embeddings, in the order of the request's images.

        Raises:
            ContractError: the request is malformed.
            ScorerError: the service is gone, or did not answer in time.
        """
        return self.replicas.score(self._choose(), request)

    def stats(self) -> Sequence[ServiceStats]:
        """Each replica's counters since it last started."""
        return self.replicas.stats()

    def _embed_text(self, prompts: Sequence[str]) -> list[NDArray[np.float32]]:
        return list(self.replicas.embed_text(self._choose(), tuple(prompts)))

    def _choose(self) -> int:
        """The replica for the next call. Ties go round, and clients in different processes begin elsewhere."""
        if self._facts.section.replicas == 1:
            return 0
        self._calls += 1
        return least_loaded(self.replicas.loads(), first=os.getpid() + self._calls)


def least_loaded(loads: Sequence[int | None], *, first: int) -> int:
    """Index of the smallest load, counting from ``first`` where several are equal.

    A replica that does not answer (it restarts, or its process is starved) is chosen only if none does.
    """
    order = [(first + step) % len(loads) for step in range(len(loads))]
    known = [(load, index) for index in order if (load := loads[index]) is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else order[0]


def service_gone(error: Exception) -> AdDiffusionError:
    """The error of a call whose replica's process is gone for good.

    Args:
        error: says so; a process that refused to start again ends the run with its own reason.
    """
    kind, message = last_words(error)
    if kind == RolloutError.__name__:
        return RolloutError(message)
    return ScorerError(f"The reward service is gone, and Ray could not bring it back: {error}")


def last_words(error: Exception) -> tuple[str, str]:
    """Class and message in the last line of a failed constructor's traceback; no class if it is not this project's."""
    last = str(error).strip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    path = f"{RolloutError.__module__}."
    return (kind.removeprefix(path), message) if kind.startswith(path) and message else ("", last)
