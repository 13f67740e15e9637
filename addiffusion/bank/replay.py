"""Stop/continue episodes played from a bank: no diffusion model, no scorers, and bitwise the live ones on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from addiffusion.actions import FIRST_ACTIONS, Action
from addiffusion.bank.archive import Bank
from addiffusion.bank.oracle import oracle_end, reward_of_ends
from addiffusion.bank.trajectory import Trajectory
from addiffusion.config import Config, RewardSection, SamplerSection
from addiffusion.errors import ConfigError, ContractError
from addiffusion.observation.scalars import log_price
from addiffusion.policy import PolicyNetwork, choose
from addiffusion.records import TERM_NAMES, Episode, FailedEpisode, Ticket
from addiffusion.reward import compute_terms
from addiffusion.rollouts import Collected
from addiffusion.seeds import generator
from addiffusion.threads import torch_threads
from addiffusion.torch_typed import from_numpy

Chooser = Callable[[Trajectory, Ticket], int]
"""Picks the decision at which an episode stops; the last one is the full length."""

NO_IMAGE: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
"""A bank holds scores, not images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """Decisions of one episode: ``phi`` and ``logits`` of the whole path, the rest up to its end."""

    phi: NDArray[np.float32]
    logits: NDArray[np.float32]
    actions: NDArray[np.int64]
    log_prob: NDArray[np.float32]


