"""One full-length path of a (prompt, seed), with the outcome of every stop on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import ContractError
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, Episode, Prompt, Reference
from addiffusion.setting import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Shapes: ``d`` decisions, ``p`` width of phi, ``k`` scores, ``m`` metrics, ``f`` DINO features, ``s`` ends."""

    prompt: Prompt
    seed: int
    steps: NDArray[np.int64]
    """(d,) schedule index i of each decision."""
    nfe: NDArray[np.int64]
    """(d,) passes so far at each decision."""
    evals_per_nfe: int
    """Passes through the network per NFE: 2 with guidance."""
    phi: NDArray[np.float32]
    """(d, p) as a policy would have seen it; the price in it is that of the build."""
    scores: NDArray[np.float32]
    """(d + 1, k) of the prediction at each decision, then of the full-length image; NaN where nobody looked."""
    metrics: NDArray[np.float32]
    """(d + 1, m) likewise."""
    dino: NDArray[np.float32]
    """(d + 1, f) likewise."""
    end_rows: NDArray[np.int64]
    """(s,) decisions at which the path can end, rising; the last end is the full length, at decision d - 1."""
    end_nfe: NDArray[np.int64]
    """(s,) NFE of the whole episode that ends so, finish passes included."""
    end_scores: NDArray[np.float32]
    """(s, k) of the image it returns."""
    end_metrics: NDArray[np.float32]
    """(s, m)."""
    end_dino: NDArray[np.float32]
    """(s, f)."""
    setting: Setting | None = None
    """What it was drawn with, where each image of the bank has a setting of its own."""
    cost_per_nfe: float = 1.0
    """Cost of a pass: 1/2 without guidance, where the bank's images are guided by default."""

    @property
    def reference(self) -> Reference:
        """Scores and features of the full-length image, which ``paired`` rewards are relative to."""
        return Reference(scores=self.scores[-1].copy(), dino_embedding=self.dino[-1].copy())

    def ends(self, name: str, metrics: tuple[str, ...] = METRIC_NAMES) -> NDArray[np.float64]:
        """(s,) a score or metric of the image of each end, by its name.

        Args:
            name: a name of SCORE_NAMES or of ``metrics``.
            metrics: names of the metric columns (``bank.plan.metrics``).

        Raises:
            ContractError: there is no such column.
        """
        if name in SCORE_NAMES:
            return self.end_scores[:, SCORE_NAMES.index(name)].astype(np.float64)
        if name not in metrics[: self.end_metrics.shape[1]]:
            raise ContractError(f"A trajectory has no column {name!r}; it has {', '.join((*SCORE_NAMES, *metrics))}.")
        return self.end_metrics[:, metrics.index(name)].astype(np.float64)

    def end_at(self, row: int) -> int:
        """The end that a stop at decision ``row`` leads to: its own, or the next one that was tried."""
        return int(self.ends_at(np.array(row)))

    def ends_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """``end_at`` of any number of decisions; those past the last one are the full length."""
        return np.searchsorted(self.end_rows, rows.clip(max=self.end_rows[-1]))


def trajectory_of(episode: Episode) -> Trajectory:
    """The trajectory of an episode that recorded its stops.

    Raises:
        ContractError: it recorded none.
    """
    found = episode.stop_records
    if found is None:
        raise ContractError(
            f"Episode {episode.ticket.ticket_id} has no stop records, so it is no trajectory of a bank."
        )
    last = len(episode.actions) - 1
    tried = found.stop_rows < last  # stopping at the last decision is what continuing there is
    nfe_left = episode.nfe_spent[::-1].cumsum()[::-1]
    return Trajectory(
        prompt=episode.ticket.prompt,
        seed=episode.ticket.seed,
        steps=episode.steps,
        nfe=episode.nfe - nfe_left,
        evals_per_nfe=episode.network_evals // episode.nfe,
        phi=episode.phi,
        scores=episode.scores,
        metrics=found.metrics,
        dino=found.dino,
        end_rows=np.append(found.stop_rows[tried], last),
        end_nfe=np.append(found.stop_nfe[tried], episode.nfe),
        end_scores=np.concatenate([found.stop_scores[tried], episode.scores[-1:]]),
        end_metrics=np.concatenate([found.stop_metrics[tried], found.metrics[-1:]]),
        end_dino=np.concatenate([found.stop_dino[tried], found.dino[-1:]]),
        setting=episode.ticket.setting,
        cost_per_nfe=episode.cost / episode.nfe,
    )
