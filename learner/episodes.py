"""The project's episodes as RLlib's."""

from __future__ import annotations

from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from addiffusion.errors import ContractError
from addiffusion.records import Episode


def to_single_agent_episode(episode: Episode) -> SingleAgentEpisode:
    """All decisions of a finished episode, terminated, with what the behaviour policy said at each.

    ``len_lookback_buffer=0`` is essential: RLlib's default turns every given step into look-back, which trains on
    nothing.

    Raises:
        ContractError: the episode has no decision, so there is nothing to learn from it.
    """
    if not len(episode.actions):
        raise ContractError(
            f"Episode of ticket {episode.ticket.ticket_id} has no decision and can't be trained on: only tickets "
            "without a forced action belong in a training batch.",
            ticket_id=episode.ticket.ticket_id,
        )
    return SingleAgentEpisode(
        id_=str(episode.ticket.ticket_id),
        observations=[*episode.phi, episode.phi[-1]],  # RLlib wants what follows the last action; it is never read
        actions=list(episode.actions),
        rewards=list(episode.rewards),
        terminated=True,
        len_lookback_buffer=0,
        extra_model_outputs={
            Columns.ACTION_LOGP: list(episode.log_prob),
            Columns.ACTION_DIST_INPUTS: list(episode.logits),
        },
    ).to_numpy()
