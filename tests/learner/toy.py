"""A task small enough to learn in seconds: stop at the step that is best for the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from addiffusion import seeds
from addiffusion.actions import Action
from addiffusion.config import Config, PolicySection, PpoSection, RolloutSection, RunSection, SamplerSection
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Episode, FailedEpisode, Prompt, Ticket
from addiffusion.rollouts import Collected
from learner.tickets import PoolEntry

LAST_STEP = 9
BEST_STEPS = (1, 3, 5, 7)
"""By prompt id."""
WIDTH = len(BEST_STEPS) + LAST_STEP + 1
"""phi: one-hot prompt, one-hot step."""


def toy_config(*, seed: int = 0, **ppo: Any) -> Config:
    """Tiny networks and batches."""
    return Config(
        run=RunSection(seed=seed),
        rollout=RolloutSection(max_reissues=2, timeout_s=60, slots=4),
        policy=PolicySection(hidden=(32,), prior=(1 / 3, 1 / 3, 1 / 3)),
        ppo=PpoSection.model_validate({"batch_size": 16, "minibatch_size": 32, "lr": 1e-2, "iterations": 40, **ppo}),
    )


def toy_weights(config: Config) -> dict[str, NDArray[np.float32]]:
    """Some weights of the policy network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PolicyNetwork(WIDTH, config.policy.hidden)
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def toy_pool(count: int = 12) -> tuple[PoolEntry, ...]:
    prompts = [
        Prompt(prompt_id=i % len(BEST_STEPS), text=f"prompt {i % len(BEST_STEPS)}", tier=1) for i in range(count)
    ]
    return tuple(PoolEntry(prompt=prompt, seed=100 + i) for i, prompt in enumerate(prompts))


def toy_ticket(ticket_id: int = 0, prompt_id: int = 0) -> Ticket:
    prompt = Prompt(prompt_id=prompt_id, text="", tier=1)
    return Ticket(ticket_id=ticket_id, prompt=prompt, seed=0, action_seed=ticket_id, c_nfe=0.01)


def toy_episode(
    ticket: Ticket,
    *,
    phi: NDArray[np.float32],
    actions: Sequence[int],
    rewards: Sequence[float],
    logits: NDArray[np.float32] | None = None,
    weight_version: int = 0,
) -> Episode:
    """An episode with all its reward in the quality term."""
    count = len(actions)
    logits = np.zeros((count, 3), np.float32) if logits is None else logits
    log_probs = torch.log_softmax(torch.from_numpy(logits), -1).numpy()
    terms = np.zeros((count, 4), np.float32)
    terms[:, 0] = rewards
    return Episode(
        ticket=ticket,
        phi=phi,
        actions=np.array(actions, np.int64),
        log_prob=log_probs[np.arange(count), list(actions)],
        logits=logits,
        steps=np.arange(count),
        nfe_spent=np.ones(count, np.int64),
        scores=np.zeros((count + 1, 3), np.float32),
        terms=terms,
        final_dino=np.zeros(2, np.float32),
        image=np.zeros((2, 2, 3), np.uint8),
        nfe=count,
        network_evals=2 * count,
        weight_version=weight_version,
        seconds=0.0,
    )


class ToyRollouts:
    """Rollouts whose episodes are a pure function of ticket and weights. ``failures`` maps ticket ids to how often."""

    def __init__(self, config: Config, failures: Mapping[int, int] | None = None) -> None:
        self.policy = PolicyNetwork(WIDTH, config.policy.hidden)
        self.version = -1
        self.batches: list[tuple[int, ...]] = []
        self._failures = dict(failures or {})

    def set_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        self.policy.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
        self.version = version

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.batches.append(tuple(ticket.ticket_id for ticket in tickets))
        failed = tuple(ticket for ticket in tickets if self._fails(ticket.ticket_id))
        done = [ticket for ticket in tickets if ticket not in failed]
        return Collected(
            episodes=tuple(self._roll_out(ticket) for ticket in reversed(done)),  # the order must not matter
            failed=tuple(FailedEpisode(ticket=ticket, reason="it rained") for ticket in failed),
            stage_s={"network": 1.0},
        )

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        return self.collect(tickets)

    def _fails(self, ticket_id: int) -> bool:
        left = self._failures.get(ticket_id, 0)
        self._failures[ticket_id] = left - 1
        return left > 0

    def _roll_out(self, ticket: Ticket) -> Episode:
        draws = seeds.generator(ticket.action_seed, "action")
        phi: list[NDArray[np.float32]] = []
        actions: list[int] = []
        logits: list[NDArray[np.float32]] = []
        while len(actions) <= LAST_STEP and (not actions or actions[-1] != Action.STOP):
            phi.append(toy_phi(ticket.prompt.prompt_id, len(actions)))
            with torch.inference_mode():
                row = self.policy(torch.from_numpy(phi[-1])[None])[0]
            logits.append(row.numpy())
            actions.append(int(torch.multinomial(torch.softmax(row, -1), 1, generator=draws)))
        return toy_episode(
            ticket,
            phi=np.stack(phi),
            actions=actions,
            rewards=toy_rewards(ticket.prompt.prompt_id, actions),
            logits=np.stack(logits),
            weight_version=self.version,
        )


def toy_phi(prompt_id: int, step: int) -> NDArray[np.float32]:
    phi = np.zeros(WIDTH, np.float32)
    phi[[prompt_id, len(BEST_STEPS) + step]] = 1.0
    return phi


def toy_rewards(prompt_id: int, actions: Sequence[int]) -> list[float]:
    """1 for stopping at the best step, less by the distance from it; a refine costs a little."""
    rewards = [-0.05 if action == Action.REFINE else 0.0 for action in actions]
    rewards[-1] += 1.0 - distance_from_best(prompt_id, len(actions) - 1) / 4
    return rewards


def distance_from_best(prompt_id: int, step: int) -> int:
    return abs(step - BEST_STEPS[prompt_id])


def make_episodes(lengths: Sequence[int] = (1, 3, 1, 9, 2, 5), seed: int = 0) -> list[Episode]:
    draws = np.random.default_rng(seed)
    return [
        toy_episode(
            toy_ticket(ticket_id),
            phi=draws.standard_normal((length, WIDTH)).astype(np.float32),
            actions=draws.integers(0, 3, length).tolist(),
            rewards=draws.standard_normal(length).tolist(),
        )
        for ticket_id, length in enumerate(lengths)
    ]
