"""The best of an image's attempts: one that began again is told against what it gave up, and the better one goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from addiffusion.actions import Action
from addiffusion.config import RewardSection
from addiffusion.observation.clip import ImageScores
from addiffusion.reward import potential
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.latents import SlotSnapshot
from addiffusion.sampling.slot import SlotInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt at an image that was given up, as it waited for the decision."""

    snapshot: SlotSnapshot
    judged: ImageScores
    info: SlotInfo


@runtime_checkable
class RedrawnEpisode(Protocol):
    """An image under way that may begin again."""

    given_up: Attempt | None
    """The best attempt so far, until the present one is told against it."""


class BestAttempts:
    """What goes on after a redraw: of two attempts the one whose preview earned more by the reward's weights.

    Costs and passes of both stay spent. Without it a redraw may end worse than it began, and the last one that is
    allowed often does.
    """

    def __init__(
        self, reward: RewardSection, *, comparable: Callable[[SlotInfo, SlotInfo], bool] | None = None
    ) -> None:
        """For the slots of one engine.

        Args:
            reward: gives each score its weight and unit.
            comparable: whether a present attempt is as far as one that was given up: (now, then). None: by their steps.
        """
        self._reward = reward.model_copy(update={"bound": None})  # far from the reference it would make all alike
        self._comparable = comparable or _as_far

    def settle(
        self, engine: Engine, episodes: Mapping[int, RedrawnEpisode], judged: Mapping[int, ImageScores]
    ) -> dict[int, ImageScores]:
        """Bring back what is better than the present attempt.

        Args:
            engine: of the slots.
            episodes: in them.
            judged: scores of the slots that wait for a decision and were seen.

        Returns:
            Scores of what each of them waits with.
        """
        return {slot: self._better(engine, slot, episodes[slot], scores) for slot, scores in judged.items()}

    def give_up(
        self,
        engine: Engine,
        episodes: Mapping[int, RedrawnEpisode],
        judged: Mapping[int, ImageScores],
        actions: Mapping[int, Action],
    ) -> None:
        """Before actions are taken: keep the attempts that were seen and are given up by them.

        Args:
            engine: of the slots.
            episodes: in them.
            judged: scores of what the decisions saw, where they saw any.
            actions: the decisions.
        """
        for slot, action in actions.items():
            if action is Action.REDRAW and slot in judged and episodes[slot].given_up is None:
                episodes[slot].given_up = Attempt(
                    snapshot=engine.snapshot(slot), judged=judged[slot], info=engine.info(slot)
                )

    def _better(self, engine: Engine, slot: int, episode: RedrawnEpisode, now: ImageScores) -> ImageScores:
        then = episode.given_up
        if then is None or not self._comparable(engine.info(slot), then.info):
            return now
        episode.given_up = None
        if self._worth(then.judged) <= self._worth(now):
            return now
        engine.bring_back(slot, then.snapshot)
        return then.judged

    def _worth(self, judged: ImageScores) -> float:
        return float(potential(self._reward, judged.scores[None])[0])


def _as_far(now: SlotInfo, then: SlotInfo) -> bool:
    return now.step >= then.step