class BankRollouts:
    """``addiffusion.rollouts.Rollouts`` from a bank.

    An episode equals the live one but for ``image`` (empty) and ``seconds`` (0), where stop was tried at every
    decision. Where it was not, a stop returns the image of the next tried one at its own NFE.
    """

    def __init__(self, bank: Bank, config: Config, *, chooser: Chooser | None = None) -> None:
        """Play the policy through ``bank``.

        Args:
            bank: of this configuration.
            config: the run's; ``policy.actions`` must be among ``BankPlan.replays``.
            chooser: who decides instead of the policy (demonstrations for offline learning).

        Raises:
            ConfigError: the policy may do something else.
        """
        known = bank.plan.replays
        unknown = [name for name in config.policy.actions if name not in known]
        if chooser is None and unknown:
            raise ConfigError(
                f"A trajectory bank holds what follows {' and '.join(known)} only, not {', '.join(unknown)}: set "
                f"policy.actions=[{','.join(known)}] to train or play a policy on it."
            )
        self._bank, self._config, self._chooser = bank, config, chooser
        self._rows = config.images_per_pass
        self._policy = PolicyNetwork(bank.plan.layout.width, config.policy.hidden, actions=config.policy.actions)
        self._version = -1

    def set_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """Act with ``weights`` from now on."""
        self._policy.load_state_dict({name: from_numpy(np.array(value)) for name, value in weights.items()})
        self._version = version

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        """Play ``tickets``; one whose (prompt, seed) the bank does not hold comes back as failed.

        Raises:
            ContractError: another sampler is asked for, which no bank can answer.
        """
        if sampler is not None and sampler != self._config.sampler:
            raise ContractError("A trajectory bank can't be asked for another sampler than its own.")
        episodes: list[Episode] = []
        failed: list[FailedEpisode] = []
        with torch_threads(1):
            for ticket in sorted(tickets, key=lambda ticket: ticket.ticket_id):
                trajectory = self._bank.find(ticket.prompt.text, ticket.seed)
                if trajectory is None:
                    reason = f"The trajectory bank {self._bank.path} has no {ticket.prompt.text!r} of this seed."
                    failed.append(FailedEpisode(ticket=ticket, reason=reason))
                elif ticket.setting != trajectory.setting:
                    reason = (
                        f"Ticket {ticket.ticket_id} asks for {ticket.setting}, but the bank's image was drawn with "
                        f"{trajectory.setting}."
                    )
                    failed.append(FailedEpisode(ticket=ticket, reason=reason, final=True))
                else:
                    episodes.append(self._play(ticket, trajectory))
        return Collected(episodes=tuple(episodes), failed=tuple(failed))

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        """``collect``: a bank plays every episode to its end at once."""
        return self.collect(tickets)

    def _play(self, ticket: Ticket, trajectory: Trajectory) -> Episode:
        if ticket.forced is not None:
            return self._episode(ticket, trajectory, _forced_stop(ticket, trajectory))
        phi = trajectory.phi.copy()
        phi[:, self._bank.plan.layout.price_column] = log_price(ticket.c_nfe)
        if self._chooser is not None:
            stop = self._chooser(trajectory, ticket)
            nothing = np.zeros((len(phi), len(FIRST_ACTIONS)), np.float32)
            actions = np.full(stop + 1, Action.CONTINUE, np.int64)
            actions[-1] = Action.STOP if stop < len(phi) - 1 else Action.CONTINUE
            taken = _Taken(phi=phi, logits=nothing, actions=actions, log_prob=np.zeros(stop + 1, np.float32))
        else:
            taken = self._decide(ticket, phi)
        return self._episode(ticket, trajectory, len(taken.actions) - 1, taken)

    def _decide(self, ticket: Ticket, phi: NDArray[np.float32]) -> _Taken:
        logits = self._logits(phi)
        draws = generator(ticket.action_seed, "action") if ticket.explore else None
        actions: list[int] = []
        log_probs: list[float] = []
        for row in logits:
            action, log_prob = choose(row, draws)
            actions.append(int(action))
            log_probs.append(log_prob)
            if action is Action.STOP:
                break
        return _Taken(
            phi=phi, logits=logits, actions=np.array(actions, np.int64), log_prob=np.array(log_probs, np.float32)
        )

    def _logits(self, phi: NDArray[np.float32]) -> NDArray[np.float32]:
        """(d, 3) at the batch shape of a live group, so that sums are rounded alike."""
        padded = np.zeros((-(-len(phi) // self._rows) * self._rows, phi.shape[1]), np.float32)
        padded[: len(phi)] = phi
        with torch.inference_mode():
            parts = [self._policy(part).numpy() for part in torch.split(from_numpy(padded), self._rows)]
        return np.concatenate(parts)[: len(phi)]

    def _episode(self, ticket: Ticket, trajectory: Trajectory, row: int, taken: _Taken | None = None) -> Episode:
        """The record of an episode that ends at decision ``row``; without decisions when nobody was asked."""
        end = trajectory.end_at(row)
        seen = row + 1 if taken is not None else 0
        nfe = self._nfe(trajectory, row)
        spent = np.diff(np.append(trajectory.nfe[:seen], nfe)) if seen else np.zeros(0, np.int64)
        scores = np.concatenate([trajectory.scores[:seen], trajectory.end_scores[end : end + 1]])
        final_dino = trajectory.end_dino[end]
        actions = taken.actions if taken is not None else np.zeros(0, np.int64)
        return Episode(
            ticket=ticket,
            phi=taken.phi[:seen] if taken is not None else trajectory.phi[:0],
            actions=actions,
            log_prob=taken.log_prob if taken is not None else np.zeros(0, np.float32),
            logits=taken.logits[:seen] if taken is not None else np.zeros((0, len(FIRST_ACTIONS)), np.float32),
            steps=trajectory.steps[:seen],
            nfe_spent=spent,
            scores=scores,
            terms=self._terms(
                ticket,
                scores,
                np.concatenate([trajectory.dino[:seen], final_dino[None]]),
                spent.astype(np.float64) * trajectory.cost_per_nfe,
            ),
            final_dino=final_dino,
            image=NO_IMAGE,
            nfe=nfe,
            network_evals=nfe * trajectory.evals_per_nfe,
            weight_version=self._version,
            seconds=0.0,
            cost=nfe * trajectory.cost_per_nfe,
        )

    def _nfe(self, trajectory: Trajectory, row: int) -> int:
        """NFE of a stop at decision ``row``, tried or not: a finish is never longer than what is left."""
        left = int(trajectory.steps[-1] - trajectory.steps[row])
        return int(trajectory.nfe[row]) + min(self._config.sampler.finish_steps, left)

    def _terms(
        self, ticket: Ticket, scores: NDArray[np.float32], dino: NDArray[np.float32], cost_spent: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        if not len(cost_spent):
            return np.zeros((0, len(TERM_NAMES)), np.float32)
        return compute_terms(
            self._config.reward,
            scores=scores,
            dino=dino,
            cost_spent=cost_spent,
            refined=np.zeros(len(cost_spent), np.bool_),
            c_nfe=ticket.c_nfe,
            reference=ticket.reference,
        )


def _forced_stop(ticket: Ticket, trajectory: Trajectory) -> int:
    """The decision at which a forced episode ends."""
    if ticket.script is not None or ticket.forced not in (Action.CONTINUE, Action.STOP):
        raise ContractError("A trajectory bank can't play forced actions other than continue and stop.")
    return 0 if ticket.forced is Action.STOP else len(trajectory.steps) - 1


def oracle_chooser(section: RewardSection) -> Chooser:
    """A chooser of the best reward at the ticket's price, with hindsight: the demonstrations of ``bc``."""

    def choose(trajectory: Trajectory, ticket: Ticket) -> int:
        return int(trajectory.end_rows[oracle_end(reward_of_ends(trajectory, section, c_nfe=ticket.c_nfe))])

    return choose


def any_chooser(trajectory: Trajectory, ticket: Ticket) -> int:
    """A random one of the stops that were tried: the demonstrations of ``marwil``, which weighs them itself."""
    draws = generator(ticket.action_seed, "demonstration")
    return int(trajectory.end_rows[int(torch.randint(len(trajectory.end_rows), (), generator=draws))])
