"""A policy from a trajectory bank, before its first live episode: optimal stopping by classification.

On a bank the reward of stopping now and the reward of going on are both known for every decision, so each is a
labelled example: stop where that is better, weighted by how much. ``clone`` epochs value going on as an oracle would,
which knows each trajectory's future; ``improve`` epochs as the present policy itself would, which does not (policy
iteration by classification, Lagoudakis and Parr, ICML 2003). Under weighted cross-entropy a policy stops where it
expects to gain by it from all that phi tells, and hindsight cancels. Trajectories of a held-out share choose the epoch
that is kept (docs/adr/0041).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from addiffusion.actions import Action
from addiffusion.bank.oracle import gain_share
from addiffusion.config.bank import WarmStartSection
from addiffusion.observation.layout import Layout
from addiffusion.observation.scalars import PRICE_FLOOR, log_price
from addiffusion.policy import PolicyNetwork, ValueNetwork
from addiffusion.ranks import rank_correlation
from addiffusion.seeds import generator
from addiffusion.threads import torch_threads
from learner.stopping import Paths, best_fixed_stop, oracle_values, policy_values, returns_of, stop_advantages

Prices = tuple[float, float]
"""Least and greatest price of a log-uniform draw; equal where the price is fixed."""
_VALIDATION_PRICES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStartReport:
    """Worth of the greedy policy on the held-out trajectories. Rewards from the first decision on."""

    epoch: int
    """Epoch that was kept."""
    epochs: int
    reward: float
    full_reward: float
    """Of never stopping."""
    fixed_reward: float
    """Of the stop that would be best for all training trajectories."""
    oracle_reward: float
    """Of stopping with hindsight."""
    passes: float
    """Mean passes after the first decision."""
    tier_spearman: float
    """Rank correlation of passes and tier; NaN without tiers."""
    train_reward: float
    """As ``reward``, on the trajectories trained on."""

    @property
    def oracle_share(self) -> float | None:
        """Share of the oracle's gain over never stopping; None where an oracle gains nothing."""
        return gain_share(self.reward, self.full_reward, self.oracle_reward)

    @property
    def beyond_fixed(self) -> float | None:
        """Share of what the oracle gains over the best fixed stop; 0 is no better than a static sampler.

        None where an oracle gains nothing over it.
        """
        return gain_share(self.reward, self.fixed_reward, self.oracle_reward)

    def as_json(self) -> dict[str, Any]:
        """One object for programs."""
        numbers = asdict(self) | {"oracle_share": self.oracle_share, "beyond_fixed": self.beyond_fixed}
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in numbers.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """Policy and value network."""

    policy: PolicyNetwork
    value: ValueNetwork

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Copies of both networks' states."""
        return copy.deepcopy(self.policy.state_dict()), copy.deepcopy(self.value.state_dict())

    def load(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Put both networks into ``state``."""
        self.policy.load_state_dict(state[0])
        self.value.load_state_dict(state[1])


class WarmStart:
    """One warm start: a pure function of networks, trajectories and seed."""

    def __init__(
        self, networks: Networks, paths: Paths, *, layout: Layout, section: WarmStartSection, prices: Prices, seed: int
    ) -> None:
        """Share the trajectories into those to train on and those held out.

        Args:
            networks: trained in place.
            paths: trajectories of one bank.
            layout: slices of phi.
            section: epochs, rates and shares.
            prices: least and greatest price to train at.
            seed: of shares, orders and prices.
        """
        self._networks, self._section, self._prices, self._layout = networks, section, prices, layout
        self._draws = generator(seed, "warm start")
        order = torch.randperm(len(paths), generator=self._draws)
        held = max(1, round(section.holdout_share * len(paths)))
        self._held, self._train = paths.rows(order[:held]), paths.rows(order[held:])

    def run(self, advance: Callable[[int], None] = lambda _: None) -> WarmStartReport:
        """Train, and leave the best epoch's weights in the networks. ``advance`` is told of every epoch."""
        section, networks = self._section, self._networks
        parameters = [*networks.policy.parameters(), *networks.value.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=section.lr, weight_decay=section.weight_decay)
        epochs = section.clone_epochs + section.improve_epochs
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs, 1))
        best, kept, state = -math.inf, 0, networks.state()
        with torch_threads(section.threads):
            for epoch in range(epochs):
                for batch in self._batches():
                    self._step(optimizer, batch, clone=epoch < section.clone_epochs)
                schedule.step()
                reward = self._held_out_reward()
                if reward > best:
                    best, kept, state = reward, epoch + 1, networks.state()
                advance(1)
            networks.load(state)
            networks.policy.sharpen(section.sharpness)
            return self._report(kept, epochs)

    # ---------------------------------------------------------------- training

    def _batches(self) -> Iterator[Paths]:
        order = torch.randperm(len(self._train), generator=self._draws)
        for which in order.split(self._section.batch_size):
            yield self._train.rows(which)

    def _step(self, optimizer: torch.optim.Optimizer, batch: Paths, *, clone: bool) -> None:
        c_nfe = self._drawn_prices(len(batch))
        phi = self._blurred(self._priced(batch.phi, c_nfe))
        logits = self._networks.policy(phi)
        margin = _stop_margin(logits)
        values = policy_values((margin.detach() > 0).float(), batch, c_nfe)
        advantages = stop_advantages(oracle_values(batch, c_nfe) if clone else values, batch, c_nfe)
        # Each trajectory counts alike: advantages grow with its price, and cheap passes would have no say.
        weights = advantages.abs() / advantages.abs().mean(1, keepdim=True).clamp_min(1e-8)
        regret = nn.functional.binary_cross_entropy_with_logits(margin, (advantages > 0).float(), weights)
        fit = (self._networks.value(phi) - values).square().mean()
        optimizer.zero_grad()
        (regret + self._section.value_coeff * fit + self._refine_loss(logits)).backward()
        for network in (self._networks.policy, self._networks.value):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    def _drawn_prices(self, count: int) -> Float[Tensor, " n"]:
        low, high = (math.log(max(price, PRICE_FLOOR)) for price in self._prices)
        return (low + (high - low) * torch.rand(count, generator=self._draws)).exp()

    def _priced(self, phi: Float[Tensor, "n d p"], c_nfe: Float[Tensor, " n"]) -> Float[Tensor, "n d p"]:
        """(n, d, p) the same observations under other prices."""
        priced = phi.clone()
        priced[:, :, self._layout.price_column] = torch.from_numpy(log_price(c_nfe.numpy()))[:, None]
        return priced

    def _blurred(self, phi: Float[Tensor, "n d p"]) -> Float[Tensor, "n d p"]:
        """(n, d, p) with whole slices of some trajectories hidden: a few hundred pictures are soon known by heart."""
        keep = torch.ones_like(phi)
        for name in self._layout.names:
            if name in {"clip_image", "clip_text", "middle", "text"}:
                hidden = torch.rand(len(phi), generator=self._draws) < self._section.hide_share
                keep[hidden, :, self._layout.slice(name)] = 0.0
        return phi * keep

    def _refine_loss(self, logits: Float[Tensor, "n d a"]) -> Float[Tensor, ""]:
        """A bank knows of continue and stop: others stay near ``refine_prob``, so that PPO can learn about them."""
        log_probs, target, loss = torch.log_softmax(logits, -1), self._section.refine_prob, logits.new_zeros(())
        for action in torch.nonzero(~self._networks.policy.forbidden[Action.REFINE :]).flatten() + Action.REFINE:
            log_prob = log_probs[..., action]
            others = torch.log1p(-log_prob.exp().clamp(max=1 - 1e-6))
            loss = loss - (target * log_prob + (1 - target) * others).mean() * self._section.refine_coeff
        return loss

    # ---------------------------------------------------------------- measuring

    def _held_out_reward(self) -> float:
        """Mean over prices from the least to the greatest."""
        low, high = (math.log(max(price, PRICE_FLOOR)) for price in self._prices)
        shares = [0.0] if low == high else [i / (_VALIDATION_PRICES - 1) for i in range(_VALIDATION_PRICES)]
        return sum(self._reward(self._held, math.exp(low + share * (high - low))) for share in shares) / len(shares)

    def _reward(self, paths: Paths, price: float) -> float:
        c_nfe = torch.full((len(paths),), price)
        return float(returns_of(paths, self._greedy(paths, c_nfe), c_nfe).mean())

    @torch.no_grad()
    def _greedy(self, paths: Paths, c_nfe: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """(n,) the first decision at which stop is the likeliest; the last where there is none."""
        stops = _stop_margin(self._networks.policy(self._priced(paths.phi, c_nfe))) > 0
        stops[:, -1] = True
        return stops.int().argmax(dim=1)

    def _report(self, kept: int, epochs: int) -> WarmStartReport:
        low, high = (max(price, PRICE_FLOOR) for price in self._prices)
        price = math.sqrt(low * high)
        held, c_nfe = self._held, torch.full((len(self._held),), price)
        fixed = best_fixed_stop(self._train, torch.full((len(self._train),), price))
        stops = self._greedy(held, c_nfe)
        passes, tiers = held.nfe(stops), held.tiers
        return WarmStartReport(
            epoch=kept,
            epochs=epochs,
            reward=float(returns_of(held, stops, c_nfe).mean()),
            full_reward=float(returns_of(held, torch.full_like(stops, held.phi.shape[1] - 1), c_nfe).mean()),
            fixed_reward=float(returns_of(held, torch.full_like(stops, fixed), c_nfe).mean()),
            oracle_reward=float(oracle_values(held, c_nfe)[:, 0].mean()),
            passes=float(passes.mean()),
            tier_spearman=rank_correlation(passes.numpy(), tiers.numpy()),
            train_reward=self._reward(self._train, price),
        )


def _stop_margin(logits: Float[Tensor, "n d a"]) -> Float[Tensor, "n d"]:
    """Log odds of stop against continue."""
    return logits[..., Action.STOP] - logits[..., Action.CONTINUE]
